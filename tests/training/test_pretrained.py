"""With a classifier of a few parameters, registered for these tests."""

import pathlib

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ferjax.config import Config, DataConfig, ModelConfig
from ferjax.trained import TrainedNetwork
from ferjax.training.pretrained import check_pretrained, read_pretrained, transfer
from ferjax.training.state import init_variables
from ferjax.weights import WeightsFile, save_weights

CLASSES = ("happiness", "anger", "surprise")
pytestmark = pytest.mark.usefixtures("small")


class Trained(TrainedNetwork):
  """The small classifier, with all values 0.5."""

  name = "trained"

  def __init__(self, variables):
    self.meta = {
      "model": {"name": "small", "dtype": "float32"},
      "task": "classification",
      "class_names": list(CLASSES),
      "image_size": 32,
      "mean": [0.485, 0.456, 0.406],
      "std": [0.229, 0.224, 0.225],
      "grey": True,
      "resize": 0,
      "class_prior": [],
      "selection": "",
      "step": 1,
      "epoch": 1.0,
      "metrics": {},
    }
    self.values = jax.tree.map(lambda x: np.full(x.shape, 0.5, np.float32), variables)

  def variables(self):
    return self.values


@pytest.fixture(scope="module")
def initial(small):
  """Variables of the network for a number of classes, as initialised."""
  return {k: init_variables(small(num_classes=k), jax.random.key(0), 32) for k in (2, 3)}


def _config(classes=CLASSES, **data):
  return Config(model=ModelConfig(name="small"), data=DataConfig(class_names=classes, **data))


def _used(variables):
  """The variables with the trained network's values."""
  return {"/".join(p) for p, x in flatten_dict(variables).items() if (np.asarray(x) == 0.5).all()}


HEAD = {"params/head/kernel", "params/head/bias"}


def _transfer(small, initial, classes, **data):
  variables = initial[len(classes)]
  model = small(num_classes=len(classes))
  return transfer(Trained(initial[3]), model, _config(classes, image_size=32, **data), variables)


def test_the_same_classes(small, initial):
  variables, lines = _transfer(small, initial, CLASSES, grey=True)
  assert _used(variables) == {"/".join(path) for path in flatten_dict(initial[3])}
  assert lines == ["pretrained weights trained: 7 variables used, 0 initialised anew, 0 ignored"]


def test_classes_keep_their_values_by_name(small, initial):
  """In another order, and beside a class that the weights do not know."""
  trained = Trained(initial[3])
  head = trained.values["params"]["head"]
  head["kernel"] = np.arange(head["kernel"].size, dtype=np.float32).reshape(head["kernel"].shape)
  head["bias"] = np.float32([10, 20, 30])
  classes = ("surprise", "happiness", "anger")
  config = _config(classes, image_size=32, grey=True)
  variables, lines = transfer(trained, small(num_classes=3), config, initial[3])
  found = variables["params"]["head"]
  np.testing.assert_array_equal(found["kernel"], head["kernel"][:, [2, 0, 1]])
  np.testing.assert_array_equal(found["bias"], [30, 10, 20])
  assert lines == ["pretrained weights trained: 7 variables used, 0 initialised anew, 0 ignored"]

  config = _config(("fear", "anger"), image_size=32, grey=True)
  variables, lines = transfer(trained, small(num_classes=2), config, initial[2])
  found, new = variables["params"]["head"], initial[2]["params"]["head"]
  expected = np.stack([new["kernel"][:, 0], head["kernel"][:, 1]], axis=1)
  np.testing.assert_array_equal(found["kernel"], expected)
  np.testing.assert_array_equal(found["bias"], [new["bias"][0], 20])
  assert lines == [
    "pretrained weights trained: 7 variables used, 0 initialised anew, 0 ignored",
    "initialised anew, because the weights do not know fear: their values in params/head/bias, "
    "params/head/kernel",
  ]


def test_the_head_of_unknown_classes_is_initialised_anew(small, initial):
  variables, lines = _transfer(small, initial, ("fear", "disgust"), grey=True)
  assert _used(variables) == {"/".join(path) for path in flatten_dict(initial[3])} - HEAD
  for name in ("kernel", "bias"):
    expected = initial[2]["params"]["head"][name]
    np.testing.assert_array_equal(variables["params"]["head"][name], expected)
  assert lines == [
    "pretrained weights trained: 5 variables used, 2 initialised anew, 0 ignored",
    "initialised anew, because the weights do not know fear, disgust: their values in "
    "params/head/bias, params/head/kernel",
  ]


def test_variables_of_another_shape_and_unknown_ones(small, initial):
  trained = Trained(initial[3])
  params = trained.values["params"]
  params["backbone"]["conv"]["kernel"] = np.full((2, 2, 3, 4), 0.5, np.float32)
  params["tail"] = {"bias": np.zeros(2, np.float32)}
  variables, lines = transfer(trained, small(num_classes=3), _config(grey=True), initial[3])
  assert variables["params"].keys() == {"backbone", "head"}
  assert "params/backbone/conv/kernel" not in _used(variables)
  assert lines[0].endswith("6 variables used, 1 initialised anew, 1 ignored")
  assert lines[1] == "initialised anew, because their shape differs: params/backbone/conv/kernel"


def test_another_input_is_reported(small, initial):
  _, lines = _transfer(small, initial, CLASSES, grey=False, mean=(0.5, 0.5, 0.5))
  assert lines[1:] == [
    "pretrained weights: data.mean was [0.485, 0.456, 0.406] in their training, now "
    "[0.5, 0.5, 0.5]",
    "pretrained weights: data.grey was True in their training, now False",
  ]


def test_random_values_of_an_import_are_reported(small, initial):
  trained = Trained(initial[3])
  trained.meta["initialised"] = ["head"]
  _, lines = transfer(trained, small(num_classes=3), _config(grey=True), initial[3])
  assert lines[1] == "pretrained weights: random values in head, as imported"


@pytest.mark.parametrize(("field", "value"), [("name", "fermam"), ("size", "nano")])
def test_another_network(small, initial, field, value):
  trained = Trained(initial[3])
  trained.meta["model"][field] = value
  message = rf"is trained, a network with the {field} '{value}', but model\.{field} is"
  with pytest.raises(ValueError, match=message):
    transfer(trained, small(num_classes=3), _config(), initial[3])


def test_names_files_and_folders(initial, tmp_path, monkeypatch):
  monkeypatch.setenv("FERJAX_WEIGHTS", str(tmp_path))
  save_weights(Trained(initial[3]), tmp_path / "own.safetensors")
  np.savez(tmp_path / "released.npz", x=np.ones(2))
  for pretrained in ("own", str(tmp_path / "own.safetensors")):
    check_pretrained("small", pretrained)  # the network can import no released files
    assert isinstance(read_pretrained(pretrained), WeightsFile)
  released = read_pretrained(str(tmp_path / "released.npz"))
  assert released[""]["x"].tolist() == [1, 1]
  with pytest.raises(ValueError, match="names one file, which small cannot import"):
    check_pretrained("small", "released.npz")
  assert read_pretrained("") == {}
  with pytest.raises(FileNotFoundError, match=r"'onw' is not the name of known weights \(.*own"):
    read_pretrained("onw")
  with pytest.raises(FileNotFoundError, match=f"no checkpoint in {pathlib.Path(tmp_path)}"):
    read_pretrained(str(tmp_path))
