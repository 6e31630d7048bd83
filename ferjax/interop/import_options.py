"""What a checkpoint of the networks' authors does not say: options, and their defaults."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ferjax.config import DataConfig, ModelConfig
from ferjax.expressions import SEVEN_EXPRESSIONS
from ferjax.interop.naming import Naming
from ferjax.interop.state_dict_files import StateDict
from ferjax.models.options import model_arguments, model_config
from ferjax.models.registry import ModelSpec, model_spec
from ferjax.trained import NetworkMeta

_INPUT = ("mean", "std", "grey", "resize")  # fields of `DataConfig`


@dataclasses.dataclass(frozen=True)
class ImportOptions:
  """What a file does not say. None is the description in the file, or else the released program's.

  Attributes:
    size: of the network; None: by the shapes.
    variant: of the network; None: "released" if the file has the whole network, as it was trained
      in the released program, else "corrected".
    model_options: further fields of the network, as `config.model.options`.
    class_names: in the order of the outputs.
    image_size: pixels.
    mean, std: of the channels in 0..1, in the order in which the released program reads them.
    grey: whether images are converted to grey.
    resize: short side before the central crop, pixels; 0: image_size.
    bgr: whether the released program reads images in the order blue, green, red. The first
      convolutions are reversed, so that the imported network takes RGB.
    initialise: modules, such as "head", whose variables are initialised at random if the file does
      not have them.
    seed: of the random values.
    ignore: patterns of entries that may be left out, such as "aux.*".
    averages: which to take from a file with both: the moving averages, or the weights.
  """

  size: str | None = None
  variant: str | None = None
  model_options: str = ""
  class_names: Sequence[str] | None = None
  image_size: int | None = None
  mean: Sequence[float] | None = None
  std: Sequence[float] | None = None
  grey: bool | None = None
  resize: int | None = None
  bgr: bool = False
  initialise: Sequence[str] = ()
  seed: int = 0
  ignore: Sequence[str] = ()
  averages: bool = True


class Description(NamedTuple):
  """The description of a network that is imported.

  Attributes:
    meta: the network and its input.
    assumed: whether the class names are those of the released program, which the file cannot show.
    problem: why the class names are not known; "" if they are. They are numbers then.
    num_classes: of the head in the file; None if it has none.
    exported: the description in a file of `ferjax export`; empty for other files.
  """

  meta: NetworkMeta
  assumed: bool = False
  problem: str = ""
  num_classes: int | None = None
  exported: Mapping[str, Any] = {}


def describe(
  name: str,
  naming: Naming,
  entries: StateDict,
  options: ImportOptions,
  exported: Mapping[str, Any],
) -> Description:
  """The description of a network, from the options, the file, and the released program.

  Args:
    name: of the network.
    naming: its released names.
    entries: released name -> array.
    options: what the file does not say.
    exported: the description in a file of `ferjax export`; empty for other files.

  Raises:
    ValueError: an option is out of range, or contradicts the file.
  """
  spec = model_spec(name)
  size = options.size if naming.size is None else naming.size(entries)
  if options.size not in (None, size):
    raise ValueError(f"size is {options.size!r}, but the shapes are those of {size!r}; omit it")
  data = {field: getattr(DataConfig(), field) for field in _INPUT} | dict(naming.input)
  image_size = _image_size(naming, spec, entries, options, exported)
  if image_size != spec.image_size:
    data["resize"] = 0
  for field in _INPUT:
    given = getattr(options, field)
    data[field] = exported.get(field, data[field]) if given is None else given
  names, assumed, problem = _class_names(naming, entries, options, exported)
  order = -1 if options.bgr else 1
  meta: NetworkMeta = {
    "model": _arguments(name, spec, size, options, exported),
    "task": spec.task,
    "class_names": names,
    "image_size": image_size,
    "mean": [float(x) for x in data["mean"]][::order],
    "std": [float(x) for x in data["std"]][::order],
    "grey": data["grey"],
    "resize": data["resize"],
    "class_prior": [] if options.class_names else list(exported.get("class_prior", ())),
  }
  _check_input(meta, spec)
  return Description(meta, assumed, problem, _num_classes(naming, entries), exported)


def _image_size(
  naming: Naming,
  spec: ModelSpec,
  entries: StateDict,
  options: ImportOptions,
  exported: Mapping[str, Any],
) -> int:
  if not naming.fixes_image_size(entries):
    default = exported.get("image_size", spec.image_size)
    return default if options.image_size is None else options.image_size
  size = naming.image_size(entries)
  if options.image_size not in (None, size):
    raise ValueError(
      f"image_size is {options.image_size}, but the shapes are those for {size}; omit it"
    )
  return size


def _arguments(
  name: str,
  spec: ModelSpec,
  size: str | None,
  options: ImportOptions,
  exported: Mapping[str, Any],
) -> dict[str, Any]:
  """The arguments of `create_model`."""
  if exported and not options.model_options:
    config = model_config(exported["model"])
  else:
    config = ModelConfig(name=name, options=options.model_options)
    if "variant" in spec.choices and not options.initialise:
      config.variant = "released"
  config.size = size or config.size
  config.variant = options.variant or config.variant
  return model_arguments(config)


def _num_classes(naming: Naming, entries: StateDict) -> int | None:
  """The number of classes of the head in the file; None if it has none."""
  shape = entries[naming.classes].shape if naming.classes in entries else ()
  return shape[0] if shape else None


def _class_names(
  naming: Naming, entries: StateDict, options: ImportOptions, exported: Mapping[str, Any]
) -> tuple[list[str], bool, str]:
  """The class names, and the other fields of `Description`."""
  if options.class_names is not None:
    names = list(options.class_names)
    if not names or not all(names) or len(set(names)) < len(names):
      raise ValueError(f"the classes are {', '.join(names)!r}; expected different names")
    return names, False, ""
  if exported:
    return list(exported["class_names"]), False, ""
  names = list(naming.input.get("class_names", ()))
  in_head = _num_classes(naming, entries)
  found = len(names or SEVEN_EXPRESSIONS) if in_head is None else in_head
  if found == len(names):
    return names, True, ""
  head = f"a head for {found} classes, whose names it does not contain"
  if in_head is None:
    head = "no head"
  problem = (
    f"it has {head}; pass --classes with the names in the order of the outputs, or with other "
    "classes and --initialise head"
  )
  return [str(i) for i in range(found)], False, problem


def _check_input(meta: NetworkMeta, spec: ModelSpec) -> None:
  """Raises a ValueError for a value out of range."""
  size, resize = meta["image_size"], meta["resize"]
  if size < 1 or size % spec.stride:
    raise ValueError(f"image_size is {size}; expected a multiple of {spec.stride}")
  if resize and (spec.task != "classification" or resize < size):
    raise ValueError(
      f"resize is {resize}; expected 0, or for a classifier at least image_size, {size}"
    )
  for name, positive in (("mean", False), ("std", True)):
    values = meta[name]
    if len(values) != 3 or not all(math.isfinite(x) and (x > 0 or not positive) for x in values):
      kind = "positive" if positive else "finite"
      raise ValueError(f"{name} is {values}; expected three {kind} numbers, for RGB in 0..1")
