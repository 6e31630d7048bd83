import dataclasses
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fastapi.testclient import TestClient

from ferjax import __version__
from ferjax.inference.files import image_fields
from ferjax.serving.app import create_app
from ferjax.serving.limits import Limits

SECONDS = 20


@pytest.fixture
def client(predictor, small):
  app = create_app(predictor, limits=small, header={"checkpoint": "brightness"})
  with TestClient(app, raise_server_exceptions=False) as client:
    yield client


def _metric(client, name):
  (line,) = [x for x in client.get("/metrics").text.splitlines() if x.startswith(f"{name} ")]
  return float(line.split()[1])


def _wait_for(condition):
  end = time.monotonic() + SECONDS
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.002)


@pytest.mark.parametrize("form", [True, False])
def test_the_answer_is_what_predict_writes(client, predictor, encoded, form):
  image = encoded(7, width=5, height=4)
  if form:
    response = client.post("/predict", files={"image": ("gesicht-你.png", image)})
  else:
    response = client.post("/predict", content=image)
  (prediction,) = predictor.predict([np.full((4, 5, 3), 7, np.uint8)])
  name = "gesicht-你.png" if form else None
  assert response.status_code == 200
  assert response.json() == image_fields(dataclasses.replace(prediction, image=name))
  assert response.json() == {
    "image": name,
    "width": 5,
    "height": 4,
    "annotated": None,
    "faces": [{"box": None, "score": 7.0, "expression": "bright", "scores": {"bright": 7.0}}],
  }


def test_each_answer_belongs_to_its_image(predictor, encoded):
  app = create_app(predictor, limits=Limits(queue_size=60, batch_wait=0.0))
  with TestClient(app) as client, ThreadPoolExecutor(20) as pool:

    def score(level):
      name = f"{level}.png"
      answer = client.post("/predict", files={"image": (name, encoded(level))}).json()
      assert answer["image"] == name
      return answer["faces"][0]["score"]

    assert list(pool.map(score, range(60))) == list(range(60))
    assert _metric(client, "ferjax_batch_images_sum") == 60
    assert _metric(client, "ferjax_faces_total") == 60


def test_waiting_requests_share_a_batch(client, predictor, encoded):
  predictor.gate.clear()
  predictor.batches.clear()
  with ThreadPoolExecutor(3) as pool:
    first = pool.submit(client.post, "/predict", content=encoded(1))
    _wait_for(lambda: _metric(client, "ferjax_batch_images_count") == 1)
    second = pool.submit(client.post, "/predict", content=encoded(2))
    _wait_for(lambda: _metric(client, "ferjax_waiting_images") == 2)
    predictor.gate.set()
    assert first.result(SECONDS).status_code == second.result(SECONDS).status_code == 200
  assert predictor.batches == [1, 1]


def test_a_full_queue_refuses_and_recovers(client, predictor, encoded):
  predictor.gate.clear()
  with ThreadPoolExecutor(2) as pool:
    waiting = [pool.submit(client.post, "/predict", content=encoded(i)) for i in (3, 4)]
    _wait_for(lambda: _metric(client, "ferjax_waiting_images") == 2)
    refused = client.post("/predict", content=encoded(5))
    predictor.gate.set()
    scores = [future.result(SECONDS).json()["faces"][0]["score"] for future in waiting]
  assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
  assert "too many requests are waiting" in refused.json()["detail"]
  assert scores == [3, 4]
  assert client.post("/predict", content=encoded(5)).status_code == 200
  assert _metric(client, "ferjax_waiting_images") == 0
  assert _metric(client, 'ferjax_requests_total{status="503"}') == 1
  assert _metric(client, 'ferjax_requests_total{status="200"}') == 3


def test_no_answer_in_time(predictor, encoded):
  with TestClient(create_app(predictor, limits=Limits(timeout=0.05))) as client:
    predictor.gate.clear()
    late = client.post("/predict", content=encoded(1))
    predictor.gate.set()
    assert (late.status_code, late.headers["retry-after"]) == (503, "1")
    assert "no result within 0.05 s" in late.json()["detail"]
    assert _metric(client, "ferjax_waiting_images") == 0


def _form(**parts):
  return {"files": {name: (f"{name}.png", content) for name, content in parts.items()}}


@pytest.mark.parametrize(
  ("make", "status", "message"),
  [
    (lambda image: {}, 422, "the image: not an image in one of the formats JPEG, PNG,"),
    (lambda image: _form(a=b"text"), 422, "a.png: not an image in one of the formats"),
    (lambda image: {"content": image[:50]}, 422, "damaged or truncated"),
    (lambda image: _form(a=image, b=image), 400, "Maximum number of files is 1. Expected one file"),
    (lambda image: {"files": {"a": (None, b"x")}}, 400, "Maximum number of fields is 0."),
    (lambda image: {"content": b"\0" * 5001}, 413, "the body is 5001 bytes or more; expected at"),
    (lambda image: {"content": iter([b"\0" * 3000] * 3)}, 413, "9000 bytes or more; expected"),
    (lambda image: _form(a=b"\0" * 5000), 413, "expected at most 5000; scale the image down"),
  ],
)
def test_bad_requests(client, encoded, make, status, message):
  response = client.post("/predict", **make(encoded(9)))
  assert response.status_code == status
  assert message in response.json()["detail"]
  assert client.post("/predict", content=encoded(9)).status_code == 200


@pytest.mark.parametrize("body", [b"", b"--x", b"--x\r\nA: b\r\n\r\n\r\n--x--", b"\xff" * 40])
def test_bad_forms(client, body):
  response = client.post(
    "/predict", content=body, headers={"content-type": "multipart/form-data; boundary=x"}
  )
  assert response.status_code == 400
  assert "the multipart form cannot be read" in response.json()["detail"]


def test_bad_images(client, encoded):
  large = client.post("/predict", content=encoded(1, width=101, height=1))
  assert large.status_code == 422
  assert "101x1 pixels are more than the limit of 100" in large.json()["detail"]
  # Pillow would write this one to disk, for Ghostscript.
  eps = client.post("/predict", content=encoded(1, kind="EPS"))
  assert eps.status_code == 422
  assert "not an image in one of the formats" in eps.json()["detail"]


def test_nothing_is_written_to_disk(predictor, encoded, monkeypatch):
  noise = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()
  monkeypatch.setattr(tempfile, "tempdir", "/a/folder/that/does/not/exist")
  with TestClient(create_app(predictor)) as client:
    response = client.post("/predict", files={"image": ("a.png", encoded(8) + noise)})
  assert response.json()["faces"][0]["score"] == 8


def test_an_error_of_the_model_ends_only_its_batch(client, encoded):
  assert client.post("/predict", content=encoded(255)).status_code == 500
  assert client.post("/predict", content=encoded(254)).json()["faces"][0]["score"] == 254
  assert _metric(client, 'ferjax_requests_total{status="500"}') == 1


def test_the_other_pages(client, predictor):
  assert predictor.batches == [1, 2, 4]  # compiled before the first answer
  assert client.get("/health").json() == {"status": "ready"}
  assert client.get("/model").json() == {"checkpoint": "brightness", "class_names": ["bright"]}
  assert client.get("/predict").status_code == 405
  document = client.get("/openapi.json").json()
  assert document["info"]["version"] == __version__
  assert set(document["paths"]) == {"/predict", "/model", "/health", "/metrics"}
  body = document["paths"]["/predict"]["post"]["requestBody"]["content"]
  assert set(body) == {"multipart/form-data", "application/octet-stream"}
  assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=")
  assert _metric(client, "ferjax_request_seconds_count") == 0


def test_it_is_not_ready_before_the_model_is_compiled(predictor):
  predictor.gate.clear()
  ready = threading.Event()

  def start():
    with TestClient(create_app(predictor)) as client:
      assert client.get("/health").status_code == 200
      ready.set()

  with ThreadPoolExecutor(1) as pool:
    started = pool.submit(start)
    assert not ready.wait(0.05)
    predictor.gate.set()
    started.result(SECONDS)
