import dataclasses

import chex
import jax
import numpy as np
import pytest

from ferjax.checkpoint import load_variables
from ferjax.config import (
  Config,
  DataConfig,
  EvalConfig,
  FaceAugmentConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)
from ferjax.data.pipeline import train_dataset
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.training.inputs import TrainingData, device_batches
from ferjax.training.interruption import Interruption
from ferjax.training.loop import Interrupted, Trainer
from ferjax.training.sharding import make_mesh

FACES = FaceAugmentConfig(rotation=0.0, erasing=0.5, mixup=0.3, cutmix=1.0)


def make_config(*, on_device, **data):
  return Config(
    model=ModelConfig(name="fermam"),
    data=DataConfig(
      source="synthetic_faces",
      image_size=32,
      grey=True,
      on_device=on_device,
      face_augment=dataclasses.replace(FACES, **data),
    ),
    optimizer=OptimizerConfig(learning_rate=0.1),
    train=TrainConfig(epochs=2, batch_size=4, freeze="none", ema_decay=0.0, seed=3),
    eval=EvalConfig(batch_size=4),
  )


def source(count=8):
  return SyntheticFaces(count, image_size=36, seed=1, class_names=DataConfig().class_names)


def train(workdir, config, classifier, devices=2):
  """The metrics, and the variables after the last step."""
  task = ClassificationTask(tuple(config.data.class_names))
  model, mesh = classifier(num_classes=task.num_classes), make_mesh(devices)
  trainer = Trainer(config, workdir, model, task, source(), source(4), mesh=mesh)
  try:
    metrics = trainer.run()
  finally:
    trainer.close()
  return metrics, load_variables(workdir, step="latest")


def test_batches_are_sharded_and_the_state_is_that_of_the_last_returned():
  config, mesh = make_config(on_device=False), make_mesh(2)
  expected = iter(train_dataset(source(), config.data, batch_size=4, seed=3, epochs=2))
  plain = [(next(expected), expected.get_state()) for _ in range(3)]
  expected.close()
  iterator = TrainingData(source(), config, mesh).batches(4, 0)
  for batch, state in plain:
    arrays, host = next(iterator)
    chex.assert_trees_all_equal(jax.device_get(arrays), batch)
    assert arrays["image"].dtype == np.uint8
    assert arrays["image"].shape == (4, 32, 32, 1)
    assert [shard.data.shape[0] for shard in arrays["image"].addressable_shards] == [2, 2]
    np.testing.assert_array_equal(host["index"], batch["index"])
    assert iterator.get_state() == state
  iterator.close()


def test_errors_of_the_pipeline_reach_the_program():
  class Broken(SyntheticFaces):
    def __getitem__(self, index):
      raise ValueError("record: broken")

  config = make_config(on_device=False)
  broken = Broken(8, image_size=36, seed=1, class_names=DataConfig().class_names)
  dataset = train_dataset(broken, config.data, batch_size=4, seed=3, epochs=2)
  iterator = device_batches(dataset, make_mesh(1))
  with pytest.raises(ValueError, match="record: broken"):
    next(iterator)
  iterator.close()


@pytest.fixture(scope="module", autouse=True)
def all_optimisations():
  """Without LLVM's, programs for one and for two devices round grey levels differently."""
  before = jax.config.read("jax_disable_most_optimizations")
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def on_device(tmp_path_factory, classifier):
  return train(tmp_path_factory.mktemp("whole"), make_config(on_device=True), classifier)


def test_resumed_run_on_the_device_equals_an_uninterrupted_one(
  on_device, tmp_path, classifier, monkeypatch
):
  config = make_config(on_device=True)
  checks = iter([False, True])
  with monkeypatch.context() as patch:
    patch.setattr(Interruption, "should_stop", lambda self, *, sync_hosts: next(checks))
    with pytest.raises(Interrupted, match="interrupted after step 1 of 4"):
      train(tmp_path, config, classifier)
  # On one device, after two.
  metrics, variables = train(tmp_path, config, classifier, devices=1)
  assert metrics == pytest.approx(on_device[0], rel=1e-4)
  chex.assert_trees_all_close(variables, on_device[1], atol=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_step_gets_the_images_of_the_host(devices):
  """Within the interpolation error, and each device makes its own part of the batch; mixed."""
  results, states = [], []
  for on_device in (False, True):
    config = make_config(on_device=on_device, rotation=10.0, erasing=0.0)
    data = TrainingData(source(), config, make_mesh(devices))
    iterator = data.batches(4, 6)
    arrays, host = next(iterator)
    states.append(iterator.get_state())
    iterator.close()
    assert ("image" in arrays) == (not on_device)
    step = data.compile(lambda state, batch, key: (state, batch))
    _, batch = step({}, arrays, jax.random.key(0))
    assert "mixing" in arrays
    assert "mixing" not in batch
    if not on_device:
      unmixed = jax.device_get(arrays)
    results.append((jax.device_get(batch), host["index"]))
  (expected, indices), (batch, stored_indices) = results
  np.testing.assert_array_equal(stored_indices, indices)
  assert states[0] == states[1]  # a run can be resumed either way
  assert batch.keys() == expected.keys()
  assert (batch["image"].dtype, batch["image"].shape) == (np.uint8, (4, 32, 32, 1))
  errors = np.abs(batch["image"].astype(int) - expected["image"])
  assert errors.max() <= 3
  assert errors.mean() < 0.3
  np.testing.assert_array_equal(batch["label"], expected["label"])
  for i, j in ((0, 3), (1, 2), (2, 1), (3, 0)):
    weight = unmixed["mixing"]["weight"][min(i, j)]
    soft = weight * unmixed["label"][i] + (1 - weight) * unmixed["label"][j]
    np.testing.assert_allclose(expected["label"][i], soft, atol=1e-6)
  mixed_labels = np.count_nonzero((expected["label"] > 0.01).sum(1) > 1)
  assert mixed_labels >= 2
