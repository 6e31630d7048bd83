"""`predict` and `data prepare` on several hosts, which are local processes: `pytest -m slow`."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ferjax.data.prepared import open_prepared

pytestmark = pytest.mark.slow


def jax_variables(address, count, index):
  return {
    "JAX_COORDINATOR_ADDRESS": address,
    "JAX_NUM_PROCESSES": str(count),
    "JAX_PROCESS_ID": str(index),
  }


def slurm_variables(address, count, index):
  """As Slurm sets them; JAX derives a port from the job's number."""
  return {
    "SLURM_JOB_ID": str(int(address.rpartition(":")[2]) % 2**12 + 2**12),
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": str(count),
    "SLURM_PROCID": str(index),
    "SLURM_LOCALID": str(index),
    "SLURM_STEP_NUM_NODES": "1",
  }


def open_mpi_variables(address, count, index):
  """As Open MPI 4 sets them, with the address of the launcher."""
  return {
    "OMPI_MCA_orte_hnp_uri": f"{int(address.rpartition(':')[2]) * 2**12}.0;tcp://127.0.0.1:1",
    "OMPI_COMM_WORLD_SIZE": str(count),
    "OMPI_COMM_WORLD_RANK": str(index),
    "OMPI_COMM_WORLD_LOCAL_RANK": str(index),
  }


def run(arguments, *, hosts=1, variables=jax_variables):
  """The exit codes and messages of the command on each host."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  processes = []
  for host in range(hosts):
    own = variables(address, hosts, host) if hosts > 1 else {}
    command = [sys.executable, "-m", "ferjax.commands.main", *map(str, arguments)]
    command += ["--distributed"] if hosts > 1 else []
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""} | own
    processes.append(subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE))
  messages = [process.communicate()[1] for process in processes]
  return [process.returncode for process in processes], messages


@pytest.fixture
def folder(tmp_path):
  """Eleven images, the sixth of them broken."""
  rng, folder = np.random.default_rng(0), tmp_path / "images"
  folder.mkdir()
  for number in range(11):
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{number:02}.png")
  (folder / "05.png").write_bytes(b"no image")
  return folder


def results(output):
  """Without annotated copies, everything that the command writes."""
  assert sorted(path.name for path in output.iterdir()) == [
    "predictions.csv",
    "predictions.json",
    "predictions.jsonl",
  ]
  return {path.name: path.read_text() for path in output.iterdir()}


@pytest.mark.parametrize(
  ("hosts", "variables"),
  [(2, jax_variables), (4, jax_variables), (2, slurm_variables), (2, open_mpi_variables)],
)
def test_predictions_are_merged_in_order(classifier_checkpoint, folder, tmp_path, hosts, variables):
  settings = ("predict", folder, "--checkpoint", classifier_checkpoint, "--batch-size", 2)
  settings += ("--no-annotated", "--on-bad-image", "skip", "--output")
  assert run([*settings, tmp_path / "alone"])[0] == [0]
  codes, messages = run([*settings, tmp_path / "hosts"], hosts=hosts, variables=variables)
  assert codes == [0] * hosts, messages
  assert results(tmp_path / "hosts") == results(tmp_path / "alone")
  document = json.loads((tmp_path / "hosts" / "predictions.json").read_text())
  names = [pathlib.Path(image["image"]).name for image in document["images"]]
  assert names == [f"{i:02}.png" for i in range(11) if i != 5]


def test_an_error_of_one_host_ends_all(classifier_checkpoint, folder, tmp_path):
  settings = ("predict", folder, "--checkpoint", classifier_checkpoint, "--batch-size", 2)
  codes, messages = run([*settings, "--output", tmp_path / "out"], hosts=2)
  assert codes == [2, 2]
  assert "05.png" in messages[1] or "05.png" in messages[0]
  assert any("another host ended with an error" in message for message in messages)


@pytest.mark.parametrize("hosts", [2, 4])
def test_a_prepared_set_is_the_same(tmp_path, hosts):
  rng, source = np.random.default_rng(0), tmp_path / "source"
  for split, count in (("train", 9), ("val", 3)):
    for name in ("anger", "fear"):
      (source / split / name).mkdir(parents=True)
      for number in range(count):
        pixels = rng.integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).save(source / split / name / f"{number}.png")
  settings = ("data", "prepare", "image_folder", "--source", source)
  settings += ("--class-names", "anger,fear", "--drop-duplicates", "all", "--out")
  assert run([*settings, tmp_path / "alone"])[0] == [0]
  codes, messages = run([*settings, tmp_path / "hosts"], hosts=hosts)
  assert codes == [0] * hosts, messages
  folders = [next((tmp_path / name).glob("*/*/1.0.0")) for name in ("hosts", "alone")]
  files = [sorted(path.relative_to(x) for path in x.rglob("*")) for x in folders]
  assert files[0] == files[1]
  for split in ("train", "val"):
    a, b = (open_prepared(folder, split) for folder in folders)
    np.testing.assert_equal(*([x._record(i) for i in range(len(x))] for x in (a, b)))
    np.testing.assert_array_equal(a.labels, b.labels)
