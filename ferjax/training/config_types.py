"""Checks the types of a config's fields against the hints of its dataclasses.

Python checks no types: the override `--config.train.seeds=a` becomes a tuple with a string.
"""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from ferjax.config import Config
from ferjax.hints import describe, fits


def type_problems(config: Any) -> Iterator[str]:
  """One message per field of the wrong type, with the value and the expected type."""
  if isinstance(config, Config):
    yield from _problems(config, "")
  else:
    yield f"{config!r} is a {type(config).__name__}; expected a ferjax.config.Config"


def _problems(values: Any, prefix: str) -> Iterator[str]:
  for name, hint in typing.get_type_hints(type(values)).items():
    value = getattr(values, name)
    if not fits(value, hint):
      yield f"{prefix}{name} is {value!r}; expected {describe(hint)}"
    elif dataclasses.is_dataclass(hint):
      yield from _problems(value, f"{prefix}{name}.")
