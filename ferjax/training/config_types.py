"""The types of a config's fields: checked from the hints of its dataclasses.

Python checks no types, and an override such as `--config.train.seeds=a` only becomes a tuple.
"""

import dataclasses
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from ferjax.config import Config

# Of a type: what one value is called, and several, and examples.
_WORDS = {
  str: ("a string", "strings", ("'a'", "'b'", "'c'")),
  int: ("a whole number of at most 64 bits", "whole numbers", ("1", "2", "3")),
  float: ("a number", "numbers", ("0.5", "1.0", "1.5")),
  bool: ("True or False", "True or False", ("True", "False", "True")),
}


def type_problems(config: Any) -> Iterator[str]:
  """Names every field whose value is not of its type, with the value and what is expected.

  A whole number is taken for a number as well, but True and False are neither. Nothing is
  converted: a list is no tuple.
  """
  if isinstance(config, Config):
    yield from _problems(config, "")
  else:
    yield f"{config!r} is a {type(config).__name__}; expected a ferjax.config.Config"


def describe(hint: Any) -> str:
  """What a value of a type looks like: "a tuple of 2 numbers, such as (0.5, 1.0)"."""
  arguments = typing.get_args(hint)
  if typing.get_origin(hint) is tuple and arguments[0] in _WORDS:
    _, several, examples = _WORDS[arguments[0]]
    number = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
    shown = ", ".join(examples[: len(arguments)])
    return f"a tuple of {number}{several}, such as ({shown})"
  if hint in _WORDS:
    return _WORDS[hint][0]
  return hint.__name__ if isinstance(hint, type) and not arguments else str(hint)


def _problems(values: Any, prefix: str) -> Iterator[str]:
  for name, hint in typing.get_type_hints(type(values)).items():
    value = getattr(values, name)
    if dataclasses.is_dataclass(hint) and _fits(value, hint):
      yield from _problems(value, f"{prefix}{name}.")
    elif not _fits(value, hint):
      yield f"{prefix}{name} is {value!r}; expected {describe(hint)}"


def _fits(value: Any, hint: Any) -> bool:
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is tuple:
    if not isinstance(value, tuple):
      return False
    kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
    return len(value) == len(kinds) and all(map(_fits, value, kinds))
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, argument) for argument in arguments)
  if hint is Any:
    return True
  is_whole = isinstance(value, int) and not isinstance(value, bool)
  if hint is int:
    return is_whole and abs(value) < 2**63
  if hint is float:
    return isinstance(value, float) or (is_whole and abs(value) <= sys.float_info.max)
  return isinstance(value, origin or hint)
