"""A run that goes on with fewer hosts and another number of devices. `pytest -m slow`: a minute."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from ferjax.checkpoint import load_meta, load_variables

ROOT = pathlib.Path(__file__).parents[2]
RUN = ("--config", "benchmarks/small_run.py", "--config.train.epochs=7")

pytestmark = pytest.mark.slow


def start(workdir, *arguments, devices=1):
  environment = os.environ | {
    "FERJAX_COMPILATION_CACHE": str(workdir.parent / "cache"),
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
  }
  command = [sys.executable, "train.py", *RUN, "--workdir", str(workdir), *arguments]
  return subprocess.Popen(
    command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
  )


def losses(workdir):
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return {x["step"]: x["train/loss"] for x in lines if "train/loss" in x}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("elastic") / "whole"
  process = start(workdir)
  process.communicate()
  assert process.returncode == 0
  return workdir


@pytest.mark.parametrize("options", [(), ("--config.train.shard_state",)])
def test_two_hosts_then_one(whole, tmp_path, options):
  """One of the hosts gets the signal; both stop after the same step."""
  workdir = tmp_path / "run"
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  together = ("--distributed", f"--coordinator={address}", "--num_hosts=2", *options)
  hosts = [start(workdir, *together, f"--host={host}", devices=2) for host in (0, 1)]
  # Steps of the second phase, which begins with epoch 5.
  while not (workdir / "checkpoints/50").exists():
    assert [host.poll() for host in hosts] == [None, None]
    time.sleep(0.01)
  hosts[1].send_signal(signal.SIGTERM)
  outputs = [host.communicate()[1] for host in hosts]
  assert [host.returncode for host in hosts] == [1, 1]
  stopped = load_meta(workdir, step="latest")["step"]
  assert 50 <= stopped < 90
  assert f"interrupted after step {stopped} of 90; the same command resumes" in outputs[0]

  alone = start(workdir, *options)
  alone.communicate()
  assert alone.returncode == 0
  found, expected = losses(workdir), losses(whole)
  assert list(found) == list(expected)
  # AdamW divides by the root of small second moments: rounding of 1e-7 grows over 90 steps.
  np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=2e-3)
  a, b = (load_variables(x, step="latest")["params"]["head"]["bias"] for x in (workdir, whole))
  np.testing.assert_allclose(a, b, atol=1e-3)


def test_a_signal_saves_and_exits_with_a_message(tmp_path):
  workdir = tmp_path / "run"
  process = start(workdir)
  while not (workdir / "metrics.jsonl").exists() or not losses(workdir):
    assert process.poll() is None
    time.sleep(0.01)
  process.send_signal(signal.SIGINT)
  errors = process.communicate()[1]
  step = load_meta(workdir, step="latest")["step"]
  assert process.returncode == 1
  assert f"error: interrupted after step {step} of 90; the same command resumes the run" in errors
