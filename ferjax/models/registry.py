"""The registry of networks: everything the rest of the package knows about them.

A network is registered once, with `register_model`; no other module tests its name or class.
"""

import dataclasses
import importlib.metadata
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

ParameterPath = tuple[str, ...]

# A function, or its location "package.module:name", imported on first use. Networks refer to the
# tables and importers of `ferjax.interop` by location, because `ferjax.interop` imports networks.
Reference = str | Callable[..., Any]

# The entry point group in which other packages name their `ModelSpec`, for the programs to find.
ENTRY_POINTS = "ferjax.models"
_REQUIRED_FIELDS = ("num_classes", "dtype", "frozen")


@dataclasses.dataclass(frozen=True)
class DecayRule:
  """Which parameters an optimiser decays, and which it never updates.

  Both take the path of a parameter, such as ("neck", "vss_p4", "norm", "scale").
  """

  decays: Callable[[ParameterPath], bool]
  frozen: Callable[[ParameterPath], bool] = lambda path: False


@dataclasses.dataclass(frozen=True)
class ModelSpec:
  """The registry's entry for one network.

  Attributes:
    module: its class, with the fields `num_classes`, `dtype` and `frozen`; also `size` and
      `variant`, if it has several. `__call__(image, *, train)` returns the output of its task
      (`ferjax.typing`). An optional method `check()` raises a ValueError for invalid fields.
    task: "detection" or "classification".
    image_size: side of the paper's images, pixels.
    parts: top-level groups of the parameters.
    stride: image sides must be divisible by this number of pixels.
    frozen: values of the field `frozen`: "none", or parts joined by "+", which then use stored
      statistics and get no gradient.
    choices: field -> its values, such as those of `size`; `ferjax info` compares the others with
      the first, by size.
    explain_layer: image size -> path of the submodule whose map explains predictions; None if
      there is none.
    spatial_transformer: paths of the submodules that return the affine map, six numbers, and the
      resampled image, for a network that begins with a spatial transformer.
    has_attention: whether the output has the `attention` that `loss.regularizer_weight` penalises.
    decay_rules: name -> rule, for `optimizer.decay`, besides the rules of all networks.
    released_names: module class -> reference to its `ferjax.interop.naming.Naming`, for the
      network and for parts that are also released separately.
    importers: "" for a `train.pretrained` file of the whole network, or the name of a part ->
      reference to a function (model, state dict, variables, parts) -> (variables, report). `parts`
      is `train.pretrained_parts` for the whole network, else the single part.

  Raises:
    ValueError: the class lacks a field, or `frozen` names an unknown part.
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
        f"{', '.join(_REQUIRED_FIELDS)}, and those named in `choices`"
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
  """Registers a network under the name that configs and checkpoints use.

  Raises:
    ValueError: the name is taken.
  """
  if name in MODELS:
    raise ValueError(
      f"the model {name!r} is already registered, as {MODELS[name].module.__name__}; choose "
      "another name"
    )
  MODELS[name] = spec


def model_names() -> list[str]:
  """The registered networks, and those of installed packages."""
  installed = importlib.metadata.entry_points(group=ENTRY_POINTS).names
  return [*MODELS, *sorted(installed - MODELS.keys())]


def model_spec(name: str) -> ModelSpec:
  """The network of that name; one of another package is registered on first use.

  Raises:
    ValueError: the name is unknown; the message lists the known names.
  """
  if name not in MODELS:
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
      spec = entry.load()
      if name not in MODELS:  # importing its module may have registered it
        register_model(name, spec)
  if name not in MODELS:
    raise ValueError(f"unknown model {name!r}; known: {', '.join(model_names())}")
  return MODELS[name]


def spec_of(model: nn.Module) -> ModelSpec | None:
  """The registry's entry of a module; None if its class is not registered."""
  return next((spec for spec in MODELS.values() if spec.module is type(model)), None)


def resolve(reference: Reference) -> Any:
  """The object that a reference refers to."""
  return pkgutil.resolve_name(reference) if isinstance(reference, str) else reference


def check_image_size(size: int, stride: int) -> None:
  """Raises a ValueError for a side in pixels that is not a positive multiple of `stride`."""
  if size < 1 or size % stride:
    below = size // stride * stride
    near = f"{below} or {below + stride}" if below > 0 else f"{stride}"
    raise ValueError(f"image_size is {size}; it must be divisible by {stride}; nearest: {near}")


def check_choices(model: nn.Module, name: str, choices: Mapping[str, tuple[str, ...]]) -> None:
  """Raises a ValueError for a field of the network `name` whose value is unknown."""
  for field, known in choices.items():
    value = getattr(model, field)
    if value not in known:
      raise ValueError(f"unknown {field} {value!r} of {name}; known: {', '.join(known)}")
