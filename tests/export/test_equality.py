"""From image files to named boxes and scores, every format answers like JAX."""

import numpy as np
import pytest
from PIL import Image

import ferjax
from ferjax.export import export_network, load_exported
from ferjax.weights import save_weights

# Seven programs are compiled for each network, which takes half a minute for a detector. The parts
# of all networks are in `onnx/test_translate.py` and `onnx/test_suppression.py`.
VARIANTS = ("corrected", "released")
QUICK = [("emonext", variant) for variant in VARIANTS]
SLOW = [(name, variant) for name in ("fermam", "fer_yolo_mamba") for variant in VARIANTS]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  rng = np.random.default_rng(3)
  folder = tmp_path_factory.mktemp("images")
  paths = [folder / f"{i}.png" for i in range(5)]
  for path, size in zip(paths, [(64, 64), (50, 90), (90, 41), (33, 64), (128, 96)], strict=True):
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
  return paths


@pytest.mark.parametrize(
  ("name", "variant"), QUICK + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]
)
def test_all_formats_answer_like_jax(
  name, variant, network, files, tmp_path, check_same_faces, check_same_face
):
  trained = network(name, variant)
  is_detector = trained.meta["task"] == "detection"
  expected = ferjax.load_predictor(trained, batch_size=5).predict(files)
  assert min(len(prediction.faces) for prediction in expected) > 0

  save_weights(trained, tmp_path / "weights.safetensors")
  weights = tmp_path / "weights.safetensors"
  predictors = [ferjax.load_predictor(weights, batch_size=size) for size in (1, 5)]
  for format in ("stablehlo", "onnx"):
    file = tmp_path / f"program.{format}"
    export_network(trained, format, file)
    _check_truncated(file)
    predictors += [load_exported(file, batch_size=size) for size in (1, 5)]
  for predictor in predictors:
    found = predictor.predict(files)
    for prediction, other in zip(found, expected, strict=True):
      size = prediction.width, prediction.height
      assert (prediction.image, *size) == (other.image, other.width, other.height)
      if is_detector:
        check_same_faces(prediction.faces, other.faces, trained.settings["score_threshold"])
      else:
        check_same_face(*prediction.faces, *other.faces)


def _check_truncated(file):
  data = file.read_bytes()
  cut = file.with_stem("cut")
  for size in (len(data) // 3, len(data) - 9):
    cut.write_bytes(data[:size])
    with pytest.raises(ValueError, match="Export it again"):
      load_exported(cut)
