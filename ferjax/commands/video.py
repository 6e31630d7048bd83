"""`ferjax predict` for films, cameras and streams."""

import argparse
import contextlib
import importlib.util
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ferjax.commands.errors import CommandError
from ferjax.commands.images import warn_about_fonts
from ferjax.commands.options import Add
from ferjax.commands.predictor import default_batch_size, detector_name, header, load
from ferjax.output import check_writable
from ferjax.progress import Progress

if TYPE_CHECKING:
  from ferjax.video.reading import VideoReader
  from ferjax.video.results import VideoResults
  from ferjax.video.source import VideoSource

_PACKAGES = ("av", "pyarrow", "scipy")  # of the extra, as they are imported
_SMOOTHING = 0.5
_SHOWN = 20  # persons in the printed table
_OPTIONS = ("frame_stride", "smoothing", "seconds", "timeout")


def add_video_options(add: Add) -> None:
  """Adds the options for films; all are None if they are not given."""
  add("--frame-stride", type=int, metavar="N", help="analyse every Nth frame (default: 1)")
  add(
    "--smoothing",
    type=float,
    metavar="S",
    help="scores of a person are also averaged over about the last S seconds; 0 averages nothing "
    f"(default: {_SMOOTHING})",
  )
  add(
    "--seconds",
    type=float,
    metavar="S",
    help="stop after S seconds of the film, camera or stream (default: at its end)",
  )
  add(
    "--timeout",
    type=float,
    metavar="S",
    help="seconds to wait for a camera or stream (default: 10)",
  )


def refuse_video_options(arguments: argparse.Namespace) -> None:
  """Raises a CommandError if an option for films is given for images."""
  for name in _OPTIONS:
    if getattr(arguments, name) is not None:
      option = "--" + name.replace("_", "-")
      raise CommandError(
        f"{option} {getattr(arguments, name)} is for a video, and {arguments.paths[0]} is none; "
        "omit it, or give a file such as film.mp4"
      )


def predict_video(arguments: argparse.Namespace, source: "VideoSource") -> None:
  """Analyses a film; raises a CommandError, or a KeyboardInterrupt after Ctrl-C."""
  missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
  if missing:
    raise CommandError(
      f"{source.name} is a video, which needs {', '.join(missing)}; install the extra: "
      "pip install 'ferjax[video]'"
    )
  for name in ("recursive", "restart", "distributed"):
    if getattr(arguments, name):
      raise CommandError(f"--{name} is for images, and {source.name} is a video; omit it")
  from ferjax.video.reading import TIMEOUT, VideoReader

  seconds = math.inf if arguments.seconds is None else arguments.seconds
  if not seconds > 0:
    raise CommandError(f"--seconds is {seconds:g}; expected a positive number of seconds")
  stride = 1 if arguments.frame_stride is None else arguments.frame_stride
  timeout = TIMEOUT if arguments.timeout is None else arguments.timeout
  try:
    check_writable(arguments.output)
    with VideoReader(source, stride=stride, timeout=timeout) as reader:
      _predict(arguments, reader, seconds, stride)
  except (ValueError, OSError, ImportError) as error:
    raise CommandError(error) from error


def _predict(
  arguments: argparse.Namespace, reader: "VideoReader", seconds: float, stride: int
) -> None:
  from ferjax.allocator import keep_freed_memory
  from ferjax.compilation_cache import enable_compilation_cache
  from ferjax.video.analysis import analyse
  from ferjax.video.results import VideoResults

  keep_freed_memory()
  enable_compilation_cache()
  batch_size = arguments.batch_size
  if batch_size is None:
    batch_size = default_batch_size(arguments)
  predictor = load(arguments, batch_size=batch_size)
  smoothing = _SMOOTHING if arguments.smoothing is None else arguments.smoothing
  settings = {"video": reader.name, "frame_stride": stride, "smoothing": smoothing}
  with _interruption() as stop:
    start = time.perf_counter()
    with VideoResults(
      arguments.output,
      reader,
      predictor,
      header=header(arguments, predictor) | settings,
      smoothing=smoothing,
      annotated=not arguments.no_annotated,
      with_detections=detector_name(arguments) is not None,
    ) as results:
      if not arguments.no_annotated:
        warn_about_fonts(predictor.class_names)
      total = _total(reader, seconds)
      with Progress(total, "frame") as progress:
        analyse(
          reader,
          predictor,
          results,
          seconds=seconds,
          advance=progress.update,
          stopped=stop.is_set,
        )
  if not results.analysed and not stop.is_set():
    reasons = "; ".join(results.damage) or "it has no frames"
    raise CommandError(f"{reader.name}: no frame could be read ({reasons})")
  for sentence in results.damage:
    print(f"ferjax: warning: {reader.name}: {sentence}", file=sys.stderr)
  _print_summary(results, time.perf_counter() - start)
  if stop.is_set():
    raise KeyboardInterrupt


def _total(reader: "VideoReader", seconds: float) -> int | None:
  """The number of frames to be read; None if unknown."""
  if math.isinf(seconds):
    return reader.count
  frames = round(seconds * reader.rate)
  return frames if reader.count is None else min(frames, reader.count)


@contextlib.contextmanager
def _interruption() -> Iterator[threading.Event]:
  """An event that the first Ctrl-C or SIGTERM sets; the second acts as usual."""
  event = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield event  # Python delivers signals only to the main thread.
    return
  numbers = (signal.SIGINT, signal.SIGTERM)
  previous = {number: signal.getsignal(number) for number in numbers}

  def restore() -> None:
    for number, handler in previous.items():
      signal.signal(number, handler)

  def handle(*_: object) -> None:
    event.set()
    restore()

  for number in numbers:
    signal.signal(number, handle)
  try:
    yield event
  finally:
    restore()


def _print_summary(results: "VideoResults", seconds: float) -> None:
  """Prints a row for each person, and counts."""
  persons = results.persons.all()
  shown = results.persons.longest()[:_SHOWN]
  if shown:
    print(f"{'track':>5}  {'first':>9}  {'last':>9}  {'frames':>7}  expression")
  for person in shown:
    row = results.persons.fields(person)
    print(
      f"{row['track']:>5}  {row['first']:>8.2f}s  {row['last']:>8.2f}s  {row['frames']:>7,}  "
      f"{row['expression']} in {row['share']:.0%}"
    )
  if len(persons) > len(shown):
    print(f"{len(persons) - len(shown):,} more, seen in fewer frames, are in tracks.csv")
  rows = {
    "frames": f"{results.analysed:,}",
    "  without a face": f"{results.without:,}",
    "faces": f"{results.faces:,}",
    "persons": f"{len(persons):,}",
    "frames per second": f"{results.analysed / seconds:.1f}",
  }
  width = max(map(len, rows))
  for name, value in rows.items():
    print(f"{name:<{width}}  {value:>8}")
  print(f"Results in {results.output}")
