"""The subcommand `ferjax explain`: which parts of an image speak for an expression."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ferjax._version import __version__

if TYPE_CHECKING:
  from ferjax.inference.explanation.explainer import Explainer
  from ferjax.inference.explanation.files import ExplanationWriter
  from ferjax.inference.files import ImageFile


class ExplainError(Exception):
  """What the user can mend: to be shown without a traceback."""


def add_explain(commands: argparse._SubParsersAction) -> None:
  """Adds `explain` to the subcommands of a program.

  `arguments.run(arguments)` writes the results, or raises an ExplainError.
  """
  command = commands.add_parser(
    "explain",
    help="show which parts of an image speak for an expression",
    description="Lays over each image what speaks for the class that the network answers, or for "
    "another one: of a classifier for the image as a face, of a detector for each face that it "
    "finds. Writes pictures, the numbers behind them, and explanations.json.",
  )
  command.set_defaults(run=_run)
  add = command.add_argument
  add("paths", nargs="+", metavar="IMAGE", help="image, or folder of images")
  add("--checkpoint", required=True, metavar="DIR", help="folder that training wrote")
  add("--output", required=True, metavar="DIR", help="folder for the results")
  add(
    "--step",
    type=_step,
    metavar="N",
    help="which checkpoint: its step, 'best' or 'latest' (default: best, where one was evaluated)",
  )
  add("--class", dest="target", metavar="NAME", help="what to explain (default: the answer)")
  add(
    "--on-bad-image",
    choices=("error", "skip"),
    default="error",
    help="stop at an image that cannot be read, or name it and go on (default: %(default)s)",
  )
  add("--recursive", action="store_true", help="look into the folders of folders as well")
  detection = command.add_argument_group("of a detector").add_argument
  detection(
    "--score-threshold", type=float, metavar="P", help="least score of a face, 0..1 (default: 0.3)"
  )
  detection(
    "--iou-threshold",
    type=float,
    metavar="P",
    help="of two boxes of one expression that overlap by more than this, the one with the smaller "
    "score is dropped (default: 0.3)",
  )
  detection(
    "--max-detections",
    type=int,
    metavar="N",
    help="most faces of one image, by falling score (default: 6)",
  )


def _step(text: str) -> int | str:
  return text if text in ("best", "latest") else int(text)


def _run(arguments: argparse.Namespace) -> None:
  # Imported here so that `ferjax --help` does not wait for JAX.
  from ferjax.compilation_cache import enable_compilation_cache
  from ferjax.data.image import ImageError
  from ferjax.inference.explanation.explainer import load_explainer
  from ferjax.inference.explanation.files import ExplanationWriter
  from ferjax.inference.files import find_images

  try:
    files = find_images(arguments.paths, recursive=arguments.recursive, output=arguments.output)
    enable_compilation_cache()
    explainer = load_explainer(
      arguments.checkpoint,
      step=arguments.step,
      target=arguments.target,
      score_threshold=arguments.score_threshold,
      iou_threshold=arguments.iou_threshold,
      max_detections=arguments.max_detections,
    )
    predictor = explainer.predictor
    header = {
      "ferjax": __version__,
      "checkpoint": arguments.checkpoint,
      "step": predictor.step,
      **predictor.settings,
      "class_names": predictor.class_names,
    }
    writer = ExplanationWriter(arguments.output, header=header)
  except (ValueError, OSError) as error:
    raise ExplainError(error) from error
  try:
    with writer:
      _write(explainer, writer, files, skip=arguments.on_bad_image == "skip")
  except ImageError as error:
    raise ExplainError(
      f"{error}\n  {len(writer.images)} of {len(files)} images are in {writer.output}; "
      "--on-bad-image skip leaves such files out"
    ) from error
  except OSError as error:
    raise ExplainError(f"cannot write the results: {error}") from error
  _print_summary(writer)


def _write(
  explainer: "Explainer", writer: "ExplanationWriter", files: "Sequence[ImageFile]", *, skip: bool
) -> None:
  from tqdm import tqdm

  names = {file.path: file.name for file in files}
  with tqdm(total=len(files), unit="image", disable=None) as progress:

    def leave_out(path: str, error: ValueError) -> None:
      progress.write(f"ferjax: warning: skipped {error}", file=sys.stderr)
      progress.update()
      writer.skip(path, str(error).removeprefix(f"{path}: "))

    for explained in explainer.explain(names, on_bad_image=leave_out if skip else None):
      writer.add(explained, names[str(explained.path)])
      progress.update()


def _print_summary(writer: "ExplanationWriter") -> None:
  faces = [face for image in writer.images for face in image["faces"]]
  print(f"Explained {len(faces)} faces of {len(writer.images)} images", end="")
  print(f", skipped {len(writer.skipped)}" if writer.skipped else "")
  without = sum(not face["peak"] for face in faces)
  if without:
    print(f"{without} of the maps show nothing that speaks for the class: their heat is 0")
  print(f"Results in {writer.output}")
