"""The subcommand `ferjax export`: writes a trained network for another program."""

import argparse
import json
import pathlib

from ferjax.commands.errors import CommandError
from ferjax.commands.options import Add, add_json, add_output, add_step
from ferjax.export.options import FORMATS, PARAMETERS, QUANTIZE, ExportOptions
from ferjax.output import check_writable
from ferjax.progress import Progress
from ferjax.weights.defaults import DEFAULT_CLASSIFIER

_EXAMPLES = (
  f"ferjax export {DEFAULT_CLASSIFIER} --format onnx --out faces.onnx",
  "ferjax export runs/detector --format stablehlo --out detector.stablehlo",
)


def add_export(commands: argparse._SubParsersAction) -> None:
  """Adds `export` to the subcommands of a program.

  `arguments.run(arguments)` writes the file, or raises a CommandError.
  """
  command = commands.add_parser(
    "export",
    help="write a trained network for another program: StableHLO, ONNX, safetensors, torch",
    description="Writes a trained network and its description as one file. StableHLO and ONNX "
    "contain everything from the bytes of an image of the model's size to boxes and scores, and "
    "answer like `ferjax predict`.",
    examples=_EXAMPLES,
  )
  command.set_defaults(run=_run)
  add = command.add_argument
  add("checkpoint", metavar="WEIGHTS", help="training workdir, checkpoint, weights file or name")
  add("--format", required=True, choices=tuple(FORMATS), help="format of the file")
  suffixes = ", ".join(f"{chosen.suffix} for {name}" for name, chosen in FORMATS.items())
  add_output(add, "FILE", f"the file; its suffix is {suffixes}")
  add_step(add)
  add(
    "--parameters",
    choices=PARAMETERS,
    default="inside",
    help="stablehlo: whether the program contains the parameters, or takes them as an argument; "
    "the file contains them in both cases (default: %(default)s)",
  )
  add(
    "--raw",
    action="store_true",
    help="onnx: the network's own outputs, without decoded boxes, suppression and softmax",
  )
  _add_comparison(add)
  add(
    "--dtype",
    choices=("float32", "float16"),
    default="float32",
    help="safetensors: of the kernels in the file (default: %(default)s)",
  )
  add_json(add, "what was written")
  _add_settings(command.add_argument_group("settings of prediction in the program").add_argument)


def _add_comparison(add: Add) -> None:
  """Adds the options for the comparison of an ONNX file with JAX, and for smaller ones."""
  add(
    "--images",
    nargs="+",
    default=(),
    metavar="PATH",
    help="onnx: images or folders on which the file is compared with JAX, and which --quantize "
    "static takes its ranges from (default: drawings)",
  )
  add(
    "--quantize",
    choices=QUANTIZE,
    default="",
    help="onnx: a smaller file: float16 kernels, int8 kernels (dynamic), or int8 kernels and "
    "inputs of layers (static). Prints what it gains and loses",
  )
  add(
    "--data-set",
    default="",
    metavar="PATH",
    help="onnx, with --quantize: labelled images to measure accuracy before and after: a folder of "
    "`ferjax data prepare`, or a .csv with the columns image, label and split (default: drawings)",
  )
  add("--split", default="", help="of --data-set (default: val)")


def _add_settings(add: Add) -> None:
  weights = "that of the weights"
  add("--score-threshold", type=float, metavar="P", help=f"of a detector (default: {weights}, 0.3)")
  add("--iou-threshold", type=float, metavar="P", help=f"of a detector (default: {weights}, 0.3)")
  add("--max-detections", type=int, metavar="N", help="of a detector (default: 100)")
  add(
    "--flip",
    action=argparse.BooleanOptionalAction,
    help=f"of a classifier: average a face and its mirror image (default: {weights}, or no)",
  )
  add("--logit-adjustment", type=float, metavar="T", help=f"of a classifier (default: {weights})")


def _run(arguments: argparse.Namespace) -> None:
  options = ExportOptions(
    raw=arguments.raw,
    parameters=arguments.parameters,
    score_threshold=arguments.score_threshold,
    iou_threshold=arguments.iou_threshold,
    max_detections=arguments.max_detections,
    flip=arguments.flip,
    logit_adjustment=arguments.logit_adjustment,
    images=tuple(arguments.images),
    dtype=arguments.dtype,
    quantize=arguments.quantize,
    data_set=arguments.data_set,
    split=arguments.split,
  )
  output = pathlib.Path(arguments.output)
  try:
    check_writable(output.parent, [output.name])
    from ferjax.export.exporting import export_network

    with Progress(None, task=f"writing {output}"):
      about = export_network(
        arguments.checkpoint, arguments.format, output, step=arguments.step, options=options
      )
  except (ValueError, OSError, ImportError) as error:
    raise CommandError(error) from error
  size = output.stat().st_size
  if arguments.json:
    result = {"file": str(output), "format": arguments.format, "bytes": size, "about": about}
    print(json.dumps(result, indent=2))
    return
  print(f"{output}: {arguments.format}, {size / 1e6:.2f} MB")
  if about:
    print(about)
