"""Shared by `train.py` and `eval.py`: flags, and error messages without tracebacks."""

import dataclasses
import itertools
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from ferjax.config import Config
from ferjax.hints import describe
from ferjax.hosts import join
from ferjax.output import escape_unencodable_output
from ferjax.training.loop import Interrupted
from ferjax.training.step_log import NonFiniteError

# Errors caused by the user; their messages give the fix.
STOPPED = (NonFiniteError, Interrupted)
USER_ERRORS = (ValueError, OSError, ImportError, *STOPPED)
TRACEBACK = "FERJAX_TRACEBACK"


_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Run on several hosts that start the same command (docs/scaling.md)."
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "Address host:port of host 0, if JAX cannot detect it."
)
_NUM_HOSTS = flags.DEFINE_integer("num_hosts", None, "Number of hosts; needs --coordinator.")
_HOST = flags.DEFINE_integer("host", None, "Index of this host, from 0; needs --coordinator.")


def join_hosts() -> None:
  """Connects the hosts if `--distributed` is given; call this before any other use of JAX.

  Raises:
    ValueError: the flags contradict each other, or the hosts cannot be found.
    ConnectionError: the hosts do not find each other.
  """
  address = (_COORDINATOR.value, _NUM_HOSTS.value, _HOST.value)
  if not _DISTRIBUTED.value:
    if address != (None, None, None):
      raise ValueError(
        "--coordinator, --num-hosts and --host are for runs on several hosts; pass --distributed "
        "as well"
      )
    return
  join(*address)


def run(main: Callable[[], None], argv: list[str] | None = None) -> None:
  """Parses the flags and calls `main`; prints one message after an error that a user can mend.

  The exit code is then 2, or 1 if the run was stopped: interrupted, or with numbers that are not
  finite.

  Args:
    main: the program.
    argv: name and arguments of the program; None for those of the process.

  With FERJAX_TRACEBACK=1 in the environment, errors are raised with their traceback.
  """
  escape_unencodable_output()
  app.run(lambda argv: _exit_on_user_error(lambda: _main(main, argv)), argv, flags_parser=_parse)


def _main(main: Callable[[], None], argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise ValueError(f"unexpected argument {argv[1]!r}; expected --name=value only")
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # orbax logs every file at INFO
  main()


def _parse(argv: Sequence[str]) -> list[str]:
  return _exit_on_user_error(lambda: _parse_checked(argv))


def _parse_checked(argv: Sequence[str]) -> list[str]:
  argv = list(map(_with_underscores, argv))
  check_overrides(argv)
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    raise ValueError(flag_error_message(error)) from error
  return rest


def _with_underscores(argument: str) -> str:
  """`--num-hosts=2` -> `--num_hosts=2`; fields of the config stay as they are."""
  flag, equals, value = argument.partition("=")
  if not flag.startswith("--") or flag.startswith("--config."):
    return argument
  return f"--{flag[2:].replace('-', '_')}{equals}{value}"


def flag_error_message(error: flags.Error) -> str:
  """The message of a flag error, readable for users."""
  text = str(error)
  if field := re.match(r"flag --config\.([\w.]+)=", text):
    # The original reason names only the conversion that failed.
    return f"{text.removesuffix(f': {error.__context__}')}: expected {describe(_hint(field[1]))}"
  # For an error in a config file, the text contains the whole traceback.
  cause = re.search(r"^ *ValueError: (.+)\Z", text.rstrip(), re.MULTILINE | re.DOTALL)
  return cause[1] if cause else text


def _exit_on_user_error(function: Callable[[], Any]) -> Any:
  try:
    return function()
  except USER_ERRORS as error:
    if os.environ.get(TRACEBACK, "") == "1":
      raise
    print(f"error: {error}\n(set {TRACEBACK}=1 for the traceback)", file=sys.stderr)
    sys.exit(1 if isinstance(error, STOPPED) else 2)


def check_overrides(argv: Sequence[str]) -> None:
  """Checks `--config` and `--config.<field>`: absl would report errors in them as tracebacks.

  Raises:
    ValueError: unknown field; the message lists the known ones.
    FileNotFoundError: the config file does not exist.
  """
  for argument, following in itertools.zip_longest(argv[1:], argv[2:], fillvalue=""):
    flag, given, value = argument.partition("=")
    if flag.lstrip("-") == "config" and flag.startswith("-"):
      path = (value if given else following).partition(":")[0]
      if not os.path.isfile(path):
        raise FileNotFoundError(
          f"no config file {path!r}; try a file in configs/ with its demo variant, FILE:demo"
        )
    elif flag.startswith(("-config.", "--config.")):
      _hint(flag.lstrip("-").removeprefix("config."))


def _hint(path: str) -> Any:
  """The type of a config field; ValueError for an unknown field or a group of fields."""
  kind, prefix = Config, "config"
  for name in path.split("."):
    known = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
    if name not in known:
      fields = (
        f"known fields of {prefix}: {', '.join(known)}"
        if known
        else f"{prefix} is one value, set by --{prefix}=VALUE"
      )
      raise ValueError(f"unknown field config.{path}; {fields}")
    kind, prefix = known[name], f"{prefix}.{name}"
  if dataclasses.is_dataclass(kind):
    raise ValueError(
      f"{prefix} is a group of fields: {', '.join(typing.get_type_hints(kind))}; set one of these"
    )
  return kind
