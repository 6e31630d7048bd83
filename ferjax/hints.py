"""Checks values of config fields and network options against their type hints."""

import sys
import types
import typing
from typing import Any

# Type -> description of one value and of several, and examples.
_WORDS = {
  str: ("a string", "strings", ("'a'", "'b'", "'c'")),
  int: ("a whole number of at most 64 bits", "whole numbers", ("1", "2", "3")),
  float: ("a number", "numbers", ("0.5", "1.0", "1.5")),
  bool: ("True or False", "True or False", ("True", "False", "True")),
  type(None): ("None", "None", ("None", "None", "None")),
}


def fits(value: Any, hint: Any) -> bool:
  """Whether a value has a type: a class, a union, a tuple of types, or Any.

  A whole number is also a number, but True and False are neither. A list is not a tuple. The
  contents of dicts and other containers are not checked.
  """
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is tuple:
    if not isinstance(value, tuple):
      return False
    kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
    return len(value) == len(kinds) and all(map(fits, value, kinds))
  if origin in (typing.Union, types.UnionType):
    return any(fits(value, argument) for argument in arguments)
  if hint is Any:
    return True
  is_whole = isinstance(value, int) and not isinstance(value, bool)
  if hint is int:
    return is_whole and abs(value) < 2**63
  if hint is float:
    return isinstance(value, float) or (is_whole and abs(value) <= sys.float_info.max)
  return isinstance(value, origin or hint)


def describe(hint: Any) -> str:
  """Describes the values of a type: "a tuple of 2 numbers, such as (0.5, 1.0)"."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return " or ".join(map(describe, arguments))
  if origin is tuple and arguments[0] in _WORDS:
    _, several, examples = _WORDS[arguments[0]]
    number = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
    shown = ", ".join(examples[: len(arguments)])
    return f"a tuple of {number}{several}, such as ({shown})"
  if hint in _WORDS:
    return _WORDS[hint][0]
  return hint.__name__ if isinstance(hint, type) and not arguments else str(hint)
