"""The subcommand `ferjax weights`: lists, shows, saves and imports weights."""

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ferjax.commands.errors import CommandError
from ferjax.commands.options import add_json, add_output, add_step, crop_margin
from ferjax.commands.weights_import import add_import
from ferjax.output import check_writable
from ferjax.progress import Progress
from ferjax.weights.defaults import DEFAULT_CLASSIFIER

if TYPE_CHECKING:
  from ferjax.weights import WeightsFile

# The first metric of these that a set has is listed.
_LISTED = ("accuracy", "face_ap50", "map50")
_NOT_METRICS = ("step", "epoch")  # numbers of an eval.json
_SETTINGS = (
  "score_threshold",
  "iou_threshold",
  "crop_margin",
  "flip",
  "logit_adjustment",
  "temperature",
)


def add_weights(commands: argparse._SubParsersAction) -> None:
  """Adds `weights` to the subcommands of a program.

  `arguments.run(arguments)` prints or writes, or raises a CommandError.
  """
  command = commands.add_parser(
    "weights",
    help="known weights: list, show; save a checkpoint as a weights file; import others",
    description="Lists the weights that are known by name: those that come with ferjax, and those "
    "in the folder FERJAX_WEIGHTS. Options and Python functions that take a checkpoint take these "
    "names and weights files, too.",
    examples=(
      "ferjax weights",
      f"ferjax weights show {DEFAULT_CLASSIFIER}",
      "ferjax weights save runs/mine --output weights/mine.safetensors",
      "ferjax weights import --help",
    ),
  )
  command.set_defaults(run=_list)
  add_json(command.add_argument, "the descriptions of all known weights")
  actions = command.add_subparsers(title="actions", metavar="ACTION")
  show = actions.add_parser("show", help="print the description of weights as JSON")
  show.set_defaults(run=_show)
  show.add_argument("weights", metavar="WEIGHTS", help="known name or weights file")
  _add_save(actions)
  add_import(actions)


def _add_save(actions: argparse._SubParsersAction) -> None:
  save = actions.add_parser(
    "save",
    help="save a checkpoint as a weights file",
    description="Saves the variables of inference (the moving averages, if there are any) and "
    "their description in one safetensors file, half as large. With known weights or a weights "
    "file, it changes the description.",
  )
  save.set_defaults(run=_save)
  add = save.add_argument
  add("checkpoint", metavar="WEIGHTS", help="training workdir, checkpoint, weights file or name")
  add_output(add, "FILE", "the weights file, NAME.safetensors")
  add_step(add)
  add("--name", metavar="NAME", help="of the weights (default: that of the file)")
  add("--data", metavar="TEXT", help="the training data")
  add("--licence", metavar="TEXT", help="the terms of the weights")
  add(
    "--metrics",
    action="append",
    default=[],
    metavar="SET=FILE",
    help="add the metrics of a data set, from the eval.json of eval.py; may be repeated",
  )
  add("--score-threshold", type=float, metavar="P", help="of a detector: default of prediction")
  add("--iou-threshold", type=float, metavar="P", help="of a detector: default of prediction")
  add(
    "--crop-margin",
    type=crop_margin,
    metavar="M",
    help="of a classifier: default of prediction, one number or left,top,right,bottom",
  )
  add(
    "--flip",
    action=argparse.BooleanOptionalAction,
    help="of a classifier: whether prediction averages a face and its mirror image",
  )
  add("--logit-adjustment", type=float, metavar="T", help="of a classifier: default of prediction")
  add("--temperature", type=float, metavar="T", help="of a classifier: divides its logits")
  add("--image-size", type=int, metavar="N", help="of a detector: side of its input, pixels")


def _list(arguments: argparse.Namespace) -> None:
  from ferjax.weights.known import known_weights, read_known

  try:
    weights = [read_known(name) for name in known_weights()]
  except (ValueError, OSError) as error:
    raise CommandError(error) from error
  if arguments.json:
    print(json.dumps([one.meta for one in weights], indent=2, ensure_ascii=False))
    return
  if not weights:
    print("No weights are known by name; `ferjax weights save` writes weights files")
    return
  header = ["name", "network", "pixels", "parameters", "MB", "classes", "measured"]
  rows = [header, *map(_row, weights)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for row in rows:
    print("  ".join(x.ljust(width) for x, width in zip(row, widths, strict=True)).rstrip())


def _row(weights: "WeightsFile") -> list[str]:
  meta = weights.meta
  network = " ".join(
    str(meta["model"][field]) for field in ("name", "size") if field in meta["model"]
  )
  return [
    weights.name,
    network,
    str(meta["image_size"]),
    f"{weights.num_parameters:,}",
    f"{weights.size / 1e6:.1f}",
    str(len(meta["class_names"])),
    ", ".join(f"{of}: {shown}" for of, x in meta["metrics"].items() if (shown := _shown(x))),
  ]


def _shown(metrics: Mapping[str, float]) -> str:
  return next((f"{name} {metrics[name]:.3f}" for name in _LISTED if name in metrics), "")


def _show(arguments: argparse.Namespace) -> None:
  from ferjax.weights import WeightsFile, open_weights

  try:
    weights = open_weights(arguments.weights)
  except (ValueError, OSError) as error:
    raise CommandError(error) from error
  if not isinstance(weights, WeightsFile):
    raise CommandError(
      f"{weights.name} is a checkpoint of a run, whose description is in its folder meta/; "
      "expected a known name or a weights file"
    )
  print(json.dumps(weights.meta, indent=2, ensure_ascii=False))


def _save(arguments: argparse.Namespace) -> None:
  from ferjax.weights import open_weights, save_weights

  output = pathlib.Path(arguments.output)
  given = {name: getattr(arguments, name) for name in _SETTINGS}
  try:
    check_writable(output.parent, [output.name])
    opened = open_weights(arguments.checkpoint, step=arguments.step)
    if arguments.image_size is not None and opened.meta["task"] == "detection":
      from ferjax.inference.detection import check_input_size
      from ferjax.models import create_model

      check_input_size(opened.build_model(create_model), arguments.image_size)
    metrics = _metrics(arguments.metrics)
    with Progress(None, task=f"writing {output}"):
      weights = save_weights(
        opened,
        output,
        image_size=arguments.image_size,
        name=arguments.name,
        data=arguments.data,
        licence=arguments.licence,
        metrics=metrics,
        settings={name: value for name, value in given.items() if value is not None},
      )
  except (ValueError, OSError) as error:
    raise CommandError(error) from error
  print(
    f"{output}: {weights.meta['name']}, {weights.num_parameters:,} parameters, "
    f"{weights.size / 1e6:.1f} MB, step {weights.step}"
  )


def _metrics(files: Sequence[str]) -> dict[str, dict[str, float]]:
  """Set -> its metrics, from SET=FILE; raises a ValueError for other text or content."""
  found = {}
  for entry in files:
    name, equals, file = entry.partition("=")
    if not (name and equals and file):
      raise ValueError(
        f"--metrics is {entry!r}; expected SET=FILE, such as lfw=runs/x/eval/eval.json"
      )
    content = _json(pathlib.Path(file))
    found[name] = {
      key: value
      for key, value in content.items()
      if isinstance(value, int | float) and not isinstance(value, bool) and key not in _NOT_METRICS
    }
  return found


def _json(file: pathlib.Path) -> dict[str, Any]:
  try:
    content = json.loads(file.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{file} is not JSON ({error}); expected an eval.json of eval.py") from error
  if not isinstance(content, dict):
    raise ValueError(f"{file} has {type(content).__name__}; expected an eval.json of eval.py")
  return content
