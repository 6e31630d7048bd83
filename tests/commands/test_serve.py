import importlib.util
import os
import signal
import socket
import threading
import time

import httpx2
import numpy as np
import pytest
from PIL import Image

from ferjax import __version__
from ferjax.commands.main import main
from ferjax.inference.classification import ExpressionClassifier

pytestmark = pytest.mark.usefixtures("cached_programs")
SECONDS = 60


@pytest.fixture
def photograph(tmp_path):
  path = tmp_path / "a.png"
  Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 40, 3), np.uint8)).save(path)
  return path


@pytest.fixture
def free_port():
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


@pytest.fixture
def harmless_signal():
  """A late SIGTERM does not end the tests."""
  before = signal.signal(signal.SIGTERM, lambda number, frame: None)
  yield
  signal.signal(signal.SIGTERM, before)


class Client(threading.Thread):
  """Waits for the service, calls it, and stops it with a signal."""

  def __init__(self, url, image):
    super().__init__()
    self._url, self._image = url, image
    self.answers = {}

  def run(self):
    try:
      with httpx2.Client(base_url=self._url, timeout=SECONDS, trust_env=False) as client:
        self._wait(client)
        for page in ("health", "model"):
          self.answers[page] = client.get(page).json()
        files = {"image": ("a.png", self._image)}
        self.answers["predict"] = client.post("predict", files=files).json()
    finally:
      os.kill(os.getpid(), signal.SIGTERM)

  def _wait(self, client):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
      try:
        client.get("health")
        return
      except httpx2.ConnectError:
        time.sleep(0.02)


@pytest.mark.usefixtures("harmless_signal")
def test_serve(classifier_checkpoint, photograph, free_port, monkeypatch, capsys):
  # The allocator's settings would remain for the other tests; the environment takes precedence.
  monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
  url = f"http://127.0.0.1:{free_port}"
  client = Client(url, photograph.read_bytes())
  client.start()
  arguments = ["--checkpoint", str(classifier_checkpoint), "--batch-size", "1"]
  assert main(["serve", *arguments, "--port", str(free_port)]) == 0
  client.join()
  assert capsys.readouterr().out == f"Ready: {url}/predict\n"
  assert client.answers["health"] == {"status": "ready"}
  assert client.answers["model"] == {
    "ferjax": __version__,
    "checkpoint": str(classifier_checkpoint),
    "step": 5,
    "class_names": ["happiness", "anger", "surprise"],
  }
  answer = client.answers["predict"]
  predictor = ExpressionClassifier(classifier_checkpoint, batch_size=1)
  (expected,) = predictor.predict([photograph])
  assert (answer["image"], answer["width"], answer["height"]) == ("a.png", 40, 50)
  (face,) = answer["faces"]
  assert face["box"] is None
  assert face["scores"] == pytest.approx(expected.faces[0].scores, abs=1e-6)


def test_a_missing_package(monkeypatch, capsys):
  found = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name)
  )
  assert main(["serve"]) == 2
  assert "ferjax serve needs uvicorn, which cannot be imported" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--queue-size", "0"], "queue_size is 0; expected at least 1"),
    (["--host", "not a host"], "the host 'not a host' is not known"),
    (["--port", "0", "--checkpoint", "nowhere"], "nowhere"),
  ],
)
def test_wrong_usage(arguments, message, capsys):
  assert main(["serve", *arguments]) == 2
  captured = capsys.readouterr()
  assert captured.err.startswith("ferjax: error: ")
  assert message in captured.err
  assert captured.out == ""


def test_the_address_is_checked_before_the_model_is_loaded(free_port, capsys):
  with socket.create_server(("127.0.0.1", free_port)):
    assert main(["serve", "--port", str(free_port), "--checkpoint", "nowhere"]) == 2
  assert f"127.0.0.1:{free_port} cannot be used" in capsys.readouterr().err
