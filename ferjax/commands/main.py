"""The `ferjax` command."""

import argparse
import collections
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ferjax._version import __version__
from ferjax.commands.data import DataError, add_data
from ferjax.commands.explain import ExplainError, add_explain
from ferjax.commands.info import InfoError, add_info

if TYPE_CHECKING:
  from ferjax.inference.base import ImagePredictor
  from ferjax.inference.files import ImageFile, PredictionWriter


class UsageError(Exception):
  """What the user can mend: shown without a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one subcommand; returns the exit code: 0, or 2 after an error of usage or input."""
  parser = argparse.ArgumentParser(
    prog="ferjax", description="Names the expressions of faces in photographs."
  )
  parser.add_argument("--version", action="version", version=f"ferjax {__version__}")
  commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
  _add_predict(commands)
  add_explain(commands)
  add_data(commands)
  add_info(commands)
  arguments = parser.parse_args(argv)
  try:
    return arguments.run(arguments) or 0
  except (UsageError, ExplainError, DataError, InfoError) as error:
    print(f"ferjax: error: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("ferjax: interrupted", file=sys.stderr)
    return 130


def _add_predict(commands: argparse._SubParsersAction) -> None:
  command = commands.add_parser(
    "predict",
    help="find faces and their expressions in images, or classify images of faces",
    description="Finds faces and their expressions with the checkpoint of a detector, or with that "
    "of a classifier and --detector. With a classifier alone, each image is taken to be a face. "
    "Writes predictions.json, predictions.csv and copies of the images with boxes.",
  )
  command.set_defaults(run=_predict)
  add = command.add_argument
  add("paths", nargs="+", metavar="PATH", help="image, or folder of images")
  add("--checkpoint", required=True, metavar="DIR", help="folder that training wrote")
  add("--output", required=True, metavar="DIR", help="folder for the results")
  add(
    "--step",
    type=_step,
    metavar="N",
    help="which checkpoint: its step, 'best' or 'latest' (default: best, where one was evaluated)",
  )
  add(
    "--batch-size",
    type=int,
    default=8,
    metavar="N",
    help="images that the model sees at once (default: %(default)s)",
  )
  add(
    "--on-bad-image",
    choices=("error", "skip"),
    default="error",
    help="stop at an image that cannot be read, or name it and go on (default: %(default)s)",
  )
  add("--recursive", action="store_true", help="look into the folders of folders as well")
  add("--no-annotated", action="store_true", help="write no copies with boxes and labels")
  _add_detection(command.add_argument_group("where faces are looked for").add_argument)


def _add_detection(add: Callable[..., Any]) -> None:
  add(
    "--detector",
    metavar="DIR",
    help="checkpoint of a detector that finds the faces, if --checkpoint is a classifier's",
  )
  add(
    "--crop-scale",
    type=float,
    metavar="S",
    help="side of the square that the classifier sees, relative to the longer side of the "
    "detector's box (default: 1.2)",
  )
  add(
    "--score-threshold",
    type=float,
    metavar="P",
    help="least score of a face that a detector finds, 0..1 (default: 0.3)",
  )
  add(
    "--iou-threshold",
    type=float,
    metavar="P",
    help="of two boxes of one expression that overlap by more than this (intersection over "
    "union), the one with the smaller score is dropped (default: 0.3)",
  )
  add(
    "--max-detections",
    type=int,
    metavar="N",
    help="most faces of one image (default: 100)",
  )


def _predict(arguments: argparse.Namespace) -> None:
  # Imported here so that `ferjax --help` does not wait for JAX.
  from ferjax.compilation_cache import enable_compilation_cache
  from ferjax.data.image import ImageError
  from ferjax.inference.files import PredictionWriter, find_images
  from ferjax.inference.loading import load_predictor

  try:
    files = find_images(arguments.paths, recursive=arguments.recursive, output=arguments.output)
    enable_compilation_cache()
    predictor = load_predictor(
      arguments.checkpoint,
      step=arguments.step,
      detector=arguments.detector,
      crop_scale=arguments.crop_scale,
      batch_size=arguments.batch_size,
      score_threshold=arguments.score_threshold,
      iou_threshold=arguments.iou_threshold,
      max_detections=arguments.max_detections,
    )
    writer = PredictionWriter(
      arguments.output,
      header=_header(arguments, predictor),
      class_names=predictor.class_names,
      annotated=not arguments.no_annotated,
      with_detections=arguments.detector is not None,
    )
  except (ValueError, OSError) as error:
    raise UsageError(error) from error

  start = time.perf_counter()
  try:
    with writer:
      _write_predictions(predictor, writer, files, skip=arguments.on_bad_image == "skip")
  except ImageError as error:
    raise UsageError(
      f"{error}\n  {len(writer.images)} of {len(files)} images are in {writer.output}; "
      "--on-bad-image skip leaves such files out"
    ) from error
  except OSError as error:
    raise UsageError(f"cannot write the results: {error}") from error
  _print_summary(writer, time.perf_counter() - start)


def _step(text: str) -> int | str:
  return text if text in ("best", "latest") else int(text)


def _header(arguments: argparse.Namespace, predictor: "ImagePredictor") -> dict[str, Any]:
  """What predictions.json says about how it came about."""
  detector = {} if arguments.detector is None else {"detector": arguments.detector}
  return {
    "ferjax": __version__,
    "checkpoint": arguments.checkpoint,
    "step": predictor.step,
    **detector,
    **predictor.settings,
  }


def _write_predictions(
  predictor: "ImagePredictor",
  writer: "PredictionWriter",
  files: Sequence["ImageFile"],
  *,
  skip: bool,
) -> None:
  from tqdm import tqdm

  names = {file.path: file.name for file in files}
  with tqdm(total=len(files), unit="image", disable=None) as progress:

    def leave_out(path: str, error: ValueError) -> None:
      progress.write(f"ferjax: warning: skipped {error}", file=sys.stderr)
      progress.update()
      writer.skip(path, str(error).removeprefix(f"{path}: "))

    results = predictor.predict_files(names, on_bad_image=leave_out if skip else None)
    for prediction, image in results:
      writer.add(prediction, image, names[str(prediction.image)])
      progress.update()


def _print_summary(writer: "PredictionWriter", seconds: float) -> None:
  faces = [face for image in writer.images for face in image["faces"]]
  counts = collections.Counter(face["expression"] for face in faces)
  searched = all(face["box"] is not None for face in faces)
  without = {"  without a face": sum(not image["faces"] for image in writer.images)}
  rows = {
    "images": len(writer.images),
    **(without if searched else {}),
    "skipped": len(writer.skipped),
    "faces": len(faces),
    **{f"  {name}": count for name, count in counts.most_common()},
    "images per second": f"{len(writer.images) / seconds:.1f}",
  }
  width = max(map(len, rows))
  for name, value in rows.items():
    print(f"{name:<{width}}  {value:>8}")
  print(f"Results in {writer.output}")


if __name__ == "__main__":
  sys.exit(main())
