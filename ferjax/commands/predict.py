"""The subcommand `ferjax predict`: detects faces and classifies their expressions."""

import argparse
import collections
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ferjax.commands.errors import CommandError
from ferjax.commands.images import (
  paused_collection,
  print_ignored,
  progress_bar,
  resolve_paths,
  warn_about_fonts,
  writing,
)
from ferjax.commands.options import (
  add_host_options,
  add_image_options,
  add_json,
  join_hosts,
)
from ferjax.commands.predictor import (
  DEFAULT_WEIGHTS,
  add_classifier_options,
  add_exported_option,
  add_face_detection_options,
  default_batch_size,
  detector_name,
  header,
  load,
)
from ferjax.commands.video import add_video_options, predict_video, refuse_video_options
from ferjax.weights.defaults import DEFAULT_CLASSIFIER

OUTPUT = "predictions"
_FEW_IMAGES = 8

if TYPE_CHECKING:
  from ferjax.hosts import Hosts
  from ferjax.inference.base import ImagePredictor
  from ferjax.inference.files import FoundImages, ImageFile, PredictionWriter
  from ferjax.inference.journal import Record


def add_predict(commands: argparse._SubParsersAction) -> None:
  """Adds `predict` to the subcommands of a program.

  `arguments.run(arguments)` writes the results, or raises a CommandError.
  """
  command = commands.add_parser(
    "predict",
    help="detect faces and classify their expressions, or classify face images",
    description="Detects faces and classifies their expressions with a detector, or with a "
    "classifier and --detector. A classifier alone treats each image as a cropped face. Without "
    "--checkpoint, the weights that come with ferjax are used. Writes "
    "predictions.jsonl while it runs, predictions.json, predictions.csv, and annotated copies of "
    "the images. To go on with an interrupted run, give the same command again. A video gives "
    "tables of its faces over time, an annotated film, and a timeline for each person.",
    examples=(
      "ferjax predict photo.jpg",
      "ferjax predict photographs --recursive --on-bad-image skip --output results",
      f"ferjax predict faces --checkpoint {DEFAULT_CLASSIFIER}  # images of one face each",
      "ferjax predict photo.jpg --json --quiet | jq '.images[].faces[].expression'",
      "ferjax predict film.mp4",
    ),
  )
  command.set_defaults(run=_run)
  add = command.add_argument
  add_image_options(
    add,
    checkpoint=DEFAULT_WEIGHTS,
    output=OUTPUT,
    paths="image or folder of images; or one video, address such as rtsp://..., or camera:0",
  )
  add_exported_option(add)
  add(
    "--batch-size",
    type=int,
    metavar="N",
    help="images per batch (default: 1 for up to 8 images; otherwise 8, or 2 with a detector on a "
    "CPU)",
  )
  add_json(add, "predictions.json")
  add("--no-annotated", action="store_true", help="do not write copies with boxes and labels")
  add(
    "--restart",
    action="store_true",
    help="begin anew; without it, the command goes on where the same command was interrupted",
  )
  add_classifier_options(add)
  add_face_detection_options(command.add_argument_group("face detection").add_argument)
  add_host_options(command.add_argument_group("several hosts").add_argument)
  add_video_options(command.add_argument_group("video").add_argument)


def _run(arguments: argparse.Namespace) -> None:
  # Imported here so that `ferjax --help` does not load JAX.
  from ferjax.allocator import keep_freed_memory
  from ferjax.video.source import video_source

  try:
    video = video_source(arguments.paths)
  except (ValueError, OSError) as error:
    raise CommandError(error) from error
  if video is not None:
    predict_video(arguments, video)
    return
  refuse_video_options(arguments)
  try:
    hosts = join_hosts(arguments)
    found = _find(arguments, hosts)
  except (ValueError, OSError) as error:
    raise CommandError(error) from error
  if len(found.files) <= _FEW_IMAGES:
    with paused_collection():
      _predict(arguments, found, hosts)
  else:
    # Many batches take less time with it, but compiling takes a third more: 10.1 instead of 7.6
    # seconds for one image.
    keep_freed_memory()
    _predict(arguments, found, hosts)


def _find(arguments: argparse.Namespace, hosts: "Hosts") -> "FoundImages":
  """The images; the first host also checks that results can be written, and creates the folder."""
  from ferjax.inference.files import ANNOTATED, PREDICTION_FILES, find_images
  from ferjax.output import results_folder

  folders = () if arguments.no_annotated else (ANNOTATED,)
  if hosts.count == 1:
    return resolve_paths(arguments, files=PREDICTION_FILES, folders=folders)
  with hosts.together():
    if hosts.index == 0:
      resolve_paths(arguments, files=PREDICTION_FILES, folders=folders)
      results_folder(arguments.output)
  return find_images(arguments.paths, recursive=arguments.recursive, output=arguments.output)


def _predict(arguments: argparse.Namespace, found: "FoundImages", hosts: "Hosts") -> None:
  """Predicts this host's part of the images; the first of several hosts merges the parts."""
  from ferjax.inference.files import PREDICTION_FILES

  mine = found._replace(files=list(hosts.share(found.files)))
  start = time.perf_counter()
  with hosts.together():
    predictor = _load(arguments, len(mine.files))
    part = _part(hosts.index, hosts.count) if hosts.count > 1 else ""
    writer = _open_writer(arguments, predictor, mine, part=part, restart=arguments.restart)
    done = writer.written
    _predict_files(arguments, predictor, mine, writer)
  if hosts.count > 1:
    with hosts.together():
      if hosts.index == 0:
        parts = [_part(i, hosts.count) for i in range(hosts.count)]
        writer = _open_writer(arguments, predictor, found, restart=True)
        done = 0
        with writing(writer, len(found.files)), writer:
          writer.take_parts(parts)
        writer.remove_parts()
  if hosts.index != 0:
    return
  if arguments.json:
    print((writer.output / PREDICTION_FILES[0]).read_text(encoding="utf-8"))
  else:
    _print_summary(writer, found, done, time.perf_counter() - start)


def _part(index: int, count: int) -> str:
  return f"{index + 1}-of-{count}"


def _load(arguments: argparse.Namespace, images: int) -> "ImagePredictor":
  from ferjax.compilation_cache import enable_compilation_cache

  try:
    enable_compilation_cache()
    predictor = load(arguments, batch_size=_batch_size(arguments, images))
  except (ValueError, OSError, ImportError) as error:
    raise CommandError(error) from error
  if not arguments.no_annotated:
    warn_about_fonts(predictor.class_names)
  return predictor


def _open_writer(
  arguments: argparse.Namespace,
  predictor: "ImagePredictor",
  found: "FoundImages",
  *,
  restart: bool,
  part: str = "",
) -> "PredictionWriter":
  from ferjax.inference.files import PredictionWriter

  try:
    return PredictionWriter(
      arguments.output,
      [file.path for file in found.files],
      header=header(arguments, predictor),
      class_names=predictor.class_names,
      annotated=not arguments.no_annotated,
      with_detections=detector_name(arguments) is not None,
      weights=predictor.digest,
      restart=restart,
      part=part,
    )
  except (ValueError, OSError) as error:
    raise CommandError(error) from error


def _predict_files(
  arguments: argparse.Namespace,
  predictor: "ImagePredictor",
  found: "FoundImages",
  writer: "PredictionWriter",
) -> None:
  total, done = len(found.files), writer.written
  if done:
    message = f"Going on after {done:,} of {total:,} images of the interrupted run"
    print(message, file=sys.stderr if arguments.json else sys.stdout)
  try:
    with writing(writer, total), writer:
      skip = arguments.on_bad_image == "skip"
      _write_predictions(predictor, writer, found.files[done:], skip=skip)
  except KeyboardInterrupt:
    print(
      f"ferjax: {writer.written:,} of {total:,} images are in {writer.output}; the same command "
      "goes on from there",
      file=sys.stderr,
    )
    raise


def _batch_size(arguments: argparse.Namespace, images: int) -> int:
  """As given; a few images are not padded to a batch, but do not get a program each either."""
  if arguments.batch_size is not None:
    return arguments.batch_size
  return 1 if images <= _FEW_IMAGES else default_batch_size(arguments)


def _write_predictions(
  predictor: "ImagePredictor",
  writer: "PredictionWriter",
  files: Sequence["ImageFile"],
  *,
  skip: bool,
) -> None:
  done = writer.written
  names = {file.path: file.name for file in files}
  with progress_bar(writer, done + len(files), skip=skip, done=done) as (advance, skip_image):
    for prediction, image in predictor.predict_files(names, on_bad_image=skip_image):
      writer.add(prediction, image, names[str(prediction.image)])
      advance()


def _print_face(image: str, face: "Record") -> None:
  place = "" if face["box"] is None else f" at {', '.join(f'{x:.0f}' for x in face['box'])}"
  print(f"{image}: {face['expression']} {face['score']:.2f}{place}")


def _print_summary(
  writer: "PredictionWriter", found: "FoundImages", done: int, seconds: float
) -> None:
  """Prints the faces of a few images, and counts; `done` images were done before."""
  images = without = skipped = 0
  searched = True
  counts: collections.Counter[str] = collections.Counter()
  for record in writer.records():
    if "reason" in record:
      skipped += 1
      continue
    images, faces = images + 1, record["faces"]
    without += not faces
    searched = searched and all(face["box"] is not None for face in faces)
    counts.update(face["expression"] for face in faces)
    if len(found.files) <= _FEW_IMAGES:
      if not faces:
        print(f"{record['image']}: no face found")
      for face in faces:
        _print_face(record["image"], face)
  rows = {
    "images": images,
    **({"  without a face": without} if searched else {}),
    "skipped": skipped,
    "faces": counts.total(),
    **{f"  {name}": count for name, count in counts.most_common()},
    "images per second": f"{(writer.written - done) / seconds:.1f}",
  }
  width = max(map(len, rows))
  for name, value in rows.items():
    print(f"{name:<{width}}  {value:>8}")
  print_ignored(found)
  print(f"Results in {writer.output}")
