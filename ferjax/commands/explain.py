"""The subcommand `ferjax explain`: attribution maps of images."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ferjax._version import __version__
from ferjax.commands.errors import CommandError
from ferjax.commands.images import (
  print_ignored,
  progress_bar,
  resolve_paths,
  warn_about_fonts,
  writing,
)
from ferjax.commands.options import add_detection_options, add_image_options, add_json
from ferjax.weights.defaults import DEFAULT_CLASSIFIER

if TYPE_CHECKING:
  from ferjax.inference.explanation.explainer import Explainer
  from ferjax.inference.explanation.files import ExplanationWriter
  from ferjax.inference.files import FoundImages, ImageFile


def add_explain(commands: argparse._SubParsersAction) -> None:
  """Adds `explain` to the subcommands of a program.

  `arguments.run(arguments)` writes the results, or raises a CommandError.
  """
  command = commands.add_parser(
    "explain",
    help="show which parts of an image are evidence for an expression",
    description="Overlays the evidence for the predicted class, or for --class, on each image: for "
    "the whole image with a classifier, for each detected face with a detector. "
    "Writes annotated images, the attribution maps as arrays, and explanations.json.",
    examples=(
      f"ferjax explain face.jpg --checkpoint {DEFAULT_CLASSIFIER} --output explained",
      "ferjax explain photo.jpg --checkpoint runs/detector --class happiness --output explained",
    ),
  )
  command.set_defaults(run=_run)
  add = command.add_argument
  add_image_options(add, checkpoint=None, output=None)
  add(
    "--class", dest="target", metavar="NAME", help="class to explain (default: the predicted class)"
  )
  add_json(add, "explanations.json")
  add_detection_options(command.add_argument_group("detectors only").add_argument, max_detections=6)


def _run(arguments: argparse.Namespace) -> None:
  # Imported here so that `ferjax --help` does not load JAX.
  from ferjax.allocator import keep_freed_memory
  from ferjax.compilation_cache import enable_compilation_cache
  from ferjax.inference.explanation.explainer import load_explainer
  from ferjax.inference.explanation.files import EXPLANATIONS, ExplanationWriter
  from ferjax.inference.files import EXPLAINED

  try:
    found = resolve_paths(arguments, files=[EXPLANATIONS], folders=[EXPLAINED])
    keep_freed_memory()
    enable_compilation_cache()
    explainer = load_explainer(
      arguments.checkpoint,
      step=arguments.step,
      target=arguments.target,
      score_threshold=arguments.score_threshold,
      iou_threshold=arguments.iou_threshold,
      max_detections=arguments.max_detections,
      per_class_nms=arguments.per_class_nms,
      image_size=arguments.image_size,
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
    raise CommandError(error) from error
  warn_about_fonts(predictor.class_names)
  with writing(writer, len(found.files)), writer:
    _write(explainer, writer, found.files, skip=arguments.on_bad_image == "skip")
  if arguments.json:
    print((writer.output / EXPLANATIONS).read_text(encoding="utf-8"))
  else:
    _print_summary(writer, found)


def _write(
  explainer: "Explainer", writer: "ExplanationWriter", files: "Sequence[ImageFile]", *, skip: bool
) -> None:
  names = {file.path: file.name for file in files}
  with progress_bar(writer, len(files), skip=skip) as (advance, skip_image):
    for explained in explainer.explain(names, on_bad_image=skip_image):
      writer.add(explained, names[str(explained.path)])
      advance()


def _print_summary(writer: "ExplanationWriter", found: "FoundImages") -> None:
  faces = [face for image in writer.images for face in image["faces"]]
  print(f"Explained {len(faces)} faces of {len(writer.images)} images", end="")
  print(f", skipped {len(writer.skipped)}" if writer.skipped else "")
  without = sum(not face["peak"] for face in faces)
  if without:
    print(f"{without} of the maps have no evidence for the class: their heat is 0")
  print_ignored(found)
  print(f"Results in {writer.output}")
