"""Programs of `jax.export` in an archive."""

import json
import sys
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict
from jax import export

import ferjax
from ferjax.export import ExportOptions, export_network, load_exported


@pytest.fixture(scope="module")
def classifier(network):
  return network("emonext")


@pytest.fixture(scope="module")
def files(classifier, tmp_path_factory):
  """Where the parameters are -> the file."""
  folder, found = tmp_path_factory.mktemp("programs"), {}
  for parameters in ("inside", "arguments"):
    found[parameters] = folder / f"{parameters}.stablehlo"
    options = ExportOptions(parameters=parameters)
    export_network(classifier, "stablehlo", found[parameters], options=options)
  return found


def _members(file):
  with zipfile.ZipFile(file) as archive:
    return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("parameters", ["inside", "arguments"])
def test_one_file_for_all_platforms_and_batches(files, classifier, parameters):
  members = _members(files[parameters])
  description = json.loads(members["description.json"])
  for field in ("class_names", "image_size", "mean", "std", "grey", "resize", "step"):
    assert description[field] == classifier.meta[field], field
  assert (description["kind"], description["parameters"]) == ("stablehlo", parameters)
  assert description["settings"] == {
    "flip": True,
    "logit_adjustment": 0.0,
    "temperature": 0.5,
  }
  assert description["versions"] == {"ferjax": ferjax.__version__, "jax": jax.__version__}
  program = export.deserialize(bytearray(members["program.jax"]))
  assert program.platforms == ("cpu", "cuda", "tpu")
  assert str(program.in_avals[-1].shape) == "(b, 32, 32, 3)"
  variables = flatten_dict(classifier.variables(), sep="/")
  assert len(program.in_avals) == 1 + (len(variables) if parameters == "arguments" else 0)
  assert ("variables.safetensors" in members) == (parameters == "arguments")
  if parameters == "arguments":
    stored = safetensors.numpy.load(members["variables.safetensors"])
    assert stored.keys() == variables.keys()
    for name, value in variables.items():
      np.testing.assert_array_equal(stored[name], value, err_msg=name)


@pytest.mark.slow  # 2 s: compiles both programs
def test_parameters_as_arguments_answer_alike(files, monkeypatch):
  """Also where the source of the network is missing."""
  monkeypatch.setitem(sys.modules, "ferjax.models.emonext", None)
  image = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
  scores = []
  for file in files.values():
    (prediction,) = load_exported(file, batch_size=1).predict([image])
    scores.append(list(prediction.faces[0].scores.values()))
  np.testing.assert_allclose(*scores, atol=1e-6)
  np.testing.assert_allclose(sum(scores[0]), 1, rtol=1e-5)
