"""The network fields that a config sets: by name, or in `config.model.options`."""

import ast
import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from ferjax.config import ModelConfig
from ferjax.hints import describe, fits
from ferjax.models.registry import model_spec

# Fields that other parts of a config set.
_SET_ELSEWHERE = {
  "num_classes": "data.class_names",
  "size": "model.size",
  "variant": "model.variant",
  "dtype": "model.dtype",
  "frozen": "train.freeze",
}
_PLAIN = (str, bool, int, float, type(None))
# A comma outside brackets; nested tuples are not supported.
_SEPARATOR = re.compile(r",(?![^(\[]*[)\]])")


def model_arguments(config: ModelConfig) -> dict[str, Any]:
  """The arguments of `ferjax.create_model` for a config, without the number of classes.

  Every field that a config can set is included, with its default if not set, so that a checkpoint
  with these arguments describes its network even if defaults change.

  Raises:
    ValueError: an unknown model, invalid `options`, or a missing option without a default.
  """
  module = model_spec(config.name).module
  arguments: dict[str, Any] = {"name": config.name, "dtype": config.dtype}
  fields = _fields(module)
  if config.size or "size" in fields:
    arguments["size"] = config.size or fields["size"]
  if "variant" in fields or config.variant != ModelConfig().variant:
    arguments["variant"] = config.variant
  known = option_types(module)
  defaults = {name: fields[name] for name in known if fields[name] is not dataclasses.MISSING}
  options = defaults | parse_options(config.name, config.options)
  missing = known.keys() - options.keys()
  if missing:
    raise ValueError(
      f"model.options is {config.options!r}; {config.name} also needs {', '.join(sorted(missing))}"
    )
  return arguments | options


def model_config(arguments: Mapping[str, Any]) -> ModelConfig:
  """The inverse of `model_arguments`, also after JSON."""
  given = dict(arguments)
  fields = {name: given.pop(name) for name in ("name", "size", "variant", "dtype") if name in given}
  return ModelConfig(**fields, options=",".join(f"{name}={_text(x)}" for name, x in given.items()))


def option_types(module: type[nn.Module]) -> dict[str, Any]:
  """Field of a network -> its type, for the fields that `config.model.options` can set."""
  hints = typing.get_type_hints(module)
  names = [name for name in _fields(module) if name not in _SET_ELSEWHERE]
  return {name: hints[name] for name in names if _is_plain(hints[name])}


def parse_options(name: str, text: str) -> dict[str, Any]:
  """The values of "field=value,field=value" for the network `name`; empty for empty text.

  Values are written as in Python, but strings without quotation marks: "mode=conv_only,rate=0.1".

  Raises:
    ValueError: malformed text, an unknown field or one that is set elsewhere, or a value of the
      wrong type; the message states what was expected.
  """
  known = option_types(model_spec(name).module)
  options: dict[str, Any] = {}
  for entry in _SEPARATOR.split(text) if text else ():
    field, equals, written = (part.strip() for part in entry.partition("="))
    if field in _SET_ELSEWHERE:
      raise ValueError(f"model.options sets {field}; set config.{_SET_ELSEWHERE[field]} instead")
    if not equals or field in options:
      raise ValueError(
        f"model.options is {text!r}, wrong at {entry!r}; expected field=value,field=value, with "
        "each field named once"
      )
    if field not in known:
      raise ValueError(
        f"model.options sets {field}, which {name} does not have; its options: "
        f"{', '.join(known) or 'none'}"
      )
    value = written if known[field] is str else _parse_value(written)
    if not _fits(value, known[field]):
      raise ValueError(
        f"model.options sets {field} of {name} to {written!r}; expected {describe(known[field])}"
      )
    options[field] = value
  return options


def checked_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
  """Checks fields of the network `name` from Python or JSON; lists become tuples.

  Raises:
    TypeError: an unknown field, or a value of the wrong type.
  """
  module = model_spec(name).module
  fields, types_of_options = _fields(module), option_types(module)
  checked = {}
  for field, value in options.items():
    if field not in fields:
      raise TypeError(f"{name} has no option {field!r}; known: {', '.join(fields)}")
    value = tuple(value) if isinstance(value, list) else value
    expected = types_of_options.get(field)
    if expected is not None and not _fits(value, expected):
      raise TypeError(f"{field} of {name} is {value!r}; expected {describe(expected)}")
    checked[field] = value
  return checked


def _fields(module: type[nn.Module]) -> dict[str, Any]:
  """Field -> its default, without the fields of all linen modules."""
  return {
    field.name: field.default
    for field in dataclasses.fields(module)
    if field.name not in ("parent", "name")
  }


def _is_plain(hint: Any) -> bool:
  arguments = typing.get_args(hint)
  if typing.get_origin(hint) in (tuple, typing.Union, types.UnionType):
    return all(_is_plain(x) for x in arguments if x is not ...)
  return hint in _PLAIN


def _parse_value(text: str) -> Any:
  """The value of a Python literal; the text itself if it is not one."""
  literal = {"true": "True", "false": "False", "none": "None"}.get(text.lower(), text)
  try:
    return ast.literal_eval(literal)
  except (ValueError, SyntaxError, TypeError):
    return text


def _text(value: Any) -> str:
  """A value as `parse_options` reads it."""
  if isinstance(value, str):
    return value
  return repr(tuple(value) if isinstance(value, list) else value)


def _fits(value: Any, hint: Any) -> bool:
  """Whether a value has the type and is finite."""
  numbers = value if isinstance(value, tuple) else (value,)
  return fits(value, hint) and all(not isinstance(x, float) or math.isfinite(x) for x in numbers)
