import pickle
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

import ferjax
from ferjax.interop.torch_weights import (
  export_state_dict,
  import_parts,
  import_state_dict,
  load_state_dict,
)


@pytest.fixture(scope="module")
def model():
  return ferjax.create_model("fer_yolo_mamba", num_classes=7)


@pytest.fixture(scope="module")
def weights(golden):
  return golden.weights()


@pytest.fixture(scope="module")
def variables(model, weights):
  return import_state_dict(model, weights)


def test_round_trip_is_exact(model, weights, variables):
  back = export_state_dict(model, variables)
  assert back.keys() == weights.keys()
  for name, value in weights.items():
    np.testing.assert_array_equal(back[name], value, err_msg=name)
    assert back[name].dtype == value.dtype


def test_layouts(weights, variables):
  neck, stem = variables["params"]["neck"]["vss_p3"], variables["params"]["backbone"]["stem"]
  conv = weights["backbone.backbone.stem.conv.conv.weight"]
  assert stem["conv"]["conv"]["kernel"][2, 1, 5, 7] == conv[7, 5, 2, 1]
  ssm = "backbone.C3_p3.0.self_attention."
  assert neck["ss2d"]["in_proj"]["kernel"][3, 4] == weights[ssm + "in_proj.weight"][4, 3]
  assert neck["ss2d"]["A_log"][2, 3, 4] == weights[ssm + "A_logs"][2 * 256 + 3, 4]
  assert neck["ss2d"]["D"][2, 3] == weights[ssm + "Ds"][2 * 256 + 3]


def test_missing_extra_and_wrongly_shaped_entries_are_named(model, weights):
  name = "head.obj_preds.1.bias"
  with pytest.raises(
    ValueError, match=r"1 entries are missing from the state dict: head.obj_preds.1"
  ):
    import_state_dict(model, {k: v for k, v in weights.items() if k != name})
  with pytest.raises(ValueError, match=r"1 entries .* match no variable: head.extra.weight"):
    import_state_dict(model, weights | {"head.extra.weight": np.zeros(3, np.float32)})
  with pytest.raises(ValueError, match=r"'head.obj_preds.1.bias' has shape \(2,\).*needs \(1,\)"):
    import_state_dict(model, weights | {name: np.zeros(2, np.float32)})
  smaller = ferjax.create_model("fer_yolo_mamba", num_classes=7, size="tiny")
  with pytest.raises(ValueError, match="the model needs"):
    import_state_dict(smaller, weights)


def test_importing_parts_keeps_the_rest(weights, variables):
  model = ferjax.create_model("fer_yolo_mamba", num_classes=3)
  start = {k: jnp.full(v.shape, 7.0) for k, v in flatten_dict(variables, sep="/").items()}
  from flax.traverse_util import unflatten_dict

  start = unflatten_dict(start, sep="/")
  merged = flatten_dict(import_parts(model, weights, start, ("backbone",)), sep="/")
  imported = flatten_dict(variables, sep="/")
  for path, value in merged.items():
    want = imported[path] if path.split("/")[1] == "backbone" else 7.0
    np.testing.assert_array_equal(value, want, err_msg=path)
  with pytest.raises(ValueError, match="unknown part 'trunk' of the model; known: backbone, head"):
    import_parts(model, weights, start, ("trunk",))
  incomplete = {k: v for k, v in weights.items() if "dark3" not in k}
  with pytest.raises(ValueError, match="entries are missing"):
    import_parts(model, incomplete, start, ("backbone",))
  deeper = weights | {"backbone.backbone.dark6.conv.weight": np.zeros(3, np.float32)}
  with pytest.raises(ValueError, match=r"1 entries .* match no variable: backbone.backbone.dark6"):
    import_parts(model, deeper, start, ("backbone",))
  import_parts(model, weights | {"head.extra": np.zeros(3)}, start, ("backbone",))


def test_every_size_has_unique_released_names():
  """No two variables share a released name, even with separable convolutions."""
  from ferjax.interop.torch_weights import _names

  for size in ("nano", "m"):
    names = _names(ferjax.create_model("fer_yolo_mamba", num_classes=7, size=size))
    assert len(set(names.values())) == len(names)
    assert not any("stage" in x or "level" in x or "wise" in x for x in names.values())


def test_files(tmp_path):
  state = {"module.a.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
  save_file(state, tmp_path / "w.safetensors")
  np.savez(tmp_path / "w.npz", **state)
  for name in ("w.safetensors", "w.npz"):
    loaded = load_state_dict(tmp_path / name)
    assert list(loaded) == ["a.weight"]
    np.testing.assert_array_equal(loaded["a.weight"], state["module.a.weight"])
  with pytest.raises(FileNotFoundError, match="no weights at"):
    load_state_dict(tmp_path / "none.npz")
  (tmp_path / "w.h5").touch()
  with pytest.raises(ValueError, match=r"ends in '.h5'; weights are read from .safetensors"):
    load_state_dict(tmp_path / "w.h5")


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 and no more"])
def test_broken_files_are_named(tmp_path, name, content):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError, match=f"{name}' cannot be read: ."):
    load_state_dict(tmp_path / name)


class FakeTensor:
  def __init__(self, *values):
    self.values = values

  def detach(self):
    return self

  cpu = detach

  def numpy(self):
    return np.array(self.values, np.float32)


def install_torch(monkeypatch, content):
  """A fake `torch` whose files contain `content`."""

  def load(path, *, map_location, weights_only):
    assert (map_location, weights_only) == ("cpu", True)
    if isinstance(content, Exception):
      raise content
    return content

  is_tensor = lambda x: isinstance(x, FakeTensor)  # noqa: E731
  fake = types.SimpleNamespace(load=load, is_tensor=is_tensor)
  monkeypatch.setitem(sys.modules, "torch", fake)


@pytest.mark.parametrize(
  ("name", "wrap"),
  [
    ("w.pth", dict),
    # MobileFaceNet's weights are published in this form, as mobilefacenet_model_best.pth.tar.
    ("w.pth.tar", lambda x: {"state_dict": x, "epoch": 3}),
    ("w.pt", lambda x: {"model": x}),
  ],
)
def test_torch_files(tmp_path, monkeypatch, name, wrap):
  (tmp_path / name).touch()
  install_torch(monkeypatch, wrap({"module.a": FakeTensor(1, 2), "module.b": FakeTensor(3)}))
  loaded = load_state_dict(tmp_path / name)
  assert {name: x.tolist() for name, x in loaded.items()} == {"a": [1, 2], "b": [3]}


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ([FakeTensor(1)], "contains no state dict; expected a dict from names to tensors"),
    ({"a": FakeTensor(1), "b": 3}, "contains no state dict"),
    (pickle.UnpicklingError("Weights only load failed"), "Weights only load failed"),
    (RuntimeError("PytorchStreamReader failed"), "PytorchStreamReader failed"),
  ],
)
def test_torch_files_without_weights(tmp_path, monkeypatch, content, message):
  (tmp_path / "w.pt").touch()
  install_torch(monkeypatch, content)
  with pytest.raises(ValueError, match=f"w.pt' cannot be read: .*{message}"):
    load_state_dict(tmp_path / "w.pt")


def test_torch_files_without_torch_name_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)  # as if not installed
  (tmp_path / "w.pth").touch()
  with pytest.raises(ImportError, match=r"pip install 'ferjax\[torch\]'"):
    load_state_dict(tmp_path / "w.pth")
