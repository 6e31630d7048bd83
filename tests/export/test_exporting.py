"""Bad input of exports: one message with the way out, and no half-written file."""

import json
import sys
import zipfile

import pytest

from ferjax.commands.main import main
from ferjax.export import ExportOptions, export_network, load_exported
from ferjax.export.description import FORMAT, describe, read_description


@pytest.fixture(scope="module")
def classifier(network):
  return network("emonext")


@pytest.mark.parametrize(
  ("format", "name", "options", "message"),
  [
    (
      "tflite",
      "a.tflite",
      {},
      "the format is 'tflite'; known: stablehlo, onnx, safetensors, torch",
    ),
    ("onnx", "a.pb", {}, r"'.*a.pb'; expected a name that ends in .onnx"),
    ("stablehlo", "a.stablehlo", {"raw": True}, "raw is True, but does not apply .* to onnx"),
    ("stablehlo", "a.stablehlo", {"parameters": "outside"}, "expected inside or arguments"),
    ("stablehlo", "a.stablehlo", {"iou_threshold": 0.5}, "iou_threshold is 0.5, but random is for"),
    ("onnx", "a.onnx", {"raw": True, "flip": True}, "flip is True, but does not apply to raw"),
    ("onnx", "a.onnx", {"logit_adjustment": float("inf")}, "expected a finite number"),
  ],
)
def test_wrong_arguments(classifier, tmp_path, format, name, options, message):
  with pytest.raises(ValueError, match=message):
    export_network(classifier, format, tmp_path / name, options=ExportOptions(**options))
  assert list(tmp_path.iterdir()) == []


def test_a_network_without_translation_leaves_the_old_file(classifier, tmp_path, monkeypatch):
  from ferjax.export.onnx import translate

  monkeypatch.delitem(translate.HANDLERS, "logistic")
  (tmp_path / "a.onnx").write_text("old")
  with pytest.raises(ValueError, match="no translation of JAX's operation logistic"):
    export_network(classifier, "onnx", tmp_path / "a.onnx")
  assert [(x.name, x.read_text()) for x in tmp_path.iterdir()] == [("a.onnx", "old")]


def test_a_missing_library(classifier, tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "onnxruntime", None)
  with pytest.raises(ImportError, match=r"onnxruntime, .*pip install 'ferjax\[onnx\]'"):
    export_network(classifier, "onnx", tmp_path / "a.onnx")
  (tmp_path / "b.onnx").write_bytes(b"")
  with pytest.raises(ImportError, match=r"pip install 'ferjax\[onnx\]'"):
    load_exported(tmp_path / "b.onnx")


def _archive(path, description):
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("description.json", json.dumps(description))


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.stablehlo", b"\x89PNG", "a.stablehlo is damaged: it is no complete zip archive"),
    ("a.onnx", b"\x89PNG, not a model", "a.onnx is damaged: onnxruntime cannot load it"),
    ("a.onnx", b"", "a.onnx is damaged|no description"),
    ("a.safetensors", b"", "is no exported program; .* ends in .stablehlo or .onnx"),
  ],
)
def test_other_bytes_under_the_suffix(tmp_path, name, content, message, capsys):
  file = tmp_path / name
  file.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    load_exported(file)


def test_files_of_other_versions(classifier, tmp_path):
  file = tmp_path / "a.stablehlo"
  description = describe(classifier, "stablehlo")
  _archive(file, description)
  with pytest.raises(ValueError, match=r"damaged: it has no program.jax"):
    load_exported(file)
  _archive(file, description | {"format": FORMAT + 1, "versions": {"ferjax": "9.0"}})
  with pytest.raises(ValueError, match=r"written by ferjax 9.0, .* reads formats up to"):
    load_exported(file)
  for change, message in ((b"{", "not JSON"), (b"[]", "no format"), (None, "no description")):
    with pytest.raises(ValueError, match=message):
      read_description(change, "a")
  del description["settings"]
  with pytest.raises(ValueError, match="lacks settings"):
    read_description(json.dumps(description), "a")


def test_the_command(tmp_path, capsys):
  out = str(tmp_path / "new" / "a.stablehlo")
  assert main(["export", "unknown", "--format", "stablehlo", "--out", out]) == 2
  assert "'unknown' is not the name of known weights" in capsys.readouterr().err
  image = tmp_path / "a.png"
  image.write_bytes(b"")
  arguments = [str(image), "--exported", out, "--output", str(tmp_path / "out")]
  assert main(["predict", *arguments]) == 2
  assert "no such file; `ferjax export` writes" in capsys.readouterr().err
  assert main(["predict", *arguments, "--flip"]) == 2
  assert "--flip does not apply to --exported" in capsys.readouterr().err
