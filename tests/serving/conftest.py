"""A predictor without a network, and the images that it tells apart."""

import contextlib
import io
import socket
import threading

import numpy as np
import pytest
from PIL import Image

from ferjax.inference.base import ImagePredictor
from ferjax.inference.results import Face
from ferjax.serving.app import create_app
from ferjax.serving.limits import Limits
from ferjax.serving.server import bound_socket, make_server

SECONDS = 20.0  # more than any step takes, so that a mistake does not hang


class Brightness(ImagePredictor[float]):
  """The score is the mean brightness of an image.

  Attributes:
    gate: the model waits for it.
    batches: the number of images in each batch.
  """

  def __init__(self, batch_size=4):
    self.class_names = ("bright",)
    self.step = None
    self.batch_size = batch_size
    self.settings = {}
    self.gate = threading.Event()
    self.gate.set()
    self.batches = []

  def _inputs(self, image):
    return float(image.mean())

  def _faces(self, batch):
    assert self.gate.wait(SECONDS)
    self.batches.append(len(batch))
    if any(prepared.inputs == 255 for prepared in batch):
      raise RuntimeError("too bright")
    return [(Face(None, x.inputs, "bright", {"bright": x.inputs}),) for x in batch]


@pytest.fixture
def predictor():
  return Brightness()


@pytest.fixture(scope="session")
def encoded():
  """The file of a plain image."""

  def encode(level, width=3, height=2, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(file, kind)
    return file.getvalue()

  return encode


@pytest.fixture
def serving():
  """Runs an application on a port of this machine, in a thread."""

  @contextlib.contextmanager
  def serve(predictor, limits):
    started = threading.Event()
    bound = bound_socket("127.0.0.1", 0)
    server = make_server(create_app(predictor, limits=limits), limits, ready=started.set)
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
      assert started.wait(SECONDS)
      yield server, bound.getsockname()
    finally:
      server.should_exit = True
      thread.join(SECONDS)
    assert not thread.is_alive()

  return serve


@pytest.fixture
def connect():
  """Opens connections, and closes them after the test."""
  with contextlib.ExitStack() as stack:
    yield lambda address: stack.enter_context(socket.create_connection(address, timeout=SECONDS))


@pytest.fixture
def small():
  """Limits that tests can reach."""
  return Limits(max_bytes=5000, max_pixels=100, queue_size=2, batch_wait=0.0, timeout=SECONDS)
