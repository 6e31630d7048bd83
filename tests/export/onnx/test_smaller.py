"""Tests smaller ONNX files, and what is said about their losses."""

import csv
import json
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.export import ExportOptions, export_network, load_exported
from ferjax.export.onnx.losses import (
  agreement,
  evaluate,
  labelled_drawings,
  latencies,
  open_labelled,
)
from ferjax.export.onnx.quantization import quantize
from ferjax.export.onnx.smaller import labelled_data, make_smaller
from ferjax.export.options import QUANTIZE

CLASSES = ["happiness", "anger", "surprise"]


@pytest.fixture(scope="module")
def classifier(network):
  return network("emonext")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """A folder of faces, and a table of their labels."""
  folder = tmp_path_factory.mktemp("faces")
  faces = SyntheticFaces(12, image_size=40, seed=1, class_names=CLASSES)
  with (folder / "labels.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["image", "label", "split"])
    for i in range(len(faces)):
      Image.fromarray(faces[i]["image"]).save(folder / f"{i}.png")
      label = CLASSES[np.argmax(faces[i]["label"])]
      table.writerow([f"{i}.png", label, "test" if i < 4 else "val"])
  return folder


@pytest.fixture(scope="module")
def files(classifier, data, tmp_path_factory):
  """Kind -> file and the lines about it; "" is float32."""
  folder = tmp_path_factory.mktemp("files")
  full = folder / "program.onnx"
  written = {"": (full, export_network(classifier, "onnx", full))}
  for kind in QUANTIZE:
    options = ExportOptions(quantize=kind, images=(str(data),), data_set=str(data / "labels.csv"))
    file = folder / f"{kind}.onnx"
    if kind == "static":  # the whole way; the others from the same file, which is faster
      text = export_network(classifier, "onnx", file, options=options)
    else:
      file.write_bytes(full.read_bytes())
      text = make_smaller(file, classifier, options, labelled_data(classifier, options))
    written[kind] = file, text
  return written


def _scores(file, images):
  predictions = load_exported(file, batch_size=1).predict(images)
  return np.array([list(prediction.faces[0].scores.values()) for prediction in predictions])


@pytest.mark.parametrize(
  ("kind", "share", "tolerance"),
  [("float16", 0.85, 5e-3), ("dynamic", 0.7, 0.2), ("static", 0.7, 0.2)],
)
def test_smaller_files_answer_nearly_alike(files, data, kind, share, tolerance):
  images = [data / f"{i}.png" for i in range(12)]
  (full, _), (smaller, text) = files[""], files[kind]
  assert smaller.stat().st_size < share * full.stat().st_size
  difference = np.abs(_scores(smaller, images) - _scores(full, images)).max()
  assert 0 < difference < tolerance
  model = onnxruntime.InferenceSession(str(smaller), providers=["CPUExecutionProvider"])
  description = json.loads(model.get_modelmeta().custom_metadata_map["ferjax"])
  quantization = description["quantization"]
  assert (quantization["kind"], quantization["images"]) == (kind, "12 images")
  same = quantization["agreement"]
  assert (same["faces"], same["found"], same["additional"]) == (12, 12, 0)
  np.testing.assert_allclose(same["largest_difference"], difference, atol=1e-6)
  agree = np.mean(_scores(smaller, images).argmax(axis=1) == _scores(full, images).argmax(axis=1))
  assert same["same_expression"] == agree >= 0.75
  predicted = _scores(full, images).argmax(axis=1)
  with (data / "labels.csv").open() as file:
    truth = {row["image"]: CLASSES.index(row["label"]) for row in csv.DictReader(file)}
  hits = [truth[f"{i}.png"] == predicted[i] for i in range(4, 12)]
  np.testing.assert_allclose(quantization["float32_accuracy"]["accuracy"], np.mean(hits))
  assert quantization["data_set"] == "labels.csv"
  for part in (
    f"{kind} in place of float32: ",
    " MB instead of ",
    "12 of 12",
    "labels.csv: ",
  ):
    assert part in text


def test_without_a_data_set_accuracy_is_that_on_drawings(files, classifier, tmp_path):
  file = tmp_path / "program.onnx"
  file.write_bytes(files[""][0].read_bytes())
  options = ExportOptions(quantize="float16")
  text = make_smaller(file, classifier, options, labelled_data(classifier, options))
  drawings = SyntheticFaces(32, image_size=32, seed=1, class_names=CLASSES)
  predicted = _scores(files[""][0], [drawings[i]["image"] for i in range(32)]).argmax(axis=1)
  hits = [drawings[i]["label"].argmax() == label for i, label in enumerate(predicted)]
  assert "\n32 labelled drawings: accuracy 0." in text
  assert f" instead of {np.mean(hits):.4f}, balanced_accuracy 0." in text
  assert labelled_data(classifier, ExportOptions()) is None
  assert labelled_drawings("classification", ["happiness", "boredom"], 32) is None


def _model():
  """Two products with constants, and one of two inputs."""
  helper, number = onnx.helper, onnx.TensorProto.FLOAT
  rng = np.random.default_rng(0)
  kernels = {"k": (8, 8), "l": (8, 4)}
  values = {name: rng.normal(size=x).astype(np.float32) for name, x in kernels.items()}
  nodes = [
    helper.make_node("MatMul", ["x", "k"], ["y"], name="first"),
    helper.make_node("Relu", ["y"], ["z"], name="relu"),
    helper.make_node("MatMul", ["z", "l"], ["out"], name="last"),
  ]
  graph = helper.make_graph(
    nodes,
    "graph",
    [helper.make_tensor_value_info("x", number, ["b", 8])],
    [helper.make_tensor_value_info("out", number, ["b", 4])],
    [onnx.numpy_helper.from_array(x, name) for name, x in values.items()],
  )
  opset = [helper.make_opsetid("", 18)]
  return helper.make_model(graph, opset_imports=opset, ir_version=10), values


def test_float16_rounds_the_kernels_only():
  model, values = _model()
  x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
  smaller = quantize(model, "float16", [])
  session = onnxruntime.InferenceSession(smaller.SerializeToString())
  k, last = (values[name].astype(np.float16).astype(np.float32) for name in ("k", "l"))
  np.testing.assert_allclose(
    np.asarray(session.run(["out"], {"x": x})[0]), np.maximum(x @ k, 0) @ last, rtol=1e-5, atol=1e-5
  )
  assert {t.data_type for t in model.graph.initializer} == {onnx.TensorProto.FLOAT}
  # A kernel that float16 cannot hold stays.
  large = onnx.numpy_helper.from_array(values["k"] * 1e5, "k")
  model.graph.initializer[0].CopyFrom(large)
  kept = {t.name: t.data_type for t in quantize(model, "float16", []).graph.initializer}
  assert kept == {"k": onnx.TensorProto.FLOAT, "l_float16": onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_the_last_layer_stays_in_float32(kind):
  model, values = _model()
  feeds = [{"x": np.random.default_rng(i).normal(size=(1, 8)).astype(np.float32)} for i in range(4)]
  smaller = quantize(model, kind, feeds)
  kernels = {t.name: t for t in smaller.graph.initializer}
  np.testing.assert_array_equal(onnx.numpy_helper.to_array(kernels["l"]), values["l"])
  assert "k" not in kernels
  assert [node.name for node in smaller.graph.node if "l" in node.input] == ["last"]


def test_latencies_are_of_each_model():
  model, _ = _model()
  times = latencies(
    [model.SerializeToString()] * 2, {"x": np.zeros((1, 8), np.float32)}, seconds=0.0
  )
  assert len(times) == 2
  assert min(times) > 0


class Labelled(list):
  """Photographs with boxes."""

  task = "detection"
  class_names = tuple(CLASSES)
  skipped: ClassVar = []

  def origin(self, index):
    return str(index)


def test_agreement_and_accuracy_of_a_detector():
  """Against what follows from the boxes by hand."""
  from ferjax.export.exported_file import ExportedFile

  description: Any = {
    "task": "detection",
    "class_names": CLASSES,
    "image_size": 32,
    "grey": False,
    "step": 1,
    "settings": {"score_threshold": 0.3, "iou_threshold": 0.3, "max_detections": 2},
  }

  def file(boxes, class_scores):
    boxes, scores = np.array([boxes], np.float32), np.array([class_scores], np.float32)
    best = scores.max(axis=2)
    found = {"boxes": boxes, "scores": best, "labels": scores.argmax(axis=2).astype(np.int32)}
    found |= {"class_scores": scores}

    def call(images, placements, score_threshold, iou_threshold):
      rows = {name: np.repeat(x, len(images), axis=0) for name, x in found.items()}
      return rows | {"mask": rows["scores"] >= score_threshold}

    return ExportedFile(description, call)

  full = file([[2, 2, 12, 12], [20, 20, 30, 30]], [[0.9, 0.1, 0], [0.1, 0.6, 0]])
  # The first face is found with another expression, the second is elsewhere.
  other = file([[2, 2, 12, 13], [0, 20, 10, 30]], [[0.4, 0.5, 0], [0.1, 0.6, 0]])
  images = [np.zeros((32, 32, 3), np.uint8)]
  same = agreement(full, full, images)
  assert same == {
    "faces": 2,
    "found": 2,
    "additional": 0,
    "same_expression": 1,
    "largest_difference": 0,
  }
  changed = agreement(other, full, images)
  assert (changed["found"], changed["additional"], changed["same_expression"]) == (1, 1, 0)
  np.testing.assert_allclose(changed["largest_difference"], 0.5, rtol=1e-6)
  truth = np.array([[2, 2, 12, 12], [20, 20, 30, 30]], np.float32)
  source: Any = Labelled([{"image": images[0], "boxes": truth, "label": np.array([0, 1])}])
  assert evaluate(full, source) == {"face_ap50": 1, "map50": 1}
  # The false box scores higher: precision 1/2 at the recall 1/2.
  assert evaluate(other, source) == {"face_ap50": 0.25, "map50": 0}


def test_a_split_of_a_table(data):
  table = str(data / "labels.csv")
  assert len(open_labelled(table, "test", "classification", CLASSES)) == 4
  with pytest.raises(ValueError, match="train"):
    open_labelled(table, "train", "classification", CLASSES)
  with pytest.raises(ValueError, match="is a table of faces, but the network is for detection"):
    open_labelled(table, "", "detection", CLASSES)
  with pytest.raises(ValueError, match="class 'anger' is not one of fear, disgust"):
    open_labelled(table, "", "classification", ["fear", "disgust"])


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"quantize": "int4"}, "quantize is 'int4'; expected one of float16, dynamic, static"),
    ({"quantize": "static", "raw": True}, "does not apply to raw outputs"),
    ({"data_set": "a.csv"}, "only for quantised files: add quantize"),
    ({"split": "val"}, "no data set is named: add data_set"),
    ({"quantize": "static", "data_set": "none.csv"}, "none.csv"),
    ({"quantize": "static", "data_set": "none"}, "none"),
  ],
)
def test_bad_input(classifier, tmp_path, options, message):
  with pytest.raises((ValueError, OSError), match=message) as caught:
    export_network(classifier, "onnx", tmp_path / "a.onnx", options=ExportOptions(**options))
  assert "\n" not in str(caught.value)
  assert list(tmp_path.iterdir()) == []


def test_no_readable_image_leaves_no_file(classifier, tmp_path):
  (tmp_path / "images").mkdir()
  out = tmp_path / "a.onnx"
  options = ExportOptions(quantize="static", images=(str(tmp_path / "images"),))
  with pytest.raises(ValueError, match="without an image; expected at least one"):
    export_network(classifier, "onnx", out, options=options)
  assert not out.exists()
