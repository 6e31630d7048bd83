"""Shared by `train.py` and `eval.py`: config flags, and error messages without tracebacks."""

import dataclasses
import itertools
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import app, flags, logging

from ferjax.config import Config
from ferjax.hints import describe
from ferjax.output import escape_unencodable_output
from ferjax.training.loop import Interrupted
from ferjax.training.step_log import NonFiniteError

# Errors caused by the user; their messages give the fix.
USER_ERRORS = (ValueError, OSError, ImportError, NonFiniteError, Interrupted)
TRACEBACK = "FERJAX_TRACEBACK"


_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Run on several hosts: calls jax.distributed.initialize()."
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "Address host:port of host 0, if JAX cannot detect it."
)
_NUM_HOSTS = flags.DEFINE_integer("num_hosts", None, "Number of hosts; given with --coordinator.")
_HOST = flags.DEFINE_integer("host", None, "Index of this host, from 0; given with --coordinator.")


def join_hosts() -> None:
  """Connects the hosts if `--distributed` is given; call this before any other use of JAX.

  Raises:
    ValueError: the flags contradict each other.
  """
  address = (_COORDINATOR.value, _NUM_HOSTS.value, _HOST.value)
  if len({value is None for value in address}) > 1:
    raise ValueError(
      f"--coordinator, --num_hosts and --host are {address}; give all three, or none if JAX "
      "detects the cluster (TPU pods, Slurm, Kubernetes, Open MPI)"
    )
  if not _DISTRIBUTED.value:
    if _COORDINATOR.value is not None:
      raise ValueError("--coordinator is for runs on several hosts; pass --distributed as well")
    return
  jax.distributed.initialize(*address)


def run(main: Callable[[], None]) -> None:
  """Parses the flags and calls `main`; exits with code 1 and one message after a user error.

  With FERJAX_TRACEBACK=1 in the environment, errors are raised with their traceback.
  """
  escape_unencodable_output()
  app.run(lambda argv: _guarded(lambda: _main(main, argv)), flags_parser=_parse)


def _main(main: Callable[[], None], argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise ValueError(f"unexpected argument {argv[1]!r}; expected --name=value only")
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # orbax logs every file at INFO
  main()


def _parse(argv: Sequence[str]) -> list[str]:
  return _guarded(lambda: _parse_checked(argv))


def _parse_checked(argv: Sequence[str]) -> list[str]:
  check_overrides(argv)
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    raise ValueError(explain(error)) from error
  return rest


def explain(error: flags.Error) -> str:
  """An error of the flags as users want to read it."""
  text = str(error)
  if field := re.match(r"flag --config\.([\w.]+)=", text):
    # Its own reason is which conversion failed.
    return f"{text.removesuffix(f': {error.__context__}')}: expected {describe(_hint(field[1]))}"
  # The text of an error in a config file contains the whole traceback.
  cause = re.search(r"^ *ValueError: (.+)\Z", text.rstrip(), re.MULTILINE | re.DOTALL)
  return cause[1] if cause else text


def _guarded(function: Callable[[], Any]) -> Any:
  try:
    return function()
  except USER_ERRORS as error:
    if os.environ.get(TRACEBACK, "") == "1":
      raise
    sys.exit(f"error: {error}\n(set {TRACEBACK}=1 to see where)")


def check_overrides(argv: Sequence[str]) -> None:
  """Checks `--config` and `--config.<field>`, whose own errors are tracebacks.

  Raises:
    ValueError: there is no such field; the message lists the known ones.
    FileNotFoundError: there is no such file.
  """
  for argument, following in itertools.zip_longest(argv[1:], argv[2:], fillvalue=""):
    flag, given, value = argument.partition("=")
    if flag.lstrip("-") == "config" and flag.startswith("-"):
      path = (value if given else following).partition(":")[0]
      if not os.path.isfile(path):
        raise FileNotFoundError(
          f"no config file {path!r}; try one of configs/, and its variant demo: FILE:demo"
        )
    elif flag.startswith(("-config.", "--config.")):
      _hint(flag.lstrip("-").removeprefix("config."))


def _hint(path: str) -> Any:
  """The type of a field of the config; ValueError if there is none, or a group of fields."""
  kind, done = Config, "config"
  for name in path.split("."):
    known = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
    if name not in known:
      fields = f"known fields of {done}: {', '.join(known)}" if known else f"{done} is one value"
      raise ValueError(f"there is no config.{path}; {fields}")
    kind, done = known[name], f"{done}.{name}"
  if dataclasses.is_dataclass(kind):
    raise ValueError(
      f"{done} is a group of fields: {', '.join(typing.get_type_hints(kind))}; set one of these"
    )
  return kind
