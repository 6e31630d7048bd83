import json

import numpy as np
import pytest

from ferjax import __version__
from ferjax.weights import open_weights, save_weights


def test_the_description(saved):
  meta = open_weights(saved).meta
  assert len(meta.pop("sha256")) == 64
  assert meta == {
    "format": 1,
    "name": "own",
    "model": {"name": "emonext", "size": "atto"},
    "task": "classification",
    "class_names": ["a", "b"],
    "image_size": 32,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.2, 0.1],
    "grey": True,
    "resize": 40,
    "class_prior": [0.75, 0.25],
    "settings": {},
    "data": "two photographs",
    "licence": "CC0",
    "metrics": {"validation": {"accuracy": 0.75}},
    "selection": "",
    "step": 7,
    "epoch": 1.5,
    "versions": {"ferjax": __version__},
  }


def test_the_description_is_changed_and_the_rest_kept(saved, tmp_path):
  before = open_weights(saved)
  metrics = {"london": {"accuracy": 0.5, "loss": float("inf")}, "none": {"loss": float("nan")}}
  settings = {"crop_margin": (0.1, 0.3, 0.1, 0.0)}
  after = save_weights(saved, saved, name="other", metrics=metrics, settings=settings)
  changed = {name for name, value in after.meta.items() if before.meta.get(name) != value}
  assert changed == {"name", "metrics", "settings", "sha256"}
  assert after.meta["metrics"] == {
    "validation": {"accuracy": 0.75},
    "london": {"accuracy": 0.5},
  }
  assert after.settings == {"crop_margin": [0.1, 0.3, 0.1, 0.0]}
  for name, value in before.tensors.items():
    np.testing.assert_array_equal(after.tensors[name], value)
  assert [path.name for path in tmp_path.iterdir()] == ["own.safetensors"]


def test_a_checkpoint(checkpoint, tmp_path):
  weights = save_weights(checkpoint, tmp_path / "a.safetensors", step=5)
  opened = open_weights(checkpoint)
  assert weights.step == 5
  assert weights.meta["metrics"] == {"validation": {"accuracy": 0.75}}
  for field in ("model", "task", "image_size", "resize", "grey", "class_prior"):
    assert weights.meta[field] == opened.meta[field]
  expected = opened.variables()["params"]["head"]["kernel"]
  found = weights.variables()["params"]["head"]["kernel"]
  np.testing.assert_allclose(found, expected, rtol=2**-11)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"score_threshold": 0.5}, "score_threshold is 0.5, but does not apply to a model for classif"),
    ({"crop_margin": 2.0}, "crop_margin is 2.0; expected one number, or four"),
  ],
)
def test_wrong_settings(network, tmp_path, settings, message):
  with pytest.raises(ValueError, match=message):
    save_weights(network(), tmp_path / "a.safetensors", settings=settings)
  detector = network(task="detection")
  with pytest.raises(ValueError, match=r"iou_threshold is 1\.5; expected 0\.\.1"):
    save_weights(detector, tmp_path / "a.safetensors", settings={"iou_threshold": 1.5})
  assert not list(tmp_path.iterdir())


def test_another_suffix(network, tmp_path):
  with pytest.raises(ValueError, match=r"a\.npz'; expected a name that ends in \.safetensors"):
    save_weights(network(), tmp_path / "a.npz")


def test_values_that_are_not_finite(network, tmp_path):
  broken = network()
  broken.values["params"]["head"]["bias"] = np.float32([0, np.nan])
  with pytest.raises(ValueError, match="the variable params/head/bias has values that are not fin"):
    save_weights(broken, tmp_path / "a.safetensors")


def test_a_file_that_cannot_be_written_leaves_nothing(network, tmp_path):
  (tmp_path / "a.safetensors").mkdir()
  with pytest.raises(OSError, match="directory"):
    save_weights(network(), tmp_path / "a.safetensors")
  assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_description_is_json(saved):
  """Other programs read it: strict JSON, without NaN."""
  size = int.from_bytes(saved.read_bytes()[:8], "little")
  header = json.loads(saved.read_bytes()[8 : 8 + size])

  def fail(constant):
    raise AssertionError(constant)

  json.loads(header["__metadata__"]["ferjax"], parse_constant=fail)
