"""The forms in which programs save their networks."""

import argparse
import os
import sys
import types

import numpy as np
import pytest

from ferjax.interop.state_dict_files import load_state_dict, read_state_dict
from ferjax.trained import NetworkMeta


class Tensor:
  """A tensor of the fake torch."""

  def __init__(self, value):
    self.value = np.asarray(value, np.float32)

  def detach(self):
    return self

  cpu = detach

  def numpy(self):
    return self.value


@pytest.fixture
def torch_file(tmp_path, monkeypatch):
  """Content -> a file with it, for a fake torch."""

  def make(content):
    file = tmp_path / "w.pth"
    file.touch()
    load = lambda path, *, map_location, weights_only: content  # noqa: E731
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    return file

  return make


NETWORK = {"conv.weight": Tensor([1, 2]), "conv.bias": Tensor(3)}
AVERAGE = {"conv.weight": Tensor([4, 5]), "conv.bias": Tensor(6)}


def prefixed(prefix, entries):
  return {prefix + name: x for name, x in entries.items()}


COUNTERS = {"initted": Tensor(1), "step": Tensor(8)}
FORMS = {
  # name: (content, place of the averages or weights)
  "plain": (NETWORK, ""),
  "parallel": (prefixed("module.", NETWORK), "module.*"),
  "compiled": (prefixed("module._orig_mod.", NETWORK), "module._orig_mod.*"),
  "model": ({"model": NETWORK, "epoch": 3}, "model"),
  "model_state_dict": ({"model_state_dict": NETWORK, "loss": 0.5}, "model_state_dict"),
  "nested": ({"state_dict": {"model": prefixed("module.", NETWORK)}}, "state_dict/model/module.*"),
  "lightning": ({"state_dict": prefixed("model.", NETWORK), "epoch": 3}, "state_dict/model.*"),
}
AVERAGED = {
  "beside": ({"model": NETWORK, "model_ema": AVERAGE}, "model_ema"),
  "module": ({"model": NETWORK, "ema": {"module": AVERAGE, "updates": 9}}, "ema/module"),
  "ema_pytorch": (
    {
      "model": NETWORK,
      "ema": {
        **prefixed("online_model.module.", NETWORK),
        **prefixed("ema_model.module.", AVERAGE),
        **COUNTERS,
      },
    },
    "ema/ema_model.module.*",
  ),
  "swa": (
    {
      "state_dict": NETWORK,
      "ema_state_dict": {"n_averaged": Tensor(2), **prefixed("module.", AVERAGE)},
    },
    "ema_state_dict/module.*",
  ),
}


def values(entries):
  return {name: x.tolist() for name, x in entries.items()}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_weights(torch_file, form):
  content, place = FORMS[form]
  found = read_state_dict(torch_file(content))
  assert values(found.entries) == {"conv.weight": [1, 2], "conv.bias": 3}
  assert found.place == place
  assert found.description is None


@pytest.mark.parametrize("form", AVERAGED)
def test_moving_averages_come_first_if_wanted(torch_file, form):
  content, place = AVERAGED[form]
  file = torch_file(content)
  found = read_state_dict(file)
  assert values(found.entries) == {"conv.weight": [4, 5], "conv.bias": 6}
  assert found.place == place
  weights = {"conv.weight": [1, 2], "conv.bias": 3}
  assert values(read_state_dict(file, averages=False).entries) == weights
  assert values(load_state_dict(file)) == weights


def test_a_file_of_averages_only(torch_file):
  file = torch_file({"ema": {**prefixed("ema_model.", AVERAGE), **COUNTERS}})
  assert values(load_state_dict(file)) == {"conv.weight": [4, 5], "conv.bias": 6}


def test_other_entries_have_a_reason(torch_file):
  others = {"optimizer": {"lr": 0.1}, "epoch": 3}
  ema = {**prefixed("ema_model.", AVERAGE), **prefixed("online_model.", NETWORK), **COUNTERS}
  found = read_state_dict(torch_file({"model": NETWORK, "ema": ema, **others}))
  assert found.others == {
    "model": "the weights before averaging",
    "optimizer": "not weights of the network",
    "epoch": "not weights of the network",
    "ema/online_model.conv.weight": "the other of weights and moving averages",
    "ema/online_model.conv.bias": "the other of weights and moving averages",
    "ema/initted": "a counter of the averaging",
    "ema/step": "a counter of the averaging",
  }


def test_the_description_of_an_export(torch_file):
  description = dict.fromkeys(NetworkMeta.__required_keys__, "x") | {
    "format": 1,
    "model": {"name": "small"},
    "class_names": ["a", "b"],
    "image_size": 32,
    "mean": [0.5, 0.5, 0.5],
    "std": [1, 1, 1],
  }
  found = read_state_dict(torch_file({"state_dict": NETWORK, "ferjax": description}))
  assert found.description == description
  newer = description | {"format": 2, "versions": {"ferjax": "9.9"}}
  message = r"w.pth was written by ferjax 9.9, and .* its format is 2, and this version reads"
  with pytest.raises(ValueError, match=message):
    read_state_dict(torch_file({"state_dict": NETWORK, "ferjax": newer}))
  for change in ({"format": "1"}, {"model": {}}, {"class_names": [1]}, {"mean": None}):
    with pytest.raises(ValueError, match="its description is damaged; export it again"):
      read_state_dict(torch_file({"state_dict": NETWORK, "ferjax": description | change}))
  del description["grey"]
  with pytest.raises(ValueError, match="its description lacks grey"):
    read_state_dict(torch_file({"state_dict": NETWORK, "ferjax": description}))


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ([1, 2], "no state dict; expected a dict from names to tensors"),
    ({"epoch": 3}, "no state dict; .* but 'epoch' is int"),
    ({3: Tensor(1)}, "no state dict"),
    ({"ema": {"shadow_params": [Tensor(1)]}}, "no state dict; .* but 'shadow_params' is list"),
  ],
)
def test_no_state_dict(torch_file, content, message):
  with pytest.raises(ValueError, match=f"w.pth' cannot be read: .*{message}"):
    read_state_dict(torch_file(content))


class Malicious:
  """Creates a file when it is unpickled."""

  def __init__(self, file):
    self.file = file

  def __reduce__(self):
    return os.mkdir, (str(self.file),)


def test_a_malicious_archive_of_numpy_is_refused(tmp_path):
  trap, file = tmp_path / "trap", tmp_path / "w.npz"
  np.savez(file, a=np.zeros(2, np.float32), b=np.array([Malicious(trap)], object))
  with pytest.raises(
    ValueError, match=r"w.npz' cannot be read: it contains a Python object, .* it "
  ):
    read_state_dict(file)
  assert not trap.exists()
  with np.load(file, allow_pickle=True) as archive:
    archive["b"]
  assert trap.exists()  # it was a trap


@pytest.fixture
def torch():
  return pytest.importorskip("torch")


def test_malicious_files_are_refused(torch, tmp_path):
  """In both of torch's formats, and also beside tensors."""
  trap, file = tmp_path / "trap", tmp_path / "w.pth"
  for content in (Malicious(trap), {"model": {"a": torch.zeros(2)}, "x": Malicious(trap)}):
    for new_format in (True, False):
      torch.save(content, file, _use_new_zipfile_serialization=new_format)
      with pytest.raises(
        ValueError, match=r"w.pth' cannot be read: it contains \w+.mkdir"
      ) as error:
        read_state_dict(file)
      assert "it is refused" in str(error.value)
      assert "weights_only" not in str(error.value)
      assert "\n" not in str(error.value)
      assert not trap.exists()


def test_files_of_torch(torch, tmp_path):
  """Options of the program beside the weights, and numbers that NumPy does not have."""
  file = tmp_path / "w.pt"
  state = {"a": torch.tensor([1.5, -2.0], dtype=torch.bfloat16), "b": torch.ones(2).half()}
  torch.save({"model": state, "args": argparse.Namespace(lr=0.1), "epoch": 3}, file)
  found = read_state_dict(file)
  assert values(found.entries) == {"a": [1.5, -2], "b": [1, 1]}
  assert found.others.keys() == {"args", "epoch"}
  whole = file.read_bytes()
  number = whole.index(np.float16([1, 1]).tobytes())
  flipped = whole[:number] + b"\x01" + whole[number + 1 :]
  file.write_bytes(flipped)
  with pytest.raises(
    ValueError, match=r"the checksum of \S+ does not match .*; get the file again"
  ):
    read_state_dict(file)
  for broken in (b"", b"hello", b"<html>not found</html>", whole[: len(whole) // 2]):
    file.write_bytes(broken)
    with pytest.raises(ValueError, match=r"damaged, or not a file of torch\.save") as error:
      read_state_dict(file)
    assert "\n" not in str(error.value)
