"""The registry of networks: all that the rest of the package knows of each.

A network is entered once, by `register_model`; no other module asks for one by its name or class.
"""

import dataclasses
import importlib.metadata
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

ParameterPath = tuple[str, ...]

# A function, or where it is: "package.module:name", imported when it is first needed. The networks
# name the tables and importers of `ferjax.interop` so, which itself imports the networks.
Reference = str | Callable[..., Any]

# What a package of its own calls the entry point of its `ModelSpec`, by which the programs find it.
ENTRY_POINTS = "ferjax.models"
_REQUIRED_FIELDS = ("num_classes", "dtype", "frozen")


@dataclasses.dataclass(frozen=True)
class DecayRule:
  """Which parameters an optimiser lets decay, and which it never moves.

  Both are asked for the path of a parameter, such as ("neck", "vss_p4", "norm", "scale").
  """

  decays: Callable[[ParameterPath], bool]
  held: Callable[[ParameterPath], bool] = lambda path: False


@dataclasses.dataclass(frozen=True)
class ModelSpec:
  """One network, as the registry holds it.

  Attributes:
    module: its class, with the fields `num_classes`, `dtype` and `frozen`; also `size` and
      `variant`, where it has several. `__call__(image, *, train)` returns the output of its task
      (`ferjax.typing`). A method `check()`, where there is one, raises a ValueError for impossible
      fields.
    task: "detection" or "classification".
    image_size: pixels on a side of the images that its paper describes.
    parts: top-level groups of the parameters.
    stride: pixels that the sides of an image must be divisible by.
    frozen: values of the field `frozen`: "none", and parts joined by "+" that then run on stored
      statistics and get no gradient.
    choices: field -> its values, such as those of `size`; the first of each is what
      `ferjax info` compares the others with, by size.
    explain_layer: path of the submodule whose map explains an answer, for images of a size; None
      if there is none.
    spatial_transformer: paths of the submodules that return the six numbers of an affine map and
      the resampled image, for a network that begins with one.
    has_attention: whether the output has the `attention` that `loss.regularizer_weight` is for.
    decay_rules: name -> rule, for `optimizer.decay`, besides those that every network has.
    released_names: class of a module -> reference to its `ferjax.interop.naming.Naming`: of the
      network, and of those of its parts that are released by themselves.
    importers: what a file of `train.pretrained` is of, "" for the whole network or the name of a
      part -> reference to a function (model, state dict, variables, parts) -> (variables, report).
      `parts` are `train.pretrained_parts` for the whole network, else the part alone.

  Raises:
    ValueError: the class lacks a field, or `frozen` names what is not a part.
  """

  module: type[nn.Module]
  task: str
  image_size: int
  parts: tuple[str, ...]
  stride: int = 1
  frozen: tuple[str, ...] = ("none",)
  choices: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  explain_layer: Callable[[int], str] | None = None
  spatial_transformer: tuple[str, str] | None = None
  has_attention: bool = False
  decay_rules: Mapping[str, DecayRule] = dataclasses.field(default_factory=dict)
  released_names: Mapping[type[nn.Module], Reference] = dataclasses.field(default_factory=dict)
  importers: Mapping[str, Reference] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    fields = {field.name for field in dataclasses.fields(self.module)}
    missing = [name for name in (*_REQUIRED_FIELDS, *self.choices) if name not in fields]
    if missing:
      raise ValueError(
        f"{self.module.__name__} has no field {', '.join(missing)}; a network has the fields "
        f"{', '.join(_REQUIRED_FIELDS)}, and those that `choices` names"
      )
    for frozen in self.frozen:
      unknown = set(frozen.split("+")) - {"none", *self.parts}
      if unknown:
        raise ValueError(
          f"frozen {frozen!r} of {self.module.__name__} names {', '.join(sorted(unknown))}; "
          f"its parts: {', '.join(self.parts)}"
        )


MODELS: dict[str, ModelSpec] = {}


def register_model(name: str, spec: ModelSpec) -> None:
  """Enters a network under the name that configs and checkpoints know it by.

  Raises:
    ValueError: another network has the name.
  """
  if name in MODELS:
    raise ValueError(
      f"the model {name!r} is registered already, as {MODELS[name].module.__name__}; choose "
      "another name"
    )
  MODELS[name] = spec


def model_names() -> list[str]:
  """The networks that are registered, and those that installed packages bring."""
  installed = importlib.metadata.entry_points(group=ENTRY_POINTS).names
  return [*MODELS, *sorted(installed - MODELS.keys())]


def model_spec(name: str) -> ModelSpec:
  """The network of that name; one of another package is registered when it is first asked for.

  Raises:
    ValueError: there is none; those that exist are named.
  """
  if name not in MODELS:
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
      spec = entry.load()
      if name not in MODELS:  # which importing its module may have done
        register_model(name, spec)
  if name not in MODELS:
    raise ValueError(f"unknown model {name!r}; known: {', '.join(model_names())}")
  return MODELS[name]


def spec_of(model: nn.Module) -> ModelSpec | None:
  """The registry's entry of a module; None if its class is not registered."""
  return next((spec for spec in MODELS.values() if spec.module is type(model)), None)


def resolve(reference: Reference) -> Any:
  """The function that a reference is, or is the place of."""
  return pkgutil.resolve_name(reference) if isinstance(reference, str) else reference


def check_choices(model: nn.Module, name: str, choices: Mapping[str, tuple[str, ...]]) -> None:
  """Raises a ValueError for a field of the network `name` whose value is unknown."""
  for field, known in choices.items():
    value = getattr(model, field)
    if value not in known:
      raise ValueError(f"unknown {field} {value!r} of {name}; known: {', '.join(known)}")
