"""The training step of every network lowers for GPUs and TPUs on a machine without either."""

import collections
import re

import jax
import jax.numpy as jnp
import pytest

import ferjax
from ferjax.config import LossConfig, OptimizerConfig, TrainConfig
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.tasks.detection.task import DetectionTask
from ferjax.training.optimizers import make_optimizer
from ferjax.training.state import create_state, init_variables
from ferjax.training.step import make_train_step

CLASSES = ("neutral", "happiness", "anger")
BATCH, FACES = 2, 4
# Network -> size, image size, gathers. EmoNeXt's sample the image at predicted points; the
# detector's take the cells and boxes that its assignment matches.
NETWORKS = {
  "emonext": ("atto", 32, 1),
  "fermam": ("nano", 32, 0),
  "fer_yolo_mamba": ("nano", 32, 0),
}


def batch_shapes(task: str, side: int) -> dict[str, jax.ShapeDtypeStruct]:
  shapes = {"image": (BATCH, side, side, 3), "label": (BATCH, len(CLASSES)), "mask": (BATCH,)}
  if task == "detection":
    shapes |= {"boxes": (BATCH, FACES, 4), "label": (BATCH, FACES), "box_mask": (BATCH, FACES)}
  dtypes = {"mask": jnp.bool_, "box_mask": jnp.bool_}
  if task == "detection":
    dtypes["label"] = jnp.int32
  return {
    name: jax.ShapeDtypeStruct(shape, dtypes.get(name, jnp.float32))
    for name, shape in shapes.items()
  }


def traced_step(name: str, dtype: str):
  size, side, _ = NETWORKS[name]
  model = ferjax.create_model(name, num_classes=len(CLASSES), size=size, dtype=dtype)
  if name == "fer_yolo_mamba":
    task = DetectionTask(CLASSES)
  else:
    task = ClassificationTask(CLASSES, LossConfig(regularizer_weight=1.0))
  schedule = lambda step: jnp.float32(0.1)  # noqa: E731
  optimizer = make_optimizer(OptimizerConfig(name="sgd"), schedule)
  step = make_train_step(model, task, optimizer, schedule, TrainConfig(ema_decay=0.0))

  def fresh(key):
    return create_state(init_variables(model, key, side), optimizer, ema=False)

  key = jax.random.key(0)
  return jax.jit(step).trace(jax.eval_shape(fresh, key), batch_shapes(task.name, side), key)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_steps_lower_for_accelerators(name, dtype):
  lowered = traced_step(name, dtype).lower(lowering_platforms=("cuda", "tpu"))
  text = lowered.as_text()
  operations = collections.Counter(re.findall(r"stablehlo\.(\w+)", text))
  assert operations["gather"] == NETWORKS[name][2]
  assert "f64" not in text
  assert "callback" not in text
  products = re.findall(r"stablehlo\.(?:dot_general|convolution)\(?.*-> tensor<\S*x(\w+)>", text)
  assert set(products) == ({"f32"} if dtype == "float32" else {"f32", "bf16"})
