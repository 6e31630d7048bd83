import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.config import Config, LossConfig, ModelConfig
from ferjax.data.sources import ReleasedDetection
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.models.registry import model_spec
from ferjax.tasks import TASKS, create_task, task_name
from ferjax.tasks.base import Examples, Loss, Metrics, Task, merge_losses
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.tasks.detection.task import DetectionTask
from ferjax.typing import DetectorOutput


def loss_of(weight, **parts):
  parts = {name: jnp.float32(value) for name, value in parts.items()}
  return Loss.of_parts(parts, jnp.float32(weight), "num_matched")


def stacked(losses):
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *losses)


def random_means_and_weights(rng, size):
  """Random means and weights; one weight is 0."""
  weights = rng.integers(1, 5, size).astype(np.float32)
  weights[1] = 0
  return rng.uniform(0, 3, size).astype(np.float32), weights


def test_total_is_the_sum_of_the_parts():
  loss = loss_of(4, iou=0.5, objectness=1.25)
  assert loss.total == 1.75
  assert loss.scalars() == {
    "loss": 1.75,
    "loss_iou": 0.5,
    "loss_objectness": 1.25,
    "num_matched": 4,
  }


def test_a_loss_without_parts_is_zero():
  assert Loss.of_parts({}, jnp.float32(1), "num_examples").total == 0


@pytest.mark.parametrize("merge", [lambda losses: stacked(losses).merged(), merge_losses])
def test_merged_by_hand(merge):
  """(3 * 2 + 1 * 6) / 4 and (3 * 1 + 1 * 5) / 4."""
  loss = merge([loss_of(3, iou=2, objectness=1), loss_of(1, iou=6, objectness=5)])
  assert loss.scalars() == {"loss": 5, "loss_iou": 3, "loss_objectness": 2, "num_matched": 4}


@pytest.mark.parametrize("merge", [lambda losses: stacked(losses).merged(), merge_losses])
@pytest.mark.parametrize(
  ("weights", "expected"),
  [
    # With weight 0 the mean is a sum, such as the objectness of a batch without matched cells.
    ((0, 2), (7 + 2 * 3) / 2),
    ((0, 0), 7 + 3),
    # A sum of class weights may be less than one.
    ((0.25, 0.5), (0.25 * 7 + 0.5 * 3) / 0.75),
  ],
)
def test_merging_small_weights(merge, weights, expected):
  loss = merge([loss_of(weight, iou=mean) for weight, mean in zip(weights, (7, 3), strict=True)])
  assert loss.total == pytest.approx(expected, rel=1e-6)
  assert loss.weight == sum(weights)


def test_merging_in_steps_equals_merging_at_once():
  rng = np.random.default_rng(0)
  losses = [
    loss_of(weight, iou=mean)
    for mean, weight in zip(*random_means_and_weights(rng, 6), strict=True)
  ]
  at_once = merge_losses(losses)
  in_steps = merge_losses([merge_losses(losses[:2]), merge_losses(losses[2:])])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), in_steps, at_once)


def test_host_sums_in_float64():
  """In float32, 2^24 + 1 is 2^24."""
  losses = [loss_of(2**24, iou=1), *[loss_of(1, iou=1)] * 3]
  assert merge_losses(losses).weight == 2**24 + 3


def test_merging_under_jit_and_scan_equals_the_whole():
  """Four microbatches of two examples, against the mean over all eight."""
  means, weights = random_means_and_weights(np.random.default_rng(1), 8)

  def loss(means, weights):
    weight = weights.sum()
    return Loss.of_parts(
      {"iou": (means * weights).sum() / jnp.maximum(weight, 1)}, weight, "num_matched"
    )

  @jax.jit
  def in_microbatches(means, weights):
    parts = (means.reshape(4, 2), weights.reshape(4, 2))
    _, losses = jax.lax.scan(lambda _, part: (None, loss(*part)), None, parts)
    return losses.merged()

  merged, whole = in_microbatches(means, weights), jax.jit(loss)(means, weights)
  assert merged.weight_name == "num_matched"
  expected = np.sum(means.astype(np.float64) * weights) / weights.sum()
  # Eight products and their sum, each rounded to 2^-24.
  for found in (merged, whole):
    np.testing.assert_allclose(found.total, expected, rtol=16 * 2**-24)
    assert found.weight == weights.sum()


def config_of(model, **groups):
  return Config(model=ModelConfig(name=model), **groups)


@pytest.mark.parametrize("model", ["fer_yolo_mamba", "emonext", "fermam"])
def test_every_task_implements_the_protocol(model):
  config = config_of(model)
  task = create_task(config)
  assert task.name == task_name(config) == model_spec(model).task
  assert type(task) is TASKS[task.name]
  assert isinstance(task, Task)
  assert isinstance(task.metrics(), Metrics)
  assert task.class_names == config.data.class_names
  assert task.primary_metric in task.selection_metrics
  assert task.primary_metric in task.shown_metrics


def test_tasks_of_the_models():
  config = config_of("emonext", loss=LossConfig(label_smoothing=0.2))
  assert create_task(config) == ClassificationTask(config.data.class_names, config.loss)
  assert create_task(config_of("fer_yolo_mamba")) == DetectionTask(config.data.class_names)
  with pytest.raises(ValueError, match=r"unknown model 'lenet'; known: .*fer_yolo_mamba"):
    create_task(config_of("lenet"))


def test_sources_implement_examples():
  for source in (ReleasedDetection([], ("a",)), SyntheticFaces(1, image_size=32, seed=0)):
    assert isinstance(source, Examples)


def test_detectors_use_one_view():
  with pytest.raises(ValueError, match=r"one view of an image, not 10; set eval\.ten_crop=False"):
    DetectionTask(("a",)).merge_views(DetectorOutput(()), 10)
