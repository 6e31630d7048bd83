"""The subcommand `ferjax serve`: predictions over HTTP."""

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
  add_exported_option,
  add_face_detection_options,
  header,
  load,
)
from ferjax.serving.limits import Limits

if TYPE_CHECKING:
  from fastapi import FastAPI

# What the extra installs, under the names of imports.
_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def add_serve(commands: argparse._SubParsersAction) -> None:
  """Adds `serve` to the subcommands of a program.

  `arguments.run(arguments)` serves until it is stopped, or raises a CommandError.
  """
  command = commands.add_parser(
    "serve",
    help="answer images over HTTP with predictions",
    description="POST an image to /predict: the answer is what `ferjax predict` writes about it, "
    "as JSON. The images of concurrent requests are predicted in batches. SIGINT or SIGTERM stops "
    "the service after it has answered the requests that have arrived.",
    examples=(
      "ferjax serve --port 8000",
      "curl -F image=@photo.jpg http://127.0.0.1:8000/predict",
    ),
  )
  command.set_defaults(run=_run)
  add = command.add_argument
  add_address(add, port=8000)
  add_checkpoint(add, default=DEFAULT_WEIGHTS)
  add_step(add)
  add_exported_option(add)
  add_classifier_options(add)
  add_face_detection_options(command.add_argument_group("face detection").add_argument)
  add_limit = command.add_argument_group("limits").add_argument
  add_limit(
    "--batch-size", type=int, default=8, metavar="N", help="images per batch (default: %(default)s)"
  )
  add_limits(add_limit, Limits, _LIMITS)


_LIMITS = (
  LimitOption("batch_wait", float, "S", "seconds that a batch waits for more images"),
  LimitOption("queue_size", int, "N", "images that may wait; further requests get 503"),
  LimitOption("max_bytes", int, "N", "size of a request"),
  LimitOption("max_pixels", int, "N", "size of an image"),
  LimitOption("timeout", float, "S", "seconds from the arrival of an image to its answer"),
  LimitOption("upload_timeout", float, "S", "seconds for the arrival of a request"),
)


def _run(arguments: argparse.Namespace) -> None:
  require_extra("serve", "ferjax serve", _PACKAGES)
  from ferjax.serving.server import bound_socket, run

  try:
    limits = limits_of(arguments, Limits, _LIMITS)
    with bound_socket(arguments.host, arguments.port) as bound:
      app = _app(arguments, limits)
      run(app, bound, limits, ready=lambda: _announce(bound))
  except (ValueError, OSError, ImportError) as error:
    raise CommandError(error) from error


def _app(arguments: argparse.Namespace, limits: Limits) -> "FastAPI":
  """The application with the loaded model."""
  from ferjax.allocator import keep_freed_memory
  from ferjax.compilation_cache import enable_compilation_cache
  from ferjax.serving.app import create_app

  keep_freed_memory()
  enable_compilation_cache()
  predictor = load(arguments, batch_size=arguments.batch_size)
  return create_app(predictor, limits=limits, header=header(arguments, predictor))


def _announce(bound: socket.socket) -> None:
  announce(bound, what="service", risk="does not encrypt", path="predict")
