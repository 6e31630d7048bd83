"""Load test of `ferjax serve`: latency, mix-ups, memory, overload, hostile clients, stopping.

  python benchmarks/serve.py [--checkpoint fermam-nano-ferplus] [--detector runs/detector]

Prints Markdown. The service is a process of its own on loopback; the clients are threads of this
one, so both share the cores. Every client keeps one connection and sends its next image when it has
the answer. The images are drawings; each answer is compared with what `load_predictor` says about
its image in this process, and must carry the name that was sent with it.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import io
import itertools
import os
import pathlib
import platform
import socket
import threading
import time

from PIL import Image
from report import markdown
from serve_clients import SIDE, Load, same, service

import ferjax
from ferjax.data.synthetic.scenes import SyntheticScenes
from ferjax.inference.files import image_fields
from ferjax.weights import DEFAULT_CLASSIFIER

IMAGES = 64
UPLOAD_TIMEOUT = 2.0
_PACKAGES = ("jax", "fastapi", "starlette", "uvicorn", "python-multipart", "prometheus_client")


def drawings(detect: bool) -> list[bytes]:
  """JPEG files of drawn faces: several in each, or one that fills it."""
  if detect:
    scenes = SyntheticScenes(IMAGES, image_size=SIDE, seed=1, min_faces=2, scale=(0.2, 0.5))
  else:
    scenes = SyntheticScenes(
      IMAGES, image_size=SIDE, seed=1, min_faces=1, max_faces=1, scale=(0.7, 0.8)
    )
  files = []
  for index in range(IMAGES):
    file = io.BytesIO()
    Image.fromarray(scenes[index]["image"]).save(file, "JPEG", quality=90)
    files.append(file.getvalue())
  return files


def expected_answers(arguments: argparse.Namespace, images: list[bytes]) -> list[dict]:
  """From this process, without the service; also says how many answers are unlike all others."""
  from ferjax.data.image import decode

  predictor = ferjax.load_predictor(arguments.checkpoint, detector=arguments.detector)
  predictions = predictor.predict([decode(image) for image in images])
  answers = [image_fields(prediction) for prediction in predictions]
  pairs = itertools.combinations(answers, 2)
  alike = sum(same(one, other) for one, other in pairs)
  print(f"{IMAGES} images of {SIDE} x {SIDE} pixels; {alike} pairs have the same answer\n")
  return answers


def measure_load(arguments, model, images, expected) -> None:
  rows, memory = [], []
  with service(model) as running:
    print(f"ready after {running.seconds:.1f} s\n")
    for clients, requests in ((1, arguments.requests // 50), (8, arguments.requests // 10)):
      load = Load(running.address, images, expected)
      load.run(clients, requests)
      rows.append(load.row(clients=clients))
    load = Load(running.address, images, expected)

    def note(answers: int) -> None:
      memory.append({"answers": answers, "resident, MB": f"{running.memory():.1f}"})

    load.run(64, arguments.requests, every=max(1, arguments.requests // 10), watch=note)
    rows.append(load.row(clients=64))
    batches = running.metric("ferjax_batch_images_count")
    mean = running.metric("ferjax_batch_images_sum") / batches
    start = time.perf_counter()
    code = running.stop()
    stopped = time.perf_counter() - start
  print(markdown(rows))
  print(
    f"\n{mean:.2f} images per batch on average; stopped with exit code {code} in {stopped:.1f} s"
  )
  print("\n### Memory of the service\n\n" + markdown(memory))


def measure_overload(model, images, expected) -> None:
  print("\n### Overload: 64 clients, a queue of 8\n")
  with service([*model, "--queue-size", "8"]) as running:
    load = Load(running.address, images, expected)
    load.run(64, 1000)
  print(markdown([load.row()]))
  print("\nLatency counts from the first attempt, with the waits that Retry-After asks for.")


def seconds_until_closed(address: tuple[str, int], start: bytes, drip: bytes) -> float:
  """How long a client lasts that sends `start`, and then one byte in a while."""
  begin = time.perf_counter()
  with contextlib.suppress(OSError), socket.create_connection(address, timeout=0.2) as connection:
    connection.sendall(start)
    while time.perf_counter() - begin < 60:
      try:
        if not connection.recv(65536):
          break
      except TimeoutError:
        connection.sendall(drip)
  return time.perf_counter() - begin


def measure_hostile(model, images, expected) -> None:
  head = b"POST /predict HTTP/1.1\r\nHost: a\r\n"
  length = b"Content-Length: 9000000\r\n\r\n"
  kinds = {
    "send nothing": (b"", b""),
    "drip the head": (head, b"X"),
    "drip the body": (head + length, b"X"),
    "no HTTP": (b"\x16\x03\x01\r\n\r\n", b"X"),
    "a head of 1 MB": (head + b"X: " + b"y" * 2**20, b"X"),
    "announce 10 GB": (head + b"Content-Length: 10000000000\r\n\r\n", b"X"),
  }  # fmt: skip
  lasted: dict[str, list[float]] = {kind: [] for kind in kinds}
  limits = ["--upload-timeout", str(UPLOAD_TIMEOUT)]
  with service([*model, *limits]) as running:
    before = running.memory()
    load = Load(running.address, images, expected)
    stop = threading.Event()

    def attack(kind: str) -> None:
      while not stop.is_set():
        lasted[kind].append(seconds_until_closed(running.address, *kinds[kind]))

    attackers = [
      threading.Thread(target=attack, args=(kind,), daemon=True) for kind in kinds for _ in range(4)
    ]
    for attacker in attackers:
      attacker.start()
    time.sleep(0.5)
    load.run(8, 2000)
    stop.set()
    for attacker in attackers:
      attacker.join()
    grown = running.memory() - before
  print(f"\n### Hostile clients: 4 of each kind, at most {UPLOAD_TIMEOUT:g} s for head and body\n")
  print(markdown([
    {"they": kind, "connections": len(seconds), "the longest lasted, s": max(seconds)}
    for kind, seconds in lasted.items()
  ]))  # fmt: skip
  print("\nEight honest clients at the same time:\n\n" + markdown([load.row()]))
  print(f"\nThe memory of the service grew by {grown:.1f} MB.")


def measure_stop(model, images, expected) -> None:
  """SIGTERM under load: what was sent is answered, what comes later is refused."""
  with service(model) as running:
    load = Load(running.address, images, expected)
    sender = threading.Thread(target=load.run, args=(64, 10**5))
    sender.start()
    while len(load.seconds) < 500:
      time.sleep(0.01)
    signalled = time.perf_counter()
    code = running.stop()
    sender.join()
  lost = sum(sent < signalled for sent in load.failed)
  print("\n### SIGTERM under load of 64 clients\n")
  print(
    f"{load.row()['outcomes']}; {lost} of these were sent before the signal. The others found the "
    f"connection closed, or were refused. Exit code {code}."
  )


def machine() -> str:
  cpu = [x for x in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
  kind = cpu[0].split(": ")[1] if cpu else platform.processor()
  versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
  return (
    f"{datetime.date.today()}, Python {platform.python_version()}, {versions}; "
    f"{len(os.sched_getaffinity(0))} cores of {kind} ({platform.machine()}); load average "
    f"{os.getloadavg()[0]:.1f} at the start"
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--checkpoint", default=DEFAULT_CLASSIFIER)
  parser.add_argument("--detector")
  parser.add_argument("--requests", type=int, default=10_000, help="of the 64 clients")
  parser.add_argument("--only-load", action="store_true", help="only latency and memory")
  arguments = parser.parse_args()
  model = ["--checkpoint", arguments.checkpoint]
  model += ["--detector", arguments.detector] if arguments.detector else []
  print(machine() + "\n")
  images = drawings(detect=arguments.detector is not None)
  expected = expected_answers(arguments, images)
  measure_load(arguments, model, images, expected)
  if not arguments.only_load:
    measure_overload(model, images, expected)
    measure_hostile(model, images, expected)
    measure_stop(model, images, expected)


if __name__ == "__main__":
  main()
