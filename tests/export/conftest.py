"""Small networks of every kind, in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ferjax
from ferjax.models import emonext
from ferjax.trained import TrainedNetwork
from ferjax.training.state import init_variables

# Network -> size, task, side of the image.
NETWORKS = {
  "fer_yolo_mamba": ("nano", "detection", 64),
  "emonext": ("mini", "classification", 32),
  "fermam": ("nano", "classification", 64),
}
CLASSES = ["happiness", "anger", "surprise"]


class Network(TrainedNetwork):
  """A trained network in memory."""

  def __init__(self, meta, values):
    self.name, self.meta, self._values = "random", meta, values

  @property
  def settings(self):
    return self.meta["settings"]

  def variables(self):
    return self._values


@pytest.fixture(scope="module")
def network(random_values):
  """Makes networks with random weights, which half precision holds exactly."""
  patch = pytest.MonkeyPatch()
  patch.setitem(emonext.SIZES, "mini", emonext.Size((1, 1), (16, 32)))
  patch.setitem(emonext.CHOICES, "size", tuple(emonext.SIZES))

  def make(name, variant="corrected", **change):
    size, task, side = NETWORKS[name]
    arguments = {"name": name, "size": size, "variant": variant, "dtype": "float32"}
    model = ferjax.create_model(num_classes=len(CLASSES), **arguments)
    shapes = jax.eval_shape(lambda key: init_variables(model, key, side), jax.random.key(0))
    values = jax.tree.map(
      lambda x: jnp.asarray(np.asarray(x, np.float16), jnp.float32), random_values(shapes)
    )
    meta = {
      "model": arguments,
      "task": task,
      "class_names": CLASSES,
      "image_size": side,
      "mean": [0.5, 0.4, 0.3],
      "std": [0.25, 0.3, 0.2],
      "grey": False,
      "resize": 0 if task == "detection" else side + 8,
      "class_prior": [0.5, 0.3, 0.2],
      "settings": (
        {"score_threshold": 0.4} if task == "detection" else {"flip": True, "temperature": 0.5}
      ),
      "metrics": {},
      "selection": "",
      "step": 3,
      "epoch": 1.0,
      "versions": {"ferjax": ferjax.__version__},
    }
    return Network(meta | change, values)

  yield make
  patch.undo()
