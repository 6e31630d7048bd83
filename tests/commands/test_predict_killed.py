"""`ferjax predict` killed with SIGKILL, as by a preempted machine or a full memory."""

import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

IMAGES, KILLS = 60, 3
SEED = 7

pytestmark = [
  pytest.mark.slow,  # 30 s: each of the processes loads JAX and compiles
  pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL"),
]


@pytest.fixture
def photographs(tmp_path):
  """Images with different answers; every tenth is broken."""
  rng = np.random.default_rng(0)
  folder = tmp_path / "photographs" / "a b"
  folder.mkdir(parents=True)
  for number in range(IMAGES):
    path = folder / f"{number:03}.png"
    noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
    noise.resize((64, 64), Image.Resampling.BICUBIC).save(path)
    if number % 10 == 4:
      path.write_bytes(path.read_bytes()[:100])
  return folder.parent


def _lines(output):
  path = output / "predictions.jsonl"
  return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def _start(photographs, output):
  command = [sys.executable, "-m", "ferjax.commands.main", "predict", str(photographs)]
  command += ["--checkpoint", "fermam-nano-ferplus", "--recursive", "--on-bad-image", "skip"]
  command += ["--batch-size", "4", "--output", str(output)]
  return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _kill_after(process, output, count, wait):
  """Kills the process `wait` seconds after `count` more lines."""
  before = len(_lines(output))
  while len(_lines(output)) < before + count and process.poll() is None:
    time.sleep(0.01)
  time.sleep(wait)
  process.kill()
  process.wait()


def test_killed_at_random_moments(photographs, tmp_path):
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  assert _start(photographs, whole).wait() == 0
  rng, before = random.Random(SEED), b""
  for _ in range(KILLS):
    _kill_after(_start(photographs, killed), killed, rng.randrange(12), rng.random() / 50)
    complete = [line for line in _lines(killed) if line.endswith(b"\n")]
    for line in complete:
      # It would be broken if it were read again.
      pathlib.Path(json.loads(line)["image"]).write_bytes(b"")
    now = b"".join(complete)
    assert now.startswith(before)
    before = now
  assert _start(photographs, killed).wait() == 0
  assert (killed / "predictions.jsonl").read_bytes().startswith(before)
  documents = [json.loads((x / "predictions.json").read_text()) for x in (whole, killed)]
  assert documents[0]["skipped"] == documents[1]["skipped"]
  assert len(documents[0]["skipped"]) == IMAGES // 10
  for a, b in zip(*(x["images"] for x in documents), strict=True):
    assert a["image"] == b["image"]
    assert a["faces"][0]["scores"] == pytest.approx(b["faces"][0]["scores"], abs=1e-5)
  assert len(_lines(killed)) == IMAGES
