"""Options shared by several commands."""

import argparse
from collections.abc import Callable
from typing import Any

from ferjax.hosts import Hosts, join

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


def crop_margin(text: str) -> float | list[float]:
  """The numbers of "0.1" or "0.1,0.3,0.1,0"; raises an ArgumentTypeError for other text."""
  try:
    margins = [float(number) for number in text.split(",")]
  except ValueError as error:
    raise argparse.ArgumentTypeError(
      f"the margin is {text!r}; expected one number, or left,top,right,bottom"
    ) from error
  return margins[0] if len(margins) == 1 else margins


def add_json(add: Add, text: str) -> None:
  """Adds `--json`, for programs; `text` describes what is printed."""
  add("--json", action="store_true", help=f"print {text} as JSON instead of a summary")


def add_output(
  add: Add, metavar: str, text: str, *, default: str | None = None, required: bool = True
) -> None:
  """Adds `--output`, also called `--out`; `text` describes it, and the help shows the default."""
  shown = "" if default is None else " (default: %(default)s)"
  add(
    "--output",
    "--out",
    required=required,
    default=default,
    metavar=metavar,
    help=f"{text}{shown}",
  )


def add_host_options(add: Add) -> None:
  """Adds the options of a command that several hosts run together."""
  add(
    "--distributed",
    action="store_true",
    help="share the work with the other hosts that run the same command; --output is a folder "
    "that all can access",
  )
  add("--coordinator", metavar="HOST:PORT", help="address of host 0, if JAX cannot detect it")
  add("--num-hosts", type=int, metavar="N", help="number of hosts; with --coordinator")
  add("--host", type=int, metavar="I", help="number of this host, from 0; with --coordinator")


def join_hosts(arguments: argparse.Namespace) -> Hosts:
  """Connects the hosts if `--distributed` is given.

  Raises:
    ValueError: the options contradict each other, or the hosts cannot be found.
    ConnectionError: the hosts do not find each other.
  """
  given = (arguments.coordinator, arguments.num_hosts, arguments.host)
  if not arguments.distributed:
    if given != (None, None, None):
      raise ValueError(
        "--coordinator, --num-hosts and --host are for several hosts; pass --distributed as well"
      )
    return Hosts()
  return join(*given)


def add_checkpoint(add: Add, *, default: str | None) -> None:
  """Adds the checkpoint; `default` describes the default one, None if there is none."""
  add(
    "--checkpoint",
    required=default is None,
    metavar="WEIGHTS",
    help="name of known weights (`ferjax weights` lists them), weights file, training workdir, or "
    f"one checkpoint in it{'' if default is None else f' (default: {default})'}",
  )


def add_step(add: Add) -> None:
  """Adds the step of a checkpoint."""
  add(
    "--step",
    type=_step,
    metavar="N",
    help="step of the checkpoint, 'best' or 'latest' (default: best, or latest if none was "
    "evaluated)",
  )


def add_image_options(
  add: Add,
  *,
  checkpoint: str | None,
  output: str | None,
  paths: str = "image or folder of images",
) -> None:
  """Adds the images, the checkpoint and the output folder.

  Args:
    add: `add_argument` of a parser or a group.
    checkpoint: describes the default checkpoint; None if there is none.
    output: the default output folder; None if there is none.
    paths: describes the paths.
  """
  add("paths", nargs="+", metavar="PATH", help=paths)
  add_checkpoint(add, default=checkpoint)
  add_output(add, "DIR", "folder for the results", default=output, required=output is None)
  add_step(add)
  add(
    "--on-bad-image",
    choices=("error", "skip"),
    default="error",
    help="stop at an unreadable image, or report it and continue (default: %(default)s)",
  )
  add("--recursive", action="store_true", help="search folders recursively")


def add_detection_options(add: Add, *, max_detections: int) -> None:
  """Adds the settings of a detector; `max_detections` is the default shown in the help."""
  add(
    "--score-threshold",
    type=float,
    metavar="P",
    help="minimum score of a detected face, 0..1 (default: that of the weights, or 0.3)",
  )
  add(
    "--iou-threshold",
    type=float,
    metavar="P",
    help="of two boxes with a higher IoU, the one with the lower score is dropped (default: that "
    "of the weights, or 0.3)",
  )
  add(
    "--max-detections",
    type=int,
    metavar="N",
    help=f"maximum number of faces per image, in order of decreasing score (default: "
    f"{max_detections})",
  )
  add(
    "--per-class-nms",
    action="store_true",
    default=None,
    help="never drop boxes of other expressions, as in evaluation: a face can then get two boxes; "
    "for a detector alone",
  )
  add(
    "--image-size",
    type=int,
    metavar="N",
    help="side of the detector's input in pixels: a larger one finds smaller faces in more time "
    "(default: that of the weights)",
  )
