"""Weights that do not fit the network of their description are an error for users."""

import jax
import numpy as np
import pytest
from PIL import Image

from ferjax.commands.main import main
from ferjax.inference.loading import load_predictor
from ferjax.trained import WeightsError
from ferjax.weights import open_weights, save_weights


@pytest.fixture
def misfit(classifier_checkpoint, tmp_path):
  """The weights file of a classifier whose kernels have one column too many."""

  class Wide(type(open_weights(classifier_checkpoint))):
    def variables(self):
      widen = lambda x: np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 1)]) if x.ndim > 1 else x  # noqa: E731
      return jax.tree.map(lambda x: widen(np.asarray(x)), super().variables())

  opened = open_weights(classifier_checkpoint)
  save_weights(Wide(opened.folder, opened.meta), tmp_path / "wide.safetensors")
  return tmp_path / "wide.safetensors"


def test_weights_that_do_not_fit(misfit, tmp_path, capsys):
  predictor = load_predictor(misfit)
  with pytest.raises(
    WeightsError, match=r"weights do not fit the network FERMam .* 32x32 pixels: "
  ):
    predictor.predict([np.zeros((8, 8, 3), np.uint8)])
  Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
  arguments = ["--checkpoint", str(misfit), "--output", str(tmp_path / "out")]
  assert main(["predict", str(tmp_path / "a.png"), *arguments]) == 2
  error = capsys.readouterr().err
  assert error.startswith("ferjax: error: the weights do not fit the network FERMam")
  assert error.count("\n") == 1
