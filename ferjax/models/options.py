"""The fields of a network that a config sets: by name, or as `config.model.options`."""

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
from ferjax.models.registry import model_names, model_spec

# Fields that another part of a config sets.
_SET_ELSEWHERE = {
  "num_classes": "data.class_names",
  "size": "model.size",
  "variant": "model.variant",
  "dtype": "model.dtype",
  "frozen": "train.freeze",
}
_PLAIN = (str, bool, int, float, type(None))
# A comma that is not inside of brackets; tuples of tuples are not worth a parser.
_SEPARATOR = re.compile(r",(?![^(\[]*[)\]])")


def model_arguments(config: ModelConfig) -> dict[str, Any]:
  """What `ferjax.create_model` takes for a config, apart from the number of classes.

  Every field of the network that a config can set is there, with its default where it is not set,
  so that a checkpoint that holds them describes its network even if defaults change.

  Raises:
    ValueError: an unknown model, impossible `options`, or one without a default is missing.
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


def option_types(module: type[nn.Module]) -> dict[str, Any]:
  """Field of a network -> its type, for those that `config.model.options` can set."""
  hints = typing.get_type_hints(module)
  names = [name for name in _fields(module) if name not in _SET_ELSEWHERE]
  return {name: hints[name] for name in names if _is_plain(hints[name])}


def parse_options(name: str, text: str) -> dict[str, Any]:
  """The values of "field=value,field=value" for the network `name`; none of an empty text.

  Values are written as in Python, text without quotation marks: "mode=conv_only,rate=0.1".

  Raises:
    ValueError: another form, an unknown field or one that is set elsewhere, or a value of another
      type; the message says what is possible.
  """
  known = option_types(model_spec(name).module)
  options: dict[str, Any] = {}
  for entry in _SEPARATOR.split(text) if text else ():
    field, equals, written = (piece.strip() for piece in entry.partition("="))
    if field in _SET_ELSEWHERE:
      raise ValueError(
        f"model.options sets {field}, which config.{_SET_ELSEWHERE[field]} decides; set that"
      )
    if not equals or field in options:
      raise ValueError(
        f"model.options is {text!r}, wrong at {entry!r}; expected field=value,field=value, with "
        "every field named once"
      )
    if field not in known:
      raise ValueError(
        f"model.options sets {field}, which {name} has not; its options: "
        f"{', '.join(known) or 'none'}"
      )
    value = written if known[field] is str else _evaluated(written)
    if not _fits(value, known[field]):
      raise ValueError(
        f"model.options sets {field} of {name} to {written!r}; expected {describe(known[field])}"
      )
    options[field] = value
  return options


def unknown_arguments(arguments: Mapping[str, Any]) -> list[str]:
  """The names among what a checkpoint has for `create_model` that its network does not take.

  Of a network that is not registered, which `create_model` says, all may be right.
  """
  if arguments.get("name") not in model_names():
    return []
  options = option_types(model_spec(arguments["name"]).module)
  return sorted(arguments.keys() - {"name", "size", "variant", "dtype", *options})


def checked_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
  """Fields of the network `name` as Python or JSON gives them; lists become tuples.

  Raises:
    TypeError: an unknown field, or a value of another type.
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
  """Field -> its default, without those of every linen module."""
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


def _evaluated(text: str) -> Any:
  """The value that is written; the text itself where it is no value."""
  spelled = {"true": "True", "false": "False", "none": "None"}.get(text.lower(), text)
  try:
    return ast.literal_eval(spelled)
  except (ValueError, SyntaxError, TypeError):
    return text


def _fits(value: Any, hint: Any) -> bool:
  """Whether a value is of a type, and finite."""
  numbers = value if isinstance(value, tuple) else (value,)
  return fits(value, hint) and all(not isinstance(x, float) or math.isfinite(x) for x in numbers)
