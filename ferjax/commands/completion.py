"""The subcommand `ferjax completion`: completion of commands and options in a shell."""

import argparse
import functools
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")
_PATHS = ("PATH", "FILE", "DIR", "WEIGHTS")  # metavars of files and folders


def add_completion(commands: "argparse._SubParsersAction[Any]", main: argparse.ArgumentParser):
  """Adds `completion` to the subcommands of the program whose parser is `main`.

  `arguments.run(arguments)` prints.
  """
  command = commands.add_parser(
    "completion",
    help="print a script that completes commands and options in a shell",
    description="Prints a script for a shell. It knows the options of this version.",
    examples=(
      'eval "$(ferjax completion bash)"  # in ~/.bashrc',
      'ferjax completion zsh > "${fpath[1]}/_ferjax"',
    ),
  )
  command.set_defaults(run=functools.partial(_run, main))
  command.add_argument("shell", choices=SHELLS, help="which shell")


def _run(main: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
  import shtab

  _complete_paths(main, shtab.FILE)
  print(shtab.complete(main, arguments.shell))


def _complete_paths(parser: argparse.ArgumentParser, completion: Any) -> None:
  """Lets all arguments that are files or folders be completed as such."""
  for action in parser._actions:
    if isinstance(action, argparse._SubParsersAction):
      for subparser in action.choices.values():
        _complete_paths(subparser, completion)
    elif action.metavar in _PATHS:
      action.complete = completion  # pyright: ignore[reportAttributeAccessIssue]
