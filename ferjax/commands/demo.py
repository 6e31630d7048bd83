"""The subcommand `ferjax demo`: a page to try a predictor out."""

import argparse
import socket
from typing import TYPE_CHECKING

from ferjax.commands.errors import CommandError
from ferjax.commands.extras import require_extra
from ferjax.commands.listening import LimitOption, add_address, add_limits, announce, limits_of
from ferjax.commands.options import add_checkpoint, add_step
from ferjax.commands.predictor import (
  DEFAULT_WEIGHTS,
  add_classifier_options,
  add_face_detection_options,
  default_batch_size,
  detector_name,
  load,
)
from ferjax.demo.limits import DemoLimits
from ferjax.serving.limits import Limits
from ferjax.weights.defaults import DEFAULT_CLASSIFIER

if TYPE_CHECKING:
  from collections.abc import Mapping
  from typing import Any

# What the extra installs, under the names of imports.
_PACKAGES = ("gradio", "fastapi", "uvicorn", "av", "pyarrow", "scipy")
_PATIENCE = 2.0  # seconds: an open page keeps a connection


def add_demo(commands: argparse._SubParsersAction) -> None:
  """Adds `demo` to the subcommands of a program.

  `arguments.run(arguments)` serves until it is stopped, or raises a CommandError.
  """
  command = commands.add_parser(
    "demo",
    help="a page in the browser: images, a webcam and films",
    description="Serves a page that shows the faces of an image, a webcam or a film, with all "
    "scores, maps of the evidence, and the model card of the weights. Nothing is sent to other "
    "machines, and uploaded files are removed after the answer. SIGINT or SIGTERM stops it.",
    examples=("ferjax demo", "ferjax demo --port 8080 --checkpoint runs/mine"),
  )
  # Explanations need the gradient of a network, which exported programs do not have.
  command.set_defaults(run=_run, exported=None)
  add = command.add_argument
  add_address(add, port=7860)
  add_checkpoint(add, default=DEFAULT_WEIGHTS)
  add_step(add)
  add_classifier_options(add)
  add_face_detection_options(command.add_argument_group("face detection").add_argument)
  add_limits(command.add_argument_group("limits").add_argument, DemoLimits, _LIMITS)


_LIMITS = (
  LimitOption("max_bytes", int, "N", "size of an uploaded file"),
  LimitOption("max_pixels", int, "N", "size of an image, and of a frame of a film"),
  LimitOption("film_seconds", float, "S", "a longer film is analysed up to this time"),
  LimitOption("frame_rate", float, "N", "frames of a film per second that are analysed, at most"),
  LimitOption("camera_seconds", float, "S", "after which a camera must be started again"),
  LimitOption("cameras", int, "N", "cameras at the same time; further ones wait"),
  LimitOption("timeout", float, "S", "seconds of work on a film"),
  LimitOption("queue_size", int, "N", "images and films that may wait; further ones are refused"),
)


def _run(arguments: argparse.Namespace) -> None:
  require_extra("demo", "ferjax demo", _PACKAGES)
  from ferjax.allocator import keep_freed_memory
  from ferjax.compilation_cache import enable_compilation_cache
  from ferjax.demo.app import demo_app
  from ferjax.serving.server import bound_socket, run

  try:
    limits = limits_of(arguments, DemoLimits, _LIMITS)
    with bound_socket(arguments.host, arguments.port) as bound:
      keep_freed_memory()
      enable_compilation_cache()
      predictor = load(arguments, batch_size=default_batch_size(arguments))
      card = _card(arguments, predictor.settings)
      with demo_app(predictor, limits=limits, card=card) as app:
        run(app, bound, Limits(), ready=lambda: _announce(bound), patience=_PATIENCE)
  except (ValueError, OSError, ImportError) as error:
    raise CommandError(error) from error


def _card(arguments: argparse.Namespace, settings: "Mapping[str, Any]") -> str:
  from ferjax.demo.card import model_card
  from ferjax.weights import open_weights

  opened = open_weights(arguments.checkpoint or DEFAULT_CLASSIFIER, step=arguments.step)
  is_detector = opened.meta["task"] == "detection"
  networks = {"Faces and expressions" if is_detector else "Expressions": opened}
  if (detector := detector_name(arguments)) is not None:
    networks["Faces"] = open_weights(detector)
  return model_card(networks, settings)


def _announce(bound: socket.socket) -> None:
  risk = "does not encrypt, and browsers allow their cameras only to pages that come by https"
  announce(bound, what="page", risk=risk)
