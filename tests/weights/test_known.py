import importlib.resources
import json

import pytest

from ferjax.weights import known_weights, open_weights
from ferjax.weights.file import SUFFIX

SHIPPED = sorted(
  file.name.removesuffix(SUFFIX)
  for folder in [importlib.resources.files("ferjax.weights") / "files"]
  if folder.is_dir()
  for file in folder.iterdir()
  if file.name.endswith(SUFFIX)
)


def test_the_files_of_the_package_and_of_the_users_folder(own_weights, monkeypatch):
  assert known_weights() == sorted({*SHIPPED, "own"})
  monkeypatch.delenv("FERJAX_WEIGHTS")
  assert known_weights() == SHIPPED


def test_the_users_folder_is_missing(tmp_path, monkeypatch):
  monkeypatch.setenv("FERJAX_WEIGHTS", str(tmp_path / "nowhere"))
  with pytest.raises(NotADirectoryError, match=r"FERJAX_WEIGHTS is .*nowhere'; expected a folder"):
    known_weights()


def test_shipped_weights():
  """They are whole, have the name of their file, and fit into the limit of 20 MB."""
  weights = [open_weights(name) for name in SHIPPED]
  assert sum(one.size for one in weights) <= 20e6
  for one in weights:
    assert one.meta["name"] == one.name
    assert one.meta["data"]
    assert one.meta["licence"]
    assert one.meta["metrics"]
    assert "/" not in json.dumps(one.meta["model"])
