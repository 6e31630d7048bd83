"""Load test of `ferjax serve`: latency, mix-ups, memory, overload, hostile clients, stopping.

  python benchmarks/serve.py --checkpoint fermam-nano-ferplus [--detector runs/detector]

Prints Markdown. The service is a process of its own on loopback; the clients are threads of this
one, so both share the cores. Every client keeps one connection and sends its next image when it has
the answer. The images are drawings; each answer is compared with what `load_predictor` says about
its image in this process, and must carry the name that was sent with it.
"""

import argparse
import contextlib
import datetime
import http.client
import importlib.metadata
import io
import itertools
import json
import os
import pathlib
import platform
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image
from report import markdown

import ferjax
from ferjax.data.synthetic.scenes import SyntheticScenes
from ferjax.inference.files import image_fields

IMAGES, SIDE = 64, 320
TOLERANCE = 2e-3  # of scores, and of boxes relative to the side: programs round differently
UPLOAD_TIMEOUT = 2.0
_PACKAGES = ("jax", "fastapi", "starlette", "uvicorn", "python-multipart", "prometheus_client")


class Service:
  """A process of `ferjax serve`."""

  def __init__(self, arguments: list[str]):
    start = time.perf_counter()
    command = [sys.executable, "-m", "ferjax.commands.main", "serve", "--port", "0"]
    self.process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
    assert self.process.stdout is not None
    line = self.process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    if found is None:
      raise SystemExit(f"the service did not start: {line!r}")
    self.address = ("127.0.0.1", int(found[1]))
    self.seconds = time.perf_counter() - start

  def metric(self, name: str) -> float:
    connection = http.client.HTTPConnection(*self.address)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return sum(float(x.split()[-1]) for x in text.splitlines() if x.split(" ")[0] == name)

  def memory(self) -> float:
    """Resident megabytes."""
    return self.metric("process_resident_memory_bytes") / 1e6

  def stop(self) -> int:
    self.process.send_signal(signal.SIGTERM)
    return self.process.wait(60)


@contextlib.contextmanager
def service(arguments: list[str]) -> Iterator[Service]:
  running = Service(arguments)
  try:
    yield running
  finally:
    running.process.kill()
    running.process.wait()


class Client:
  """One connection; sends images as multipart forms, each with a name of its own."""

  def __init__(self, address: tuple[str, int]):
    self._connection = http.client.HTTPConnection(*address, timeout=120)

  def post(self, name: str, image: bytes) -> tuple[int, dict[str, Any], str | None]:
    """Status, answer and Retry-After."""
    head = f'--x\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
    self._connection.request(
      "POST",
      "/predict",
      head.encode() + image + b"\r\n--x--\r\n",
      {"Content-Type": "multipart/form-data; boundary=x"},
    )
    response = self._connection.getresponse()
    return response.status, json.loads(response.read()), response.getheader("Retry-After")

  def close(self) -> None:
    self._connection.close()


class Load:
  """Requests from many clients, and what became of them."""

  def __init__(self, address: tuple[str, int], images: list[bytes], expected: list[dict]):
    self._address, self._images, self._expected = address, images, expected
    self.seconds: list[float] = []
    self.outcomes: Counter[str] = Counter()
    self.failed: list[float] = []  # when requests without an answer were sent
    self.duration = 0.0

  def run(
    self, clients: int, requests: int, *, every: int = 0, watch: Callable[[int], None] | None = None
  ) -> None:
    """Sends `requests` images; calls `watch` with the number of answers after each `every`."""
    numbers = queue.SimpleQueue()
    for number in range(requests):
      numbers.put(number)
    threads = [threading.Thread(target=self._work, args=(numbers,)) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
      thread.start()
    for answers in range(every, requests + 1, every) if watch else ():
      while len(self.seconds) < answers and any(thread.is_alive() for thread in threads):
        time.sleep(0.05)
      watch(len(self.seconds))
    for thread in threads:
      thread.join()
    self.duration = time.perf_counter() - start

  def _work(self, numbers: queue.SimpleQueue) -> None:
    client = Client(self._address)
    with contextlib.suppress(queue.Empty):
      while self._send(client, numbers.get_nowait()):
        pass
    client.close()

  def _send(self, client: Client, number: int) -> bool:
    """Sends an image until it is not refused, and judges the answer; False without one."""
    which = number % len(self._images)
    name = f"{number}.jpg"
    start = time.perf_counter()
    try:
      while (answer := client.post(name, self._images[which]))[0] == 503:
        self.outcomes["refused with Retry-After"] += answer[2] is not None
        time.sleep(float(answer[2] or 1))
    except (OSError, http.client.HTTPException):
      self.failed.append(start)
      self.outcomes["no answer"] += 1
      return False
    status, fields, _ = answer
    self.seconds.append(time.perf_counter() - start)
    if status != 200:
      self.outcomes[f"status {status}"] += 1
    elif fields["image"] != name or not same(fields, self._expected[which]):
      self.outcomes["answer of another image"] += 1
    else:
      self.outcomes["answered"] += 1
    return True

  def row(self, **label: Any) -> dict[str, Any]:
    p50, p90, p99 = 1e3 * np.percentile(self.seconds, [50, 90, 99])
    return {
      **label,
      "requests/s": len(self.seconds) / self.duration,
      "p50, ms": p50,
      "p90, ms": p90,
      "p99, ms": p99,
      "longest, ms": 1e3 * max(self.seconds),
      "outcomes": ", ".join(f"{count:,} {what}" for what, count in self.outcomes.items()),
    }


def numbers_of(fields: dict) -> list[float]:
  """All numbers of an answer; pixels relative to the side of the image."""
  scores = [score for face in fields["faces"] for score in face["scores"].values()]
  edges = [edge / SIDE for face in fields["faces"] for edge in face["box"] or ()]
  return scores + edges


def same(fields: dict, expected: dict) -> bool:
  found, wanted = numbers_of(fields), numbers_of(expected)
  return len(found) == len(wanted) and bool(np.allclose(found, wanted, rtol=0, atol=TOLERANCE))


def drawings(detect: bool) -> list[bytes]:
  """JPEG files of drawn faces: several in each, or one that fills it."""
  faces = {} if detect else {"min_faces": 1, "max_faces": 1, "scale": (0.7, 0.8)}
  scenes = SyntheticScenes(IMAGES, image_size=SIDE, seed=1, **faces)
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
    for clients, requests in ((1, 200), (8, 1000)):
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
  print(
    f"\n### SIGTERM under load of 64 clients\n\n{load.row()['outcomes']}; {lost} of these were sent "
    f"before the signal. The others found the connection closed, or were refused. Exit code {code}."
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
  parser.add_argument("--checkpoint", default="fermam-nano-ferplus")
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
