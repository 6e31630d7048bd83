"""Options shared by several commands."""

import argparse
from collections.abc import Callable
from typing import Any

Add = Callable[..., Any]  # `add_argument` of a parser or a group


def parse_step(text: str) -> int | str:
  """A step number, "best" or "latest"; raises a ValueError for other text."""
  if text in ("best", "latest"):
    return text
  if text.isascii() and text.isdecimal():
    return int(text)
  raise ValueError(f"the step is {text!r}; expected a number, 'best' or 'latest'")


def _step(text: str) -> int | str:
  try:
    return parse_step(text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(error) from error


def add_image_options(add: Add) -> None:
  """Adds the images, the checkpoint and the output folder."""
  add("paths", nargs="+", metavar="PATH", help="image or folder of images")
  add(
    "--checkpoint", required=True, metavar="DIR", help="training workdir, or one checkpoint in it"
  )
  add("--output", required=True, metavar="DIR", help="folder for the results")
  add(
    "--step",
    type=_step,
    metavar="N",
    help="step of the checkpoint, 'best' or 'latest' (default: best, or latest if none was "
    "evaluated)",
  )
  add(
    "--on-bad-image",
    choices=("error", "skip"),
    default="error",
    help="stop at an unreadable image, or report it and continue (default: %(default)s)",
  )
  add("--recursive", action="store_true", help="search folders recursively")


def add_detection_options(add: Add, *, max_detections: int) -> None:
  """Adds the thresholds of a detector; `max_detections` is the default shown in the help."""
  add(
    "--score-threshold",
    type=float,
    metavar="P",
    help="minimum score of a detected face, 0..1 (default: 0.3)",
  )
  add(
    "--iou-threshold",
    type=float,
    metavar="P",
    help="of two boxes with the same expression and a higher IoU, the one with the lower score is "
    "dropped (default: 0.3)",
  )
  add(
    "--max-detections",
    type=int,
    metavar="N",
    help=f"maximum number of faces per image, in order of decreasing score (default: "
    f"{max_detections})",
  )
