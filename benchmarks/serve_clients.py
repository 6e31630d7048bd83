"""The service and its clients in `benchmarks/serve.py`."""

import contextlib
import http.client
import json
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

SIDE = 320  # of the images, pixels
TOLERANCE = 2e-3  # of scores, and of boxes relative to the side: programs round differently


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
