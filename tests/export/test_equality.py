"""From image files to named boxes and scores, every format answers like JAX."""

import numpy as np
import pytest
from PIL import Image

import ferjax
from ferjax.export import export_network, load_exported
from ferjax.weights import save_weights

# The first batch is of one image, the second of five.
BATCHES = (1, 5)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  rng = np.random.default_rng(3)
  folder = tmp_path_factory.mktemp("images")
  paths = [folder / f"{i}.png" for i in range(5)]
  for path, size in zip(paths, [(64, 64), (50, 90), (90, 41), (33, 64), (128, 96)], strict=True):
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
  return paths


# A detector takes ten times as long to compile as the small EmoNeXt; `test_onnx_parts.py` has its
# parts.
SLOW = [("fermam", "released"), ("fer_yolo_mamba", "corrected"), ("fer_yolo_mamba", "released")]
QUICK = [("emonext", "corrected"), ("emonext", "released"), ("fermam", "corrected")]


@pytest.mark.parametrize(
  ("name", "variant"), QUICK + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]
)
def test_all_formats_answer_like_jax(name, variant, network, files, tmp_path, check_same_faces):
  trained = network(name, variant)
  expected = ferjax.load_predictor(trained, batch_size=5).predict(files)
  if trained.meta["task"] == "detection":
    assert min(len(prediction.faces) for prediction in expected) > 0

  save_weights(trained, tmp_path / "weights.safetensors")
  for format, suffix in (("stablehlo", "stablehlo"), ("onnx", "onnx")):
    export_network(trained, format, tmp_path / f"program.{suffix}")
  for size in BATCHES:
    predictors = [
      ferjax.load_predictor(tmp_path / "weights.safetensors", batch_size=size),
      load_exported(tmp_path / "program.stablehlo", batch_size=size),
      load_exported(tmp_path / "program.onnx", batch_size=size),
    ]
    for predictor in predictors:
      found = predictor.predict(files[:size])
      for prediction, other in zip(found, expected, strict=False):
        assert (prediction.image, prediction.width, prediction.height) == (
          other.image,
          other.width,
          other.height,
        )
        check_same_faces(prediction.faces, other.faces, 0.4)
