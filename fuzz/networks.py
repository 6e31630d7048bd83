"""Files of trained networks: weights, their descriptions, exported programs and state dicts."""

import functools
import io
import json
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import export

import ferjax
from ferjax.checkpoint.meta import read_meta
from ferjax.config import Config
from ferjax.export.onnx.reader import open_model
from ferjax.export.predictors import ExportedClassifier, ExportedDetector
from ferjax.export.stablehlo import read
from ferjax.inference.loading import load_predictor
from ferjax.interop.state_dict_files import read_state_dict
from ferjax.training.config_checks import from_dict, to_dict, validate
from ferjax.weights.file import has_description, read_weights, write_weights
from fuzz.checks import folder, user_errors

_LISTED = 60  # lines of a message about a config, which names every wrong field
_VARIABLES = {"params": {"head": {"kernel": np.ones((2, 3), np.float32)}}}
_META = {
  "model": {"name": "fermam", "size": "nano", "variant": "corrected", "dtype": "float32"},
  "task": "classification",
  "class_names": ["happiness", "anger", "fear"],
  "image_size": 32,
  "mean": [0.5, 0.4, 0.3],
  "std": [0.25, 0.3, 0.2],
  "grey": False,
  "resize": 40,
  "class_prior": [0.5, 0.25, 0.25],
  "selection": "",
  "step": 5,
  "epoch": 1.0,
  "versions": {"ferjax": ferjax.__version__},
}
_WEIGHTS = {
  **_META,
  "format": 1,
  "name": "own",
  "settings": {"flip": True, "crop_margin": [0.1, 0.3, 0.1, 0.0]},
  "data": "faces",
  "licence": "CC0",
  "metrics": {"validation": {"accuracy": 0.5}},
}
CHECKPOINT = {
  **_META,
  "format": 2,
  "config": {"model": {"name": "fermam"}, "train": {"epochs": 3}},
  "num_examples": 4,
  "num_hosts": 1,
  "metric": "accuracy",
  "metrics": {"accuracy": 0.5},
  "data_start": 0,
  "evaluations_since_best": 0,
  "skipped_records": 0,
  "training_seconds": 1.5,
}
_EXPORTED = {
  **{field: x for field, x in _WEIGHTS.items() if field != "metrics"},
  "kind": "stablehlo",
  "raw": False,
  "parameters": "inside",
  "inputs": {"image": "a face"},
  "outputs": {"probabilities": "of each class"},
}


class _Memory:
  """A file in memory."""

  def __init__(self, data: bytes):
    self._data = data

  def read_bytes(self) -> bytes:
    return self._data


def _object(data: bytes) -> dict[str, Any] | None:
  """The object in JSON text; None for other text, which has its own targets."""
  try:
    value = json.loads(data)
    json.dumps(value, allow_nan=False)
  except (ValueError, RecursionError):
    return None
  return value if isinstance(value, dict) else None


def weights_file(data: bytes) -> None:
  """A weights file: nearly every change breaks its checksum."""
  path = folder() / "file.safetensors"
  path.write_bytes(data)
  has_description(path)
  with user_errors():
    read_weights(path, "file")


def weights_description(data: bytes) -> None:
  """A weights file with a right checksum, whose description is the JSON of the input."""
  if (description := _object(data)) is None:
    return
  path = folder() / "described.safetensors"
  with user_errors():
    write_weights(path, description, _VARIABLES)
    predictor = load_predictor(path)
    predictor.prepare(np.zeros((4, 5, 3), np.uint8))


def checkpoint_description(data: bytes) -> None:
  """The description of a checkpoint."""
  if (description := _object(data)) is not None:
    with user_errors():
      read_meta(description, "checkpoint")


def config(data: bytes) -> None:
  """A config as JSON, as in a checkpoint."""
  if (values := _object(data)) is not None:
    with user_errors(lines=_LISTED):
      validate(from_dict(values))


def state_dict(data: bytes) -> None:
  """A state dict; the first byte chooses the format."""
  suffix = (".npz", ".safetensors", ".pth")[data[0] % 3 if data else 0]
  path = folder() / f"file{suffix}"
  path.write_bytes(data[1:])
  with user_errors():
    read_state_dict(path)


def stablehlo(data: bytes) -> None:
  """An exported file with a program for JAX."""
  path = folder() / "file.stablehlo"
  path.write_bytes(data)
  with user_errors():
    _predictor(read(path))


def stablehlo_description(data: bytes) -> None:
  """An exported file whose description is the JSON of the input."""
  path = folder() / "described.stablehlo"
  path.write_bytes(_stablehlo(data))
  with user_errors():
    _predictor(read(path))


def stablehlo_program(data: bytes) -> None:
  """An exported file whose program is the input."""
  path = folder() / "program.stablehlo"
  path.write_bytes(_stablehlo(json.dumps(_EXPORTED).encode(), data))
  with user_errors():
    read(path)


def onnx_file(data: bytes) -> None:
  """An exported file for onnxruntime."""
  with user_errors():
    _predictor(open_model(data, "file.onnx"))


def _predictor(exported: Any) -> None:
  detects = exported.description["task"] == "detection"
  (ExportedDetector if detects else ExportedClassifier)(exported)


def _stablehlo(description: bytes, program: bytes | None = None) -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr("description.json", description)
    archive.writestr("program.jax", _program() if program is None else program)
  return file.getvalue()


@functools.cache
def _program() -> bytes:
  exported = export.export(jax.jit(lambda x: {"y": jnp.sin(x)}))(jax.ShapeDtypeStruct((2,), "f4"))
  return bytes(exported.serialize())


def _onnx() -> bytes:
  value = lambda name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2])  # noqa: E731
  node = onnx.helper.make_node("Identity", ["x"], ["y"])
  graph = onnx.helper.make_graph([node], "network", [value("x")], [value("y")])
  opset = onnx.helper.make_opsetid("", 20)
  model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
  onnx.helper.set_model_props(model, {"ferjax": json.dumps(_EXPORTED | {"kind": "onnx"})})
  return model.SerializeToString()


def _archive() -> bytes:
  file = io.BytesIO()
  np.savez(file, **{"head.weight": np.ones((2, 2), np.float32), "head.bias": np.zeros(2)})
  return file.getvalue()


def _torch_file() -> bytes:
  import torch  # not needed by the other targets

  file = io.BytesIO()
  torch.save({"model": {"head.weight": torch.ones(2, 2)}, "epoch": 3}, file)
  return file.getvalue()


def seeds() -> dict[str, bytes]:
  """Right inputs: target -> bytes."""
  text = lambda value: json.dumps(value).encode()  # noqa: E731
  path = folder() / "seed.safetensors"
  write_weights(path, _WEIGHTS, _VARIABLES)
  weights = path.read_bytes()
  return {
    "weights_file": weights,
    "weights_description": text(_WEIGHTS),
    "checkpoint_description": text(CHECKPOINT),
    "config": text(to_dict(Config())),
    "state_dict": b"\0" + _archive(),
    "state_dict-safetensors": b"\1" + weights,
    "state_dict-torch": b"\2" + _torch_file(),
    "stablehlo": _stablehlo(text(_EXPORTED)),
    "stablehlo_description": text(_EXPORTED),
    "stablehlo_program": _program(),
    "onnx_file": _onnx(),
  }
