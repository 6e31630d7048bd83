"""The subcommand `ferjax info`: the cost of the networks."""

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ferjax._version import __version__
from ferjax.commands.errors import CommandError
from ferjax.progress import Progress

if TYPE_CHECKING:
  from ferjax.models.cost import CompiledCost, Cost

_CHOICES = ("size", "variant", "mode")
_COUNTED = (
  "parameters",
  "executed",
  "multiply-adds/M",
  "scan updates/M",
  "FLOPs/M",
  "activations/M",
)
_COMPILED = ("XLA FLOPs/M", "memory/MB", "gradient/MB")


@dataclasses.dataclass(frozen=True)
class Network:
  """One configuration of the model `name` and its cost.

  Attributes:
    choices: size, variant and mode, for the fields that the model has.
    parts: top-level group of the parameters -> its cost.
    released_only: number of unused parameters that only the released checkpoint has.
    compiled: None if nothing was compiled.
  """

  name: str
  choices: dict[str, str]
  parts: "dict[str, Cost]"
  released_only: int
  compiled: "CompiledCost | None"

  @property
  def total(self) -> "Cost":
    from ferjax.models.cost import total_cost

    return total_cost(self.parts)


def add_info(commands: argparse._SubParsersAction) -> None:
  """Adds `info` to the subcommands of a program.

  `arguments.run(arguments)` prints, or raises a CommandError.
  """
  command = commands.add_parser(
    "info",
    help="cost of the networks: parameters, operations, memory",
    description="Counts parameters, operations and activations of inference without running it. "
    "Prints a table of all sizes, with the variants and modes whose cost differs from the first "
    "row of their size; with --size, a table of the network's parts.",
    examples=("ferjax info", "ferjax info --image-size 64 --json"),
  )
  command.set_defaults(run=_run)
  add = command.add_argument
  # The names are not listed here: the registry imports JAX, which other commands do not load.
  add("model", nargs="?", metavar="MODEL", help="name of a network (default: all are listed)")
  add("--size", metavar="S", help="show the parts of this size")
  add("--variant", metavar="V", help="corrected or released")
  add("--mode", metavar="M", help="of a network with modes: both, conv_only or ssm_only")
  add(
    "--image-size",
    type=int,
    metavar="N",
    help="side of the images in pixels, divisible by the network's stride (default: the paper's)",
  )
  add("--num-classes", type=int, default=7, metavar="K", help="default: %(default)s")
  add("--batch-size", type=int, default=1, metavar="N", help="images (default: %(default)s)")
  add(
    "--compile",
    action="store_true",
    help="also compile inference and a gradient, without running them, for XLA's FLOPs and "
    "memory; takes half a minute or more per network on a CPU",
  )
  add("--json", action="store_true", help="print the costs of all parts as JSON")


def _run(arguments: argparse.Namespace) -> None:
  from ferjax.models.registry import model_names

  try:
    _check(arguments)
    names = [arguments.model] if arguments.model else model_names()
    networks = {name: _networks(name, arguments) for name in names}
  except ValueError as error:
    raise CommandError(error) from error
  if arguments.json:
    _print_json([x for found in networks.values() for x in found], arguments)
    return
  for number, (name, found) in enumerate(networks.items()):
    print("\n" * (number > 0) + _title(name, arguments))
    _print(found, parts=arguments.size is not None)


def _check(arguments: argparse.Namespace) -> None:
  """Raises a ValueError for a number out of range, or an option that does not apply."""
  from ferjax.models.registry import model_names, model_spec

  names = model_names() if arguments.model is None else [arguments.model]
  specs = {name: model_spec(name) for name in names}
  for option in _CHOICES:
    value = getattr(arguments, option)
    if value is None:
      continue
    if arguments.model is None:
      raise ValueError(f"--{option} is {value!r}, but no model is named; known: {', '.join(names)}")
    if option not in specs[arguments.model].choices:
      raise ValueError(f"--{option} is {value!r}, but {arguments.model} has none; omit it")
  side = arguments.image_size
  for stride in {spec.stride for spec in specs.values()}:
    if side is not None and (side < stride or side % stride):
      near = max(round(side / stride), 1) * stride
      raise ValueError(
        f"--image-size is {side}; expected a multiple of {stride} pixels, such as {near}"
      )
  if arguments.batch_size < 1:
    raise ValueError(f"--batch-size is {arguments.batch_size}; expected at least 1")


def _networks(name: str, arguments: argparse.Namespace) -> list[Network]:
  """By size; networks with the same cost as the first of their size are omitted."""
  from ferjax.models import create_model
  from ferjax.models.cost import compiled_cost, cost_by_part

  side = _image_size(name, arguments)
  shape = (arguments.batch_size, side, side, 3)
  found = {}
  for choices in _selections(name, arguments):
    model = create_model(name, num_classes=arguments.num_classes, **choices)
    parts = cost_by_part(model, shape)
    found.setdefault((choices.get("size"), *parts.values()), (model, choices, parts))
  networks = []
  with Progress(len(found), "network", task=name, show=arguments.compile) as progress:
    for model, choices, parts in found.values():
      cost = compiled_cost(model, shape) if arguments.compile else None
      networks.append(Network(name, choices, parts, _released_only(model), cost))
      progress.update()
  return networks


def _selections(name: str, arguments: argparse.Namespace) -> Iterator[dict[str, str]]:
  """The selected network; without a size, each size's default and its one-field variations."""
  from ferjax.models.registry import model_spec

  known = model_spec(name).choices
  given = {field: x for field in _CHOICES if (x := getattr(arguments, field)) is not None}
  first = {field: values[0] for field, values in known.items()} | given
  sizes = known.get("size", ()) if "size" not in given else ()
  for of_size in [first | {"size": size} for size in sizes] or [first]:
    yield of_size
    for field in known if "size" not in given else ():
      if field not in ("size", *given):
        yield from (of_size | {field: value} for value in known[field][1:])


def _released_only(model: Any) -> int:
  from ferjax.interop.released_names import table_of
  from ferjax.models.registry import spec_of

  spec, fields = spec_of(model), {field.name: field for field in dataclasses.fields(model)}
  if spec is None or type(model) not in spec.released_names:
    return 0
  if "size" in fields and model.size != fields["size"].default:  # only the default is released
    return 0
  unused = table_of(model).unused.items()
  return sum(math.prod(shape) for name, shape in unused if "running" not in name)


def _image_size(name: str, arguments: argparse.Namespace) -> int:
  from ferjax.models.registry import model_spec

  return model_spec(name).image_size if arguments.image_size is None else arguments.image_size


def _title(name: str, arguments: argparse.Namespace) -> str:
  side, images = _image_size(name, arguments), arguments.batch_size
  return (
    f"{name}: {images} image{'s' * (images > 1)} of {side} x {side} pixels, "
    f"{arguments.num_classes} classes"
  )


def _print(networks: Sequence[Network], *, parts: bool) -> None:
  """Prints the table of parts or of sizes, and notes."""
  first = networks[0]
  _print_table(_parts_table(first) if parts else _sizes_table(networks))
  if parts and first.compiled is not None:
    values = (f"{name} {x}" for name, x in zip(_COMPILED, _compiled(first), strict=True))
    print(f"Compiled: {', '.join(values)}")
  released_only = max(network.released_only for network in networks)
  if released_only:
    print(f"The released checkpoint has {released_only:,} more parameters, which are never used.")


def _sizes_table(networks: Sequence[Network]) -> list[list[str]]:
  """The column names, and a row per network."""
  compiled = networks[0].compiled is not None
  header = [*networks[0].choices, *_COUNTED, *(_COMPILED if compiled else ())]
  return [header, *([*x.choices.values(), *_counted(x.total), *_compiled(x)] for x in networks)]


def _parts_table(network: Network) -> list[list[str]]:
  """The column names, a row per part, and their total."""
  lines = {**network.parts, "total": network.total}
  return [["part", *_COUNTED], *([name, *_counted(cost)] for name, cost in lines.items())]


def _counted(cost: "Cost") -> list[str]:
  millions = (cost.multiply_adds, cost.scan_updates, cost.flops, cost.activations)
  return [
    f"{cost.parameters:,}",
    f"{cost.executed:,}",
    *(f"{x / 1e6:,.2f}" if x else "0" for x in millions),
  ]


def _compiled(network: Network) -> list[str]:
  x = network.compiled
  values = () if x is None else (x.flops, x.inference_bytes, x.gradient_bytes)
  return [f"{value / 1e6:,.1f}" for value in values]


def _print_table(rows: Sequence[Sequence[str]]) -> None:
  """Prints names left-aligned and numbers right-aligned."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  numeric = [text[:1].isdigit() for text in rows[-1]]
  for row in rows:
    cells = zip(row, widths, numeric, strict=True)
    line = "  ".join(x.rjust(width) if right else x.ljust(width) for x, width, right in cells)
    print(line.rstrip())


def _print_json(networks: Sequence[Network], arguments: argparse.Namespace) -> None:
  rows = [
    {
      "model": network.name,
      **network.choices,
      "image_size": _image_size(network.name, arguments),
      "num_classes": arguments.num_classes,
      "batch_size": arguments.batch_size,
      "parts": {part: _cost_fields(cost) for part, cost in network.parts.items()},
      "total": _cost_fields(network.total),
      "released_only": network.released_only,
      "compiled": network.compiled and dataclasses.asdict(network.compiled),
    }
    for network in networks
  ]
  print(json.dumps({"ferjax": __version__, "networks": rows}, indent=2))


def _cost_fields(cost: "Cost") -> dict[str, int]:
  return {**dataclasses.asdict(cost), "flops": cost.flops}
