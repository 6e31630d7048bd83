"""Archives that are damaged, or larger inside than outside."""

import zipfile

import numpy as np
import pytest

from ferjax.archives import check_archive
from ferjax.interop.state_dict_files import read_state_dict


def test_archives_of_arrays_are_right(tmp_path):
  path = tmp_path / "a.npz"
  np.savez_compressed(path, zeros=np.zeros(10**6, np.float32))
  check_archive(path)
  assert read_state_dict(path).entries["zeros"].shape == (10**6,)


def test_a_bomb_is_not_unpacked(tmp_path):
  path = tmp_path / "bomb.npz"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("a.npy", bytes(10**8))
  with pytest.raises(ValueError, match=r"it has 100,000,000 bytes of content in [\d,]+ bytes; "):
    check_archive(path)
  with pytest.raises(ValueError, match=r"bomb\.npz' cannot be read: it has 100,000,000 bytes"):
    read_state_dict(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", b"PK\x05\x06" + b"\xff" * 18])
def test_other_files(tmp_path, content):
  (tmp_path / "a.zip").write_bytes(content)
  with pytest.raises(ValueError, match="it is no complete zip archive"):
    check_archive(tmp_path / "a.zip")
