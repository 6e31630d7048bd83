"""Synthetic scenes: reproducible, with exact boxes and values in the documented ranges."""

import pickle

import numpy as np
import pytest

from ferjax.data.synthetic import drawing, head, scenes
from ferjax.expressions import EXPRESSIONS, SEVEN_EXPRESSIONS

SIZE = 64


@pytest.fixture(scope="module")
def source():
  return scenes.SyntheticScenes(250, image_size=SIZE, seed=3, class_names=EXPRESSIONS)


@pytest.fixture(scope="module")
def records(source):
  return [source[i] for i in range(len(source))]


def assert_same(a: dict, b: dict) -> None:
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])


def test_record(records):
  for record in records:
    count = len(record["label"])
    assert record["image"].shape == (SIZE, SIZE, 3)
    assert record["image"].dtype == np.uint8
    assert record["boxes"].shape == (count, 4)
    assert record["boxes"].dtype == np.float32
    assert record["label"].dtype == np.int32


def test_reproducible_in_any_order(source, records):
  copy = pickle.loads(pickle.dumps(source))
  for index in (7, 0, 31):
    assert_same(copy[index], records[index])
    assert_same(source[np.int64(index)], records[index])
    assert_same(scenes.render_scene(3, index, SIZE, class_names=EXPRESSIONS), records[index])
  assert (records[0]["image"] != records[1]["image"]).any()
  other = scenes.SyntheticScenes(1, image_size=SIZE, seed=4, class_names=EXPRESSIONS)
  assert (other[0]["image"] != records[0]["image"]).any()


def test_counts_classes_and_names(source, records):
  assert len(source) == 250
  assert source.class_names == EXPRESSIONS
  assert source.skipped == []
  assert source.origin(12) == "synthetic scene 12 of seed 3"
  counts = np.bincount([len(record["label"]) for record in records], minlength=7)
  assert len(counts) == 7
  assert (counts > 0).all()
  assert counts[0] < 0.12 * len(records)
  labels = np.bincount(np.concatenate([record["label"] for record in records]))
  assert len(labels) == len(EXPRESSIONS)
  # Equally often: each within four standard deviations of the mean.
  mean = labels.mean()
  assert (np.abs(labels - mean) < 4 * np.sqrt(mean)).all()


def test_boxes_inside_the_image_and_apart(records):
  for record in records:
    boxes = record["boxes"]
    assert (boxes >= 0).all()
    assert (boxes <= SIZE).all()
    assert (boxes[:, 2:] - boxes[:, :2] > 3).all()
    for i in range(len(boxes)):
      for j in range(i):
        low = np.maximum(boxes[i, :2], boxes[j, :2])
        high = np.minimum(boxes[i, 2:], boxes[j, 2:])
        intersection = np.prod(np.maximum(high - low, 0))
        areas = [np.prod(boxes[k, 2:] - boxes[k, :2]) for k in (i, j)]
        assert intersection / (sum(areas) - intersection) <= 0.1


def test_scale_of_the_boxes(records):
  boxes = np.concatenate([record["boxes"] for record in records])
  inside = ((boxes > 0) & (boxes < SIZE)).all(1)
  longest = (boxes[inside, 2:] - boxes[inside, :2]).max(1) / SIZE
  assert longest.min() > 0.12 - 1e-5
  assert longest.min() < 0.16
  assert longest.max() < 0.8 + 1e-5
  assert longest.max() > 0.7


def test_boxes_bound_the_painted_outline(monkeypatch):
  """The box is the extent of the pixels that differ between white and black heads."""
  monkeypatch.setattr(head, "draw_shoulders", lambda *args: None)

  def scene(index, color):
    def outline_only(draw, who, move, pose, light):
      drawing.paint(draw, [(head.outline(who, move), color)], pose)

    monkeypatch.setattr(head, "draw_face", outline_only)
    return scenes.render_scene(0, index, 160, max_faces=1)

  outside = []
  for index in range(80):
    white, black = (scene(index, (level, level, level)) for level in (255, 0))
    difference = np.abs(white["image"].astype(int) - black["image"]).max(-1)
    if len(white["boxes"]) == 0:
      assert not difference.any()
      continue
    # At half of the contrast, blur does not move an edge.
    rows, columns = (difference > difference.max() / 2).nonzero()
    extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    outside.append(np.subtract(extent, white["boxes"][0]) * (-1, -1, 1, 1))
  outside = np.array(outside)
  assert len(outside) > 60
  assert outside.max() <= 1
  # In a fifth of the scenes, something in front of the face may hide one of its ends.
  assert (outside.min(1) >= -1).mean() > 0.8


def test_labels_index_the_given_names():
  """Labels are indices into `class_names`, and no other class occurs."""
  names = ("anger", "neutral")
  source = scenes.SyntheticScenes(40, image_size=32, seed=0, class_names=names)
  assert source.class_names == names
  labels = np.concatenate([source[i]["label"] for i in range(40)])
  assert set(labels.tolist()) == {0, 1}
  default = scenes.SyntheticScenes(1, image_size=32, seed=0)
  assert default.class_names == SEVEN_EXPRESSIONS


def test_number_of_faces():
  """Every number from `min_faces` occurs; small faces always fit."""
  options = {"max_faces": 5, "scale": (0.12, 0.13)}
  few, several = (
    [len(scenes.render_scene(0, i, 32, min_faces=least, **options)["label"]) for i in range(80)]
    for least in (0, 3)
  )
  assert set(several) == {3, 4, 5}
  assert set(few) == {0, 1, 2, 3, 4, 5}
  assert np.mean(few) < 2.2


def test_intensity_0_makes_every_scene_neutral():
  """At intensity 0, scenes with different labels are equal."""
  options = {"max_faces": 2, "intensity": (0.0, 0.0)}
  a = scenes.render_scene(5, 1, SIZE, class_names=("neutral",), **options)
  b = scenes.render_scene(5, 1, SIZE, class_names=("fear",), **options)
  assert len(a["label"]) > 0
  assert_same(a, b)


def test_scenes_scale_with_the_image():
  small, large = (scenes.render_scene(0, 1, size) for size in (64, 128))
  np.testing.assert_allclose(2 * small["boxes"], large["boxes"], rtol=1e-5)
  np.testing.assert_array_equal(small["label"], large["label"])


def test_render_face():
  def face(name, intensity, seed=0):
    return scenes.render_face(name, intensity, 48, np.random.default_rng(seed))

  assert face("anger", 1.0).shape == (48, 48, 3)
  np.testing.assert_array_equal(face("anger", 1.0), face("anger", 1.0))
  np.testing.assert_array_equal(face("anger", 0.0), face("neutral", 1.0))
  assert (face("anger", 1.0) != face("neutral", 1.0)).any()
  assert (face("anger", 1.0) != face("anger", 1.0, seed=1)).any()
  with pytest.raises(ValueError, match="unknown expression 'bored'"):
    face("bored", 1.0)
  with pytest.raises(ValueError, match="image size is 8; expected at least 32 pixels"):
    scenes.render_face("anger", 1.0, 8, np.random.default_rng(0))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_examples": -1}, "num_examples is -1; expected 0 or more"),
    ({"image_size": 31}, "image size is 31; expected at least 32 pixels"),
    ({"seed": -2}, "seed is -2; expected 0 or more"),
    ({"class_names": ("neutral", "joy")}, "unknown expression 'joy'; known: neutral"),
    ({"class_names": ()}, "expected at least one, none twice"),
    ({"class_names": ("fear", "fear")}, "expected at least one, none twice"),
    ({"max_faces": 0}, "max_faces is 0; expected 1 or more"),
    ({"min_faces": 7}, r"min_faces is 7; expected 0 to max_faces \(6\)"),
    ({"scale": (0.5, 0.2)}, r"scale is \(0.5, 0.2\); expected"),
    ({"intensity": (0.5, 1.2)}, r"intensity is \(0.5, 1.2\); expected"),
  ],
)
def test_bad_arguments(changes, message):
  arguments = {"num_examples": 1, "image_size": 64, "seed": 0} | changes
  with pytest.raises(ValueError, match=message):
    scenes.SyntheticScenes(arguments.pop("num_examples"), **arguments)


def test_index_out_of_range(source):
  with pytest.raises(IndexError, match="scene 250 of 250"):
    source[250]
  with pytest.raises(IndexError, match="scene -1 of 250"):
    source[-1]
  assert list(scenes.SyntheticScenes(0, image_size=32, seed=0)) == []


def test_contact_sheet():
  sheet = scenes.contact_sheet(people=1, size=32)
  assert sheet.size == (8 * 32, 3 * 32)
