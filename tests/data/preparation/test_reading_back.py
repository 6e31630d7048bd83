"""What opens a prepared set: errors, batches, and shards in a bucket."""

import json
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from ferjax.config import DataConfig
from ferjax.data.loading import load_source
from ferjax.data.pipeline import eval_dataset
from ferjax.data.preparation.prepare import prepare
from ferjax.data.prepared import find_prepared, open_prepared


def test_open_prepared_errors(make_layout, plan_of, tmp_path):
  root = make_layout("image_folder")
  prepare(plan_of("image_folder", root), root, tmp_path / "out")
  with pytest.raises(ValueError, match="has no split 'test'; existing splits: train, val"):
    open_prepared(tmp_path / "out", "test")
  with pytest.raises(
    ValueError,
    match=r"for the classes neutral, .* data.class_names is a, b; pass "
    r"'--config.data.class_names=\[\"neutral\", .*\"anger\"\]', or prepare",
  ):
    open_prepared(tmp_path / "out", "train", ("a", "b"))
  with pytest.raises(IndexError, match="record 14 of 14"):
    open_prepared(tmp_path / "out", "train")[14]
  root = make_layout("voc")
  prepare(plan_of("voc", root), root, tmp_path / "out")
  with pytest.raises(ValueError, match=r"2 prepared data sets below .*; pass the folder of one"):
    find_prepared(tmp_path / "out")
  index = find_prepared(tmp_path / "out/voc/detection_7/1.0.0") / "ferjax.json"
  index.write_text(json.dumps({"format": 0}))
  with pytest.raises(ValueError, match="has format 0, expected 1"):
    open_prepared(index.parent, "train")
  with pytest.raises(ValueError, match=r"memory://set is on a file system that etils.epath"):
    open_prepared("memory://set", "train")


@pytest.mark.usefixtures("small_shards")
def test_batches_equal_those_of_the_released_set(make_layout, plan_of, tmp_path):
  root = make_layout("csv")
  prepare(plan_of("csv", root), root, tmp_path / "out")
  plain = DataConfig(source="csv", dir=str(root), image_size=64)
  prepared = DataConfig(source="prepared", dir=str(tmp_path / "out"), image_size=64)
  for host in (0, 1):
    batches = [
      list(
        eval_dataset(load_source(c, "test"), c, batch_size=8, process_index=host, process_count=2)
      )
      for c in (plain, prepared)
    ]
    assert len(batches[0]) == len(batches[1]) == 2
    for a, b in zip(*batches, strict=True):
      assert set(a) == set(b)
      for key, value in a.items():
        np.testing.assert_array_equal(value, b[key])
  with pytest.raises(ValueError, match=r"the folder that `ferjax data prepare` wrote"):
    load_source(DataConfig(source="prepared"), "train")


class Bucket(MemoryFileSystem):
  """s3:// in this process's memory."""

  protocol = ("s3",)
  store: ClassVar[dict] = {}
  pseudo_dirs: ClassVar[list[str]] = [""]

  @classmethod
  def _strip_protocol(cls, path):
    path = path.removeprefix("s3://").strip("/")
    return f"/{path}" if path else ""


@pytest.mark.usefixtures("small_shards")
def test_remote_shards_are_copied_once(make_layout, plan_of, tmp_path, monkeypatch):
  root = make_layout("image_folder")
  folder = prepare(plan_of("image_folder", root), root, tmp_path / "out").folder
  fsspec.register_implementation("s3", Bucket, clobber=True)
  remote = epath.Path("s3://bucket/prepared/image_folder/classification_7/1.0.0")
  for path in epath.Path(folder).iterdir():
    (remote / path.name).write_bytes(path.read_bytes())
  monkeypatch.setenv("FERJAX_CACHE", str(tmp_path / "cache"))
  source = open_prepared("s3://bucket/prepared", "train")
  shards = {path.name for path in (tmp_path / "cache").rglob("*.array_record-*")}
  assert shards == {f"image_folder-train.array_record-0000{i}-of-00003" for i in range(3)}
  local = open_prepared(folder, "train")
  np.testing.assert_array_equal(source[13]["image"], local[13]["image"])
  np.testing.assert_array_equal(source.labels, local.labels)
  before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
  open_prepared("s3://bucket/prepared", "train")
  assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == before
