"""The subcommand `ferjax serve`: predictions over HTTP."""

import argparse
import importlib.util
import ipaddress
import socket
import sys
from typing import TYPE_CHECKING

from ferjax.commands.errors import CommandError
from ferjax.commands.options import Add, add_checkpoint, add_step
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
  add("--host", default="127.0.0.1", help="name or address to listen on (default: %(default)s)")
  add("--port", type=int, default=8000, help="port; 0 for any free one (default: %(default)s)")
  add_checkpoint(add, default=DEFAULT_WEIGHTS)
  add_step(add)
  add_exported_option(add)
  add_classifier_options(add)
  add_face_detection_options(command.add_argument_group("face detection").add_argument)
  _add_limits(command.add_argument_group("limits").add_argument)


def _add_limits(add: Add) -> None:
  add(
    "--batch-size", type=int, default=8, metavar="N", help="images per batch (default: %(default)s)"
  )
  for name, kind, metavar, text in (
    ("batch_wait", float, "S", "seconds that a batch waits for more images"),
    ("queue_size", int, "N", "images that may wait for an answer; further requests get 503"),
    ("max_bytes", int, "N", "size of a request"),
    ("max_pixels", int, "N", "size of an image"),
    ("timeout", float, "S", "seconds from the arrival of an image to its answer"),
    ("upload_timeout", float, "S", "seconds for the arrival of a request"),
  ):
    add(
      f"--{name.replace('_', '-')}",
      type=kind,
      default=getattr(Limits, name),
      metavar=metavar,
      help=f"{text} (default: %(default)s)",
    )


def _run(arguments: argparse.Namespace) -> None:
  if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
    raise CommandError(
      f"ferjax serve needs {', '.join(missing)}, which cannot be imported; install the extra: "
      "pip install 'ferjax[serve]'"
    )
  from ferjax.serving.server import bound_socket, run

  try:
    limits = Limits(
      max_bytes=arguments.max_bytes,
      max_pixels=arguments.max_pixels,
      queue_size=arguments.queue_size,
      batch_wait=arguments.batch_wait,
      timeout=arguments.timeout,
      upload_timeout=arguments.upload_timeout,
    )
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
  host, port = bound.getsockname()[:2]
  if not ipaddress.ip_address(host).is_loopback:
    print(
      f"ferjax: warning: everyone who can reach {host} can use this service; it knows no users and "
      "does not encrypt",
      file=sys.stderr,
    )
  print(f"Ready: http://{f'[{host}]' if ':' in host else host}:{port}/predict", flush=True)
