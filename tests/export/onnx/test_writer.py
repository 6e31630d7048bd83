"""What an ONNX file contains, and what is refused when it is written or read."""

import json

import jax
import numpy as np
import onnx
import onnxruntime
import pytest

from ferjax.export import ExportOptions, export_network, load_exported
from ferjax.export.onnx.translate import HANDLERS
from ferjax.export.programs import candidates_program

STRIDES = (8, 16, 32)
PROVIDERS = ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def classifier(network):
  return network("emonext")


@pytest.fixture(scope="module")
def written(classifier, tmp_path_factory):
  file = tmp_path_factory.mktemp("written") / "program.onnx"
  return file, export_network(classifier, "onnx", file)


def test_the_description_is_inside(written, classifier):
  file, about = written
  assert about.startswith("largest difference from JAX on 4 drawings: ")
  model = onnx.load(str(file))
  (entry,) = model.metadata_props
  description = json.loads(entry.value)
  fields = ("class_names", "image_size", "mean", "std", "grey", "resize", "class_prior", "step")
  for field in fields:
    assert description[field] == classifier.meta[field], field
  assert (description["kind"], description["raw"]) == ("onnx", False)
  settings = {"flip": True, "logit_adjustment": 0.0, "temperature": 0.5}
  assert description["settings"] == settings
  assert description["inputs"].keys() == {x.name for x in model.graph.input} == {"image"}
  assert description["outputs"].keys() == {x.name for x in model.graph.output}
  assert description["versions"].keys() == {"ferjax", "jax", "onnx"}


def test_a_changed_weight_is_found(written, tmp_path):
  """The format has no checksum: onnxruntime takes this file, and answers otherwise."""
  file, _ = written
  model = file.read_bytes()
  arrays = [onnx.numpy_helper.to_array(x) for x in onnx.load(str(file)).graph.initializer]
  largest = max(arrays, key=np.size).tobytes()
  changed = tmp_path / "changed.onnx"
  changed.write_bytes(model.replace(largest, bytes(reversed(largest)), 1))
  onnxruntime.InferenceSession(str(changed), providers=PROVIDERS)
  with pytest.raises(ValueError, match=r"changed.onnx is damaged: .* checksum is another\. Export"):
    load_exported(changed)


def test_files_of_older_versions_have_no_checksum(written, tmp_path):
  file, _ = written
  model = onnx.load(str(file))
  description = json.loads(model.metadata_props[0].value)
  del description["sha256"]
  onnx.helper.set_model_props(model, {"ferjax": json.dumps(description)})
  onnx.save(model, str(tmp_path / "older.onnx"))
  assert load_exported(tmp_path / "older.onnx").class_names == tuple(description["class_names"])


def test_a_file_that_answers_otherwise_is_not_written(classifier, tmp_path, monkeypatch):
  monkeypatch.setitem(HANDLERS, "logistic", HANDLERS["tanh"])
  (tmp_path / "a.onnx").write_text("old")
  with pytest.raises(ValueError, match=r"differ from JAX's by .*, which is more than 1e-04"):
    export_network(classifier, "onnx", tmp_path / "a.onnx")
  assert [(x.name, x.read_text()) for x in tmp_path.iterdir()] == [("a.onnx", "old")]


def _run(file, image):
  """Name of each output -> array."""
  session = onnxruntime.InferenceSession(str(file), providers=PROVIDERS)
  names = [x.name for x in session.get_outputs()]
  return dict(zip(names, map(np.asarray, session.run(None, {"image": image})), strict=True))


def _images(trained):
  side = trained.meta["image_size"]
  return np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)


def test_logits(written, classifier, tmp_path):
  """The mean softmax of an image and its mirror image; the temperature 0.5 squares the ratios."""
  file, images = tmp_path / "raw.onnx", _images(classifier)
  export_network(classifier, "onnx", file, options=ExportOptions(raw=True))
  mean = np.zeros((3, 3))
  for view in (images, images[:, :, ::-1]):
    (logits,) = (x for name, x in _run(file, view).items() if name == "logits")
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    mean += exponents / exponents.sum(1, keepdims=True) / 2
  expected = mean**2 / (mean**2).sum(1, keepdims=True)
  np.testing.assert_allclose(_run(written[0], images)["probabilities"], expected, atol=1e-5)
  with pytest.raises(ValueError, match=r"raw.onnx has the outputs of the network.* without --raw"):
    load_exported(file)


@pytest.mark.slow  # 10 s: a detector is translated and compiled
def test_cells(network, tmp_path):
  """Decoded as docs/export.md says, they are the boxes of the task."""
  trained, file = network("fer_yolo_mamba"), tmp_path / "raw.onnx"
  export_network(trained, "onnx", file, options=ExportOptions(raw=True))
  images, side = _images(trained), trained.meta["image_size"]
  (cells,) = _run(file, images).values()
  placement = np.tile(np.float32([1, 1, 0, 0, side, side]), (len(images), 1))
  expected = jax.jit(candidates_program(trained))(trained.variables(), images, placement)
  start, decoded = 0, []
  for stride in STRIDES:
    n = side // stride
    row, column = np.divmod(np.arange(n * n), n)
    x, y, w, h = np.moveaxis(cells[:, start : start + n * n, :4], -1, 0)
    centre = np.stack([x + column, y + row], -1) * stride
    half = np.exp(np.stack([w, h], -1)) * stride / 2
    decoded.append(np.concatenate([centre - half, centre + half], -1))
    start += n * n
  assert cells.shape == (3, start, 5 + len(trained.meta["class_names"]))
  boxes = np.concatenate(decoded, axis=1)
  np.testing.assert_allclose(boxes, expected["input_boxes"], rtol=1e-3, atol=1e-2)
