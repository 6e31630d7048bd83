"""The training program of every network lowers for GPUs and TPUs on a machine without either."""

import re

import jax
import jax.numpy as jnp
import pytest

import ferjax
from ferjax.config import LossConfig
from ferjax.models import emonext
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.tasks.detection.task import DetectionTask
from ferjax.training.state import init_variables

CLASSES = ("neutral", "happiness", "anger")
BATCH, FACES, SIDE = 2, 4, 32
# Network -> size, gathers. EmoNeXt samples its image at predicted points: one function for four
# corners. The detector's assignment takes rows of costs, overlaps, boxes and labels.
NETWORKS = {"emonext": ("mini", 1), "fermam": ("nano", 0), "fer_yolo_mamba": ("tiny", 6)}


def of_shape(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct((BATCH, *shape), dtype)


def traced_gradient(name: str, dtype: str):
  """The gradient of the loss in training mode, which contains the forward pass."""
  size, _ = NETWORKS[name]
  model = ferjax.create_model(name, num_classes=len(CLASSES), size=size, dtype=dtype)
  batch = {"image": of_shape(SIDE, SIDE, 3), "mask": of_shape(dtype=jnp.bool_)}
  if name == "fer_yolo_mamba":
    task = DetectionTask(CLASSES)
    batch["boxes"] = of_shape(FACES, 4)
    batch["label"] = of_shape(FACES, dtype=jnp.int32)
    batch["box_mask"] = of_shape(FACES, dtype=jnp.bool_)
  else:
    task = ClassificationTask(CLASSES, LossConfig(regularizer_weight=1.0))
    batch["label"] = of_shape(len(CLASSES))

  def loss_fn(params, batch_stats, batch, key):
    output, updates = model.apply(
      {"params": params, "batch_stats": batch_stats},
      batch["image"],
      train=True,
      mutable=["batch_stats"],
      rngs={"dropout": key},
    )
    return task.loss(output, batch).total, updates

  key = jax.random.key(0)
  variables = jax.eval_shape(lambda key: init_variables(model, key, SIDE), key)
  gradient = jax.jit(jax.grad(loss_fn, has_aux=True))
  return gradient.trace(variables["params"], variables["batch_stats"], batch, key)


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_lowers_for_accelerators(name, dtype, monkeypatch):
  monkeypatch.setitem(emonext.SIZES, "mini", emonext.Size((1, 1), (16, 32)))
  monkeypatch.setitem(emonext.CHOICES, "size", tuple(emonext.SIZES))
  traced = traced_gradient(name, dtype)
  for platform in ("cuda", "tpu"):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count('"stablehlo.gather"(') == NETWORKS[name][1]
    assert "xf64>" not in text
    assert "callback" not in text
    results = re.findall(r"stablehlo\.(?:dot_general|convolution).*-> tensor<\w*x(\w+)>", text)
    assert set(results) == ({"f32"} if dtype == "float32" else {"f32", "bf16"})
