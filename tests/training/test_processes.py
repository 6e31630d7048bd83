"""Runs in separate processes: several hosts, and a killed run. `pytest -m slow`."""

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

ROOT = pathlib.Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def start(workdir, *arguments, devices=1):
  """Starts the tiny run, twelve steps with a checkpoint every four."""
  environment = os.environ | {
    "FERJAX_COMPILATION_CACHE": str(workdir.parent / "cache"),
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
  }
  return subprocess.Popen(
    [
      *(sys.executable, "train.py", "--config", "configs/fer_yolo_mamba.py:tiny"),
      *("--workdir", str(workdir), "--config.train.epochs=3", *arguments),
    ],
    cwd=ROOT,
    env=environment,
  )


def losses(workdir):
  """(step, loss) as logged in training and evaluation."""
  records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return {
    name: [(record["step"], record[name]) for record in records if name in record]
    for name in ("train/loss", "eval/loss")
  }


def assert_same_run(one, other):
  for name, expected in losses(one).items():
    assert expected, name
    np.testing.assert_allclose(losses(other)[name], expected, rtol=2e-3, err_msg=name)


def test_two_hosts_train_as_one_with_two_devices(tmp_path):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  together = ("--distributed", f"--coordinator={address}", "--num_hosts=2")
  hosts = [start(tmp_path / "hosts", *together, f"--host={host}") for host in (0, 1)]
  assert [host.wait() for host in hosts] == [0, 0]
  assert start(tmp_path / "alone", devices=2).wait() == 0
  assert_same_run(tmp_path / "alone", tmp_path / "hosts")


def test_run_killed_while_saving_resumes_exactly(tmp_path):
  workdir = tmp_path / "killed"
  run = start(workdir)
  while not list(workdir.glob("checkpoints/8*")):
    assert run.poll() is None, "ended before it was killed"
    time.sleep(0.001)
  run.send_signal(signal.SIGKILL)
  assert run.wait() == -signal.SIGKILL
  left = sorted(path.name for path in (workdir / "checkpoints").iterdir())
  assert "4" in left
  assert "8" not in left, f"killed too late for this test: {left}"
  assert start(workdir).wait() == 0
  assert start(tmp_path / "whole").wait() == 0
  killed, whole = losses(workdir), losses(tmp_path / "whole")
  for name, expected in whole.items():
    # The steps between the checkpoint and the kill are logged again.
    np.testing.assert_allclose(
      sorted(dict(killed[name]).items()), expected, rtol=1e-6, err_msg=name
    )
