"""Which backgrounds each split has."""

import numpy as np
import pytest
from PIL import Image

from ferjax.config import ComposeConfig
from ferjax.data.composed.backgrounds import find_backgrounds, random_part
from ferjax.data.datasets.entries import LayoutError

SPLITS = ("train", "val", "test")


@pytest.fixture
def folder(tmp_path):
  for i in range(60):
    path = tmp_path / "photos" / ("a", "b")[i % 2] / f"{i}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  (tmp_path / "photos/readme.md").touch()
  return tmp_path / "photos"


def _find(folder, **changes):
  config = ComposeConfig(backgrounds=str(folder), **changes)
  return {split: find_backgrounds(config, split) for split in SPLITS}


def test_every_background_is_in_one_split(folder):
  found = _find(folder, held_out=0.2)
  everything = [path for paths in found.values() for path in paths]
  assert sorted(everything) == sorted(map(str, folder.rglob("*.png")))
  assert 5 <= len(found["val"]) <= 20
  assert 5 <= len(found["test"]) <= 20


def test_other_files_and_places_move_no_background(folder):
  before = _find(folder, held_out=0.2)
  for path in before["val"][:3]:
    (folder / path).unlink()
  (folder / "a/new.png").touch()
  moved = folder.rename(folder.parent / "elsewhere")
  after = _find(moved, held_out=0.2)
  for split in SPLITS:
    names = {path.replace(str(folder), "") for path in before[split]}
    kept = {path.replace(str(moved), "") for path in after[split]} - {"/a/new.png"}
    assert kept <= names
    assert len(names - kept) == (3 if split == "val" else 0)


def test_named_backgrounds(folder, tmp_path):
  names = tmp_path / "val.txt"
  names.write_text("a/0.png\n\n b/1.png \n")
  (tmp_path / "other").mkdir()
  (tmp_path / "other/x.png").touch()
  found = _find(folder, val_backgrounds=str(names), test_backgrounds=str(tmp_path / "other"))
  assert found["val"] == [str(folder / "a/0.png"), str(folder / "b/1.png")]
  assert found["test"] == [str(tmp_path / "other/x.png")]
  assert len(found["train"]) == 58
  # A part of the folder, also by another path to it.
  (tmp_path / "link").symlink_to(folder / "b")
  found = _find(folder, val_backgrounds=str(tmp_path / "link"), held_out=0.2)
  assert len(found["val"]) == 30
  assert all("/a/" in path for path in (*found["train"], *found["test"]))
  assert len(found["train"]) + len(found["test"]) == 30


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"backgrounds": ""}, "data.compose.backgrounds is empty; pass a folder"),
    ({"backgrounds": "{}/none"}, "data.compose.backgrounds: .*none cannot be read"),
    ({"backgrounds": "{}/texts"}, r"no images in .*texts \(1 file ignored: 1 .txt\); expected"),
    ({"val_backgrounds": "{}/none"}, "val_backgrounds: .*none not found; expected a folder, or"),
    ({"val_backgrounds": "{}/empty"}, "val_backgrounds: .*empty is empty; expected a name below"),
    ({"val_backgrounds": "{}/bad"}, "bad:2: 'c.png' not found; expected a name below"),
    ({"val_backgrounds": "{}/ok", "test_backgrounds": "{}/ok"}, "a/0.png is named by both"),
    ({"backgrounds": "{}/one"}, r"one: no background for the split (val|train), of 1 images; add"),
  ],
)
def test_errors(folder, tmp_path, changes, message):
  (tmp_path / "texts").mkdir()
  (tmp_path / "texts/a.txt").touch()
  (tmp_path / "one").mkdir()
  (tmp_path / "one/a.png").touch()
  (tmp_path / "empty").touch()
  (tmp_path / "ok").write_text("a/0.png")
  (tmp_path / "bad").write_text("a/0.png\nc.png\n")
  changes = {name: value.format(tmp_path) for name, value in changes.items()}
  config = ComposeConfig(**{"backgrounds": str(folder), **changes})
  with pytest.raises(LayoutError, match=message):
    _ = [find_backgrounds(config, split) for split in ("val", "train")]


def test_random_part():
  rng = np.random.default_rng(0)
  # Red is the column, green the row.
  columns, rows = np.meshgrid(np.arange(120), np.arange(80))
  image = np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)
  np.testing.assert_array_equal(random_part(rng, image, (120, 80), 1.0), image)
  spans = []
  for _ in range(50):
    part = random_part(rng, image, (40, 40), 0.5).astype(int)
    assert part.shape == (40, 40, 3)
    spans.append(np.ptp(part[..., 0]))
    assert abs(np.ptp(part[..., 1]) - spans[-1]) <= 1  # the aspect is kept
  assert 36 <= min(spans) < 50
  assert 65 < max(spans) <= 80
  assert random_part(rng, image[:3, :5], (40, 30), 0.3).shape == (30, 40, 3)


def test_hidden_images_are_not_backgrounds(folder):
  Image.new("RGB", (2, 2)).save(folder / ".thumbnail.png")
  assert sum(map(len, _find(folder).values())) == 60
