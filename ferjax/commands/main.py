"""The `ferjax` command."""

import argparse
import os
import sys
from collections.abc import Sequence

from ferjax._version import __version__
from ferjax.commands.compare import add_compare
from ferjax.commands.completion import add_completion
from ferjax.commands.data import add_data
from ferjax.commands.demo import add_demo
from ferjax.commands.errors import CommandError
from ferjax.commands.explain import add_explain
from ferjax.commands.export import add_export
from ferjax.commands.info import add_info
from ferjax.commands.parser import CommandParser, is_debugging, messages
from ferjax.commands.predict import add_predict
from ferjax.commands.serve import add_serve
from ferjax.commands.training import add_evaluate, add_train, program_of, run_program
from ferjax.commands.weights import add_weights
from ferjax.hosts import OtherHostError
from ferjax.output import escape_unencodable_output


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one subcommand; returns the exit code: 0, or 2 after a usage or input error."""
  escape_unencodable_output()
  words = list(sys.argv[1:] if argv is None else argv)
  if program := program_of(words):
    return _run_program(program, words)
  try:
    return _run_command(words)
  except BrokenPipeError:
    # The reader of the output, such as `head`, has all it wants; the exit flushes once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _run_command(words: Sequence[str]) -> int:
  try:
    arguments = create_parser().parse_args(words)
  except SystemExit:
    sys.stdout.flush()  # after a help; only some versions of argparse notice a closed pipe
    raise
  try:
    with messages(arguments):
      code = arguments.run(arguments) or 0
    sys.stdout.flush()
    return code
  except (CommandError, OtherHostError) as error:
    if is_debugging(arguments):
      raise
    print(f"ferjax: error: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("ferjax: interrupted", file=sys.stderr)
    return 130


def _run_program(name: str, words: Sequence[str]) -> int:
  """`ferjax train` and `ferjax evaluate` have flags of absl."""
  try:
    run_program(name, words)
  except CommandError as error:
    print(f"ferjax: error: {error}", file=sys.stderr)
    return 2
  return 0


def create_parser() -> argparse.ArgumentParser:
  """The parser of the command and of all its subcommands."""
  parser = CommandParser(
    prog="ferjax",
    description="Facial expression recognition: inference, explanations, training, evaluation, a "
    "web service, a page to try it, data sets, cost, weights, exports.",
    examples=("ferjax predict photo.jpg", "ferjax predict --help"),
  )
  parser.add_argument("--version", action="version", version=f"ferjax {__version__}")
  commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
  for add in (
    add_predict,
    add_explain,
    add_serve,
    add_demo,
    add_data,
    add_info,
    add_weights,
    add_export,
  ):
    add(commands)
  add_train(commands)
  add_evaluate(commands)
  add_compare(commands)
  add_completion(commands, parser)
  return parser


if __name__ == "__main__":
  sys.exit(main())
