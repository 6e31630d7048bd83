import re
import shutil

import chex
import pytest

import ferjax
from ferjax.checkpoint import Checkpoint, open_checkpoint
from ferjax.weights import WeightsFile, open_weights


def test_it_is_a_public_name(saved):
  chex.assert_trees_all_equal(ferjax.load_variables(saved), open_weights(saved).variables())


def test_a_name_a_file_a_folder_and_an_open_one(own_weights, saved, checkpoint):
  weights = open_weights("own")
  assert isinstance(weights, WeightsFile)
  assert weights.name == "own"
  from_file = open_weights(saved)
  assert from_file.name == str(saved)
  assert from_file.meta == weights.meta
  assert open_weights(weights) is weights
  opened = open_weights(checkpoint)
  assert isinstance(opened, Checkpoint)
  assert open_weights(opened) is opened
  chex.assert_trees_all_equal(
    ferjax.load_variables(str(checkpoint)), open_checkpoint(opened).variables()
  )


def test_a_name_is_never_a_path(own_weights, checkpoint, tmp_path, monkeypatch):
  shutil.copytree(checkpoint, tmp_path / "own")
  monkeypatch.chdir(tmp_path)
  with pytest.warns(UserWarning, match=re.escape("'./own' is the one that exists here")):
    assert open_weights("own").name == "own"
  assert open_weights("./own").step == 5


def test_an_unknown_name(own_weights, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  message = (
    r"'owm' is not the name of known weights \(.*own.*\), and there is no such folder: .*/owm"
  )
  with pytest.raises(FileNotFoundError, match=message):
    open_weights("owm")


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("a.onnx", "is an exported program, not weights; run it with `ferjax predict --exported "),
    ("a.stablehlo", "is an exported program, not weights"),
    ("a.pth", r"a checkpoint of it with `ferjax weights import MODEL \S*a.pth --out DIR`"),
    ("a.pth.tar", "has the names of another program"),
    ("a.npz", "has the names of another program"),
  ],
)
def test_files_of_other_kinds(tmp_path, name, message):
  (tmp_path / name).touch()
  with pytest.raises(ValueError, match=message):
    open_weights(tmp_path / name)


@pytest.mark.parametrize("source", ["own", "own.safetensors"])
def test_weights_have_one_step(own_weights, monkeypatch, source):
  monkeypatch.chdir(own_weights)
  with pytest.raises(ValueError, match="has the weights of one step; remove step 3"):
    open_weights(source, step=3)


def test_the_network_of_another_version(network, tmp_path):
  other = network(model={"name": "emonext", "new_option": 3})
  weights = ferjax.weights.save_weights(other, tmp_path / "new.safetensors")
  with pytest.raises(
    ValueError, match=rf"written by ferjax {re.escape(ferjax.__version__)}.*new_option"
  ):
    weights.build_model(ferjax.create_model)
  with pytest.raises(ValueError, match="for the task 'classification'; expected 'detection'"):
    weights.check_task("detection")
