"""The page over HTTP, on loopback, with Gradio's own client."""

import contextlib
import os
import pathlib
import threading

import httpx2
import pytest
from gradio_client import Client, handle_file

from ferjax.demo.app import demo_app
from ferjax.demo.limits import DemoLimits
from ferjax.serving.limits import Limits
from ferjax.serving.server import bound_socket, make_server

SECONDS = 30.0  # more than any step takes, so that a mistake does not hang
LIMITS = DemoLimits(max_bytes=100_000, queue_size=2)


@contextlib.contextmanager
def served(app):
  """The address of an application that a thread serves."""
  started = threading.Event()
  bound = bound_socket("127.0.0.1", 0)
  server = make_server(app, Limits(), ready=started.set, patience=1.0)
  thread = threading.Thread(target=server.run, args=([bound],))
  thread.start()
  try:
    assert started.wait(SECONDS)
    yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
  finally:
    server.should_exit = True
    thread.join(SECONDS)
  assert not thread.is_alive()


@pytest.fixture(scope="module")
def page(predictor):
  with demo_app(predictor, limits=LIMITS, card="A | card") as app:
    folder = pathlib.Path(os.environ["GRADIO_TEMP_DIR"])
    with served(app) as address:
      yield address, folder
  assert not folder.exists()


@pytest.fixture
def http(page):
  with httpx2.Client(base_url=page[0], timeout=SECONDS, trust_env=False) as client:
    yield client


def files_in(folder):
  return [path for path in folder.rglob("*") if path.is_file()]


def test_answers_of_uploads(page, tmp_path, make_picture, encode):
  address, folder = page
  client = Client(address, verbose=False, analytics_enabled=False, download_files=str(tmp_path))
  (tmp_path / "a.png").write_bytes(encode(make_picture((1, 1, 2))))
  (tmp_path / "b.mp4").write_bytes(b"no film")
  left, text = client.predict(handle_file(str(tmp_path / "a.png")), api_name="/image")
  assert left is None
  assert "a.png: 1 face found: 1 blue" in text
  _, text = client.predict(handle_file(str(tmp_path / "b.mp4")), api_name="/film")
  assert "b.mp4: not a video" in text
  assert files_in(folder) == []


def test_addresses_are_not_fetched(page, tmp_path):
  address, _ = page
  client = Client(address, verbose=False, analytics_enabled=False, download_files=str(tmp_path))
  for path in ("http://127.0.0.1:9/a.png", "https://example.com/a.png"):
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    _, text = client.predict(file, api_name="/image")
    assert "choose the file again" in text


def test_headers(http):
  answer = http.get("/")
  assert answer.status_code == 200
  assert answer.headers["Content-Security-Policy"].startswith("default-src 'self' data: blob:;")
  assert answer.headers["Referrer-Policy"] == "no-referrer"
  config = http.get("/config").json()
  assert config["analytics_enabled"] is False
  assert config["run_history"] is False


@pytest.mark.parametrize("path", ["docs", "redoc", "monitoring", "file=/etc/passwd"])
def test_what_is_not_served(http, path):
  for prefix in ("", "gradio_api/"):
    answer = http.get(f"/{prefix}{path}")
    assert answer.status_code >= 400, answer.text


def test_large_bodies(page, http):
  answer = http.post("/gradio_api/upload", files={"files": ("a.png", bytes(100_001))})
  assert answer.status_code == 413
  answer = http.post("/gradio_api/queue/join", content=bytes(2**20))
  assert answer.status_code == 413
  answer = http.post("/gradio_api/upload", content=iter([b"a"]))
  assert answer.status_code == 411
  assert files_in(page[1]) == []


def test_too_many_uploads(page, http):
  upload = {"files": ("a.png", b"content")}
  statuses = []
  for number in range(4):
    upload = {"files": (f"{number}.png", b"%d" % number)}
    statuses.append(http.post("/gradio_api/upload", files=upload).status_code)
  assert statuses == [200, 200, 200, 503]
  for file in files_in(page[1]):
    file.unlink()
  assert http.post("/gradio_api/upload", files=upload).status_code == 200
