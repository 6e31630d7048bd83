import io
import json
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

from ferjax.weights.file import has_description, read_weights


def test_variables_are_those_that_were_saved_to_half_precision(saved, network):
  weights = read_weights(saved, "own")
  found, expected = flatten_dict(weights.variables()), flatten_dict(network().variables())
  assert found.keys() == expected.keys()
  for path, value in found.items():
    assert isinstance(value, jax.Array)
    assert value.dtype == np.float32
    # Half the distance of two float16 numbers, which have 11 bits.
    np.testing.assert_allclose(value, expected[path], rtol=2**-11)


def test_precision_of_each_kind_of_variable(saved, network):
  """Vectors, the scan's exponents, and values that float16 cannot hold stay exact."""
  types = {name: x.dtype for name, x in safetensors.numpy.load_file(saved).items()}
  assert types == {
    "params/head/kernel": np.float16,
    "params/zero/kernel": np.float16,
    "params/head/bias": np.float32,
    "params/scan/A_log": np.float32,
    "params/tiny/kernel": np.float32,
    "params/huge/kernel": np.float32,
    "batch_stats/bn/var": np.float32,
  }
  exact = read_weights(saved, "own").variables()
  values = network().variables()
  for path in (
    ("params", "head", "bias"),
    ("params", "scan", "A_log"),
    ("batch_stats", "bn", "var"),
  ):
    group, module, name = path
    np.testing.assert_array_equal(
      exact[group][module][name], np.float32(values[group][module][name])
    )


def test_the_number_of_parameters_and_bytes(saved):
  weights = read_weights(saved, "own")
  assert weights.num_parameters == 6 + 2 + 6 + 2 + 2 + 2
  assert weights.size == saved.stat().st_size


def test_a_file_in_an_archive(saved):
  """As in a zipped package, where files have no path."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w") as archive:
    archive.write(saved, "files/own.safetensors")
  with zipfile.ZipFile(buffer) as archive:
    weights = read_weights(zipfile.Path(archive) / "files" / "own.safetensors", "own")
  assert weights.meta == read_weights(saved, "own").meta


def _change_description(data, **change):
  """The file with other fields of the description, which keeps its checksum."""
  size = int.from_bytes(data[:8], "little")
  header = json.loads(data[8 : 8 + size])
  description = json.loads(header["__metadata__"]["ferjax"]) | change
  header["__metadata__"]["ferjax"] = json.dumps(description)
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _flip_bit(data):
  return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (lambda data: data[:-3], "is damaged: it is truncated or has extra bytes"),
    (lambda data: data + b"abc", "is damaged: it is truncated or has extra bytes"),
    (lambda data: data[:50], "is damaged: it ends within its header"),
    (lambda data: b"", "is damaged: it ends within its header, or is not a safetensors file"),
    (lambda data: b"\x80\x04K\x01." * 9, "is damaged: it ends within its header, or is not"),
    (lambda data: data[:8] + b"x" + data[9:], "is damaged: its header is not valid"),
    (_flip_bit, "is damaged: its checksum does not match its content"),
    (lambda data: _change_description(data, mean=[0, 0, 0]), "its checksum does not match"),
    (
      lambda data: _change_description(data, format=2),
      "written by ferjax .* cannot read it: its format is 2, and this version reads formats up to",
    ),
    (
      lambda data: safetensors.numpy.save({"x": np.zeros(2)}),
      "is a safetensors file without the description",
    ),
  ],
)
def test_damaged_files(saved, damage, message):
  saved.write_bytes(damage(saved.read_bytes()))
  with pytest.raises(ValueError, match=rf"own\.safetensors.*{message}"):
    read_weights(saved, str(saved))


def test_files_with_a_description_are_told_apart(saved, tmp_path):
  other = tmp_path / "other.safetensors"
  safetensors.numpy.save_file({"x": np.zeros(2)}, other)
  (tmp_path / "text").write_bytes(b"text of more than eight letters")
  assert has_description(saved)
  assert not has_description(other)
  assert not has_description(tmp_path / "text")
