"""The three networks on one device, eight devices, and several hosts: `pytest -m slow`.

The same command runs 20 steps and an evaluation, whose single batch of eight has six records. How
much runs may differ by rounding is derived as in `test_loop_devices.py`, from a run that starts
from parameters changed by 2^-21: what devices do in another order is to add up to eight partial
sums, with a relative error of at most 7 times 2^-24.

The optimiser is SGD: AdamW divides by the size of a gradient, so parameters whose gradient is zero
but for rounding, such as a bias before BatchNorm, would move by rounding alone. The initial values
are changed by a percent, because EmoNeXt's spatial transformer begins as the identity, where all
samples lie on pixels and the gradient is not continuous. The detector is trained for 400 steps
first: the cells of a new one answer nearly the same, so the last bit of a cost decides which of
them learns a face.
"""

import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys

import grain
import jax
import numpy as np
import pytest
from etils import epath

import ferjax
from ferjax.checkpoint import Checkpoints
from ferjax.checkpoint.reading import restore_tree, saved_tree
from ferjax.models.options import model_arguments
from ferjax.training.resume import describe
from ferjax.training.run_state import Position
from ferjax.training.state import init_variables

ROOT = pathlib.Path(__file__).parents[2]
STEPS, CHANGE, UNIT = 20, 2.0**-21, 2.0**-24
# Network -> flags, besides those of `FLAGS`.
NETWORKS = {
  # The attention of this variant couples all images of a batch.
  "emonext": ("--config.model.variant=released", "--config.optimizer.learning_rate=0.005"),
  "fermam": ("--config.optimizer.learning_rate=0.0005",),
  "fer_yolo_mamba": ("--config.optimizer.learning_rate=0.001",),
}
WARM_UP = (
  "--config.optimizer.name=adamw",
  "--config.optimizer.learning_rate=0.002",
  "--config.train.epochs=100",
  "--config.train.eval_every=100",
  "--config.train.checkpoint_every=100",
)
FLAGS = (
  "--config.optimizer.name=sgd",
  "--config.optimizer.schedule=cosine",
  "--config.optimizer.min_learning_rate=0.0",
  "--config.data.train_examples=32",
  "--config.data.val_examples=6",
  "--config.train.batch_size=8",
  "--config.eval.batch_size=8",
  "--config.train.epochs=5",
  "--config.train.eval_every=5",
  "--config.train.checkpoint_every=5",
  "--config.train.log_every=1",
  "--config.train.freeze_epochs=0",
  "--config.train.keep_checkpoints=1",
)

pytestmark = pytest.mark.slow


def train(network, workdir, start, *flags, devices=1, hosts=1):
  """Runs train.py, on each of the hosts if there are several."""
  environment = os.environ | {
    "FERJAX_COMPILATION_CACHE": str(workdir.parent / "cache"),
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
  }
  together = []
  if hosts > 1:
    with socket.socket() as free:
      free.bind(("localhost", 0))
      address = f"localhost:{free.getsockname()[1]}"
    together = ["--distributed"]
    environment |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(hosts)}
  command = [sys.executable, "train.py", "--config", f"configs/{network}.py:tiny", "--workdir"]
  command += [str(workdir), f"--config.train.pretrained={start}", *NETWORKS[network], *FLAGS]
  processes = [
    subprocess.Popen(
      [*command, *together, *flags], cwd=ROOT, env=environment | {"JAX_PROCESS_ID": str(host)}
    )
    for host in range(hosts)
  ]
  assert [process.wait() for process in processes] == [0] * hosts
  return workdir


def config_of(network):
  spec = importlib.util.spec_from_file_location(network, ROOT / "configs" / f"{network}.py")
  configs = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(configs)
  config = configs.get_config("tiny")
  config.model.variant = "released" if network == "emonext" else config.model.variant
  return config


def changed(params, change, signs):
  factors = lambda x: np.float32(1 + change * signs.choice([-1, 1], x.shape))  # noqa: E731
  return jax.tree.map(lambda x: x * factors(x), params)


def save(folder, config, variables):
  """A checkpoint with these values that a run can start from."""
  meta = {**describe(config, num_examples=1), **Position().as_meta(), "training_seconds": 0.0}
  checkpoints = Checkpoints(folder, keep=1, metric="")
  iterator = iter(grain.MapDataset.range(4).to_iter_dataset())
  checkpoints.save(0, variables=variables, train=variables, iterator=iterator, meta=meta)
  checkpoints.close()
  iterator.close()


def save_start(network, folder):
  """Two checkpoints to start from; the parameters of the second are changed by rounding."""
  config = config_of(network)
  classes = len(config.data.class_names)
  model = ferjax.create_model(num_classes=classes, **model_arguments(config.model))
  init = jax.jit(lambda key: init_variables(model, key, config.data.image_size))
  variables = jax.device_get(init(jax.random.key(0)))
  signs = np.random.default_rng(0)
  variables["params"] = changed(variables["params"], 0.01, signs)
  if network == "fer_yolo_mamba":
    save(folder / "new", config, variables)
    trained = restore(train(network, folder / "trained", folder / "new", *WARM_UP))
    variables = {name: trained[name] for name in variables}
  other = {**variables, "params": changed(variables["params"], CHANGE, signs)}
  save(folder / "start", config, variables)
  save(folder / "changed", config, other)
  return vectors(variables), vectors(other)


def vectors(tree):
  return {
    name: np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(part)])
    for name, part in jax.device_get(tree).items()
    if jax.tree.leaves(part) and name != "step"
  }


def restore(workdir):
  """The state in the last checkpoint, on one device."""
  steps = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
  item = epath.Path(workdir) / "checkpoints" / str(max(steps)) / "train"
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), saved_tree(item)
  )
  return jax.device_get(restore_tree(item, like))


def values(workdir, name):
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return np.array([line[name] for line in lines if name in line])


@pytest.mark.parametrize("network", NETWORKS)
def test_devices_and_hosts_train_as_one_device(network, tmp_path):
  start, other_start = save_start(network, tmp_path)
  alone = train(network, tmp_path / "alone", tmp_path / "start")
  beside = train(network, tmp_path / "beside", tmp_path / "changed")
  expected, other = vectors(restore(alone)), vectors(restore(beside))
  bounds = {}
  for name in ("params", "batch_stats"):
    moved, other_moved = expected[name] - start[name], other[name] - other_start[name]
    rounding = STEPS * UNIT * np.linalg.norm(expected[name])
    bounds[name] = STEPS * np.linalg.norm(other_moved - moved) + rounding
    print(network, name, bounds[name], np.linalg.norm(moved))
    assert bounds[name] < 0.1 * np.linalg.norm(moved)  # tighter than any mistake
  losses = values(alone, "train/loss")
  effect = np.maximum.accumulate(np.abs(values(beside, "train/loss") - losses))
  loss_bound = STEPS * effect + 32 * UNIT * losses
  for hosts, devices, flags in (
    (1, 8, ()),
    (2, 2, ()),
    (2, 2, ("--config.train.shard_state=True",)),
    (4, 2, ()),
  ):
    run = train(
      network,
      tmp_path / f"{hosts}x{devices}{len(flags)}",
      tmp_path / "start",
      *flags,
      devices=devices,
      hosts=hosts,
    )
    found = vectors(restore(run))
    for name, bound in bounds.items():
      off = np.linalg.norm(found[name] - expected[name])
      print(network, hosts, devices, flags, name, off, bound)
      assert off <= bound
    assert (np.abs(values(run, "train/loss") - losses) <= loss_bound).all()
    assert len(values(run, "train/loss")) == STEPS  # one host writes
    counted = "eval/num_matched" if network == "fer_yolo_mamba" else "eval/num_examples"
    assert (values(run, counted) == values(alone, counted)).all()
    np.testing.assert_allclose(values(run, "eval/loss"), values(alone, "eval/loss"), rtol=1e-2)
