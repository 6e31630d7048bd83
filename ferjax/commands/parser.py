"""The parser of all subcommands: help with examples, and the options that each of them has."""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from ferjax.output import one_line

_NO_PROGRESS = "TQDM_DISABLE"


class CommandParser(argparse.ArgumentParser):
  """A parser whose help ends with examples; its subcommands have the same class.

  Args:
    examples: command lines.
  """

  def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any):
    super().__init__(*args, **kwargs)
    self._examples = tuple(examples)
    self._add_common_options()

  def _add_common_options(self) -> None:
    # Without a default, so that a subcommand does not reset what was given before its name.
    add = self.add_argument_group("messages").add_argument
    missing = argparse.SUPPRESS
    add("-q", "--quiet", action="store_true", default=missing, help="print errors only")
    add("-v", "--verbose", action="store_true", default=missing, help="print what is done")
    add("--debug", action="store_true", default=missing, help="print errors with their traceback")

  def error(self, message: str) -> NoReturn:
    """One line, like all errors: a usage has up to thirty."""
    self.exit(2, f"{self.prog}: error: {one_line(message)}; see `{self.prog} --help`\n")

  def format_help(self) -> str:
    text = super().format_help()
    if not self._examples:
      return text
    return "\n  ".join([f"{text}\nexamples:", *self._examples]) + "\n"


@contextlib.contextmanager
def messages(arguments: argparse.Namespace) -> Iterator[None]:
  """Prints as much as the common options say; results in JSON are always printed."""
  if getattr(arguments, "verbose", False):
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
  if not getattr(arguments, "quiet", False):
    yield
    return
  with contextlib.ExitStack() as stack:
    stack.enter_context(_no_progress())
    if not getattr(arguments, "json", False):
      nowhere = stack.enter_context(open(os.devnull, "w"))
      stack.enter_context(contextlib.redirect_stdout(nowhere))
    yield


@contextlib.contextmanager
def _no_progress() -> Iterator[None]:
  """Without tqdm's progress bars; it reads the variable when it is imported."""
  before = os.environ.get(_NO_PROGRESS)
  os.environ[_NO_PROGRESS] = "1"
  try:
    yield
  finally:
    del os.environ[_NO_PROGRESS]
    if before is not None:
      os.environ[_NO_PROGRESS] = before


def is_debugging(arguments: argparse.Namespace) -> bool:
  """Whether errors are to be raised with their traceback."""
  return getattr(arguments, "debug", False) or os.environ.get("FERJAX_TRACEBACK") == "1"
