"""Synthetic faces: reproducible, balanced, and equal to those of `render_face`."""

import pickle

import numpy as np
import pytest

from ferjax.data.sources import LabelledSource
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.data.synthetic.identity import HAIR_STYLES
from ferjax.data.synthetic.scenes import render_face
from ferjax.expressions import EXPRESSIONS, SEVEN_EXPRESSIONS


def _source(count=20, **changes):
  return SyntheticFaces(count, **{"image_size": 32, "seed": 3, **changes})


def test_record():
  source = _source()
  assert isinstance(source, LabelledSource)
  assert (len(source), source.task, source.class_names) == (20, "classification", SEVEN_EXPRESSIONS)
  assert source.skipped == []
  assert source.origin(4) == "synthetic face 4 of seed 3"
  record = source[9]
  assert (record["image"].shape, record["image"].dtype) == ((32, 32, 3), np.uint8)
  np.testing.assert_array_equal(record["label"], [0, 0, 1, 0, 0, 0, 0])
  assert record["label"].dtype == np.float32


def test_shows_the_expression_of_its_label():
  # The generator's first number is the intensity; the person comes from the rest.
  source = _source(intensity=(0.7, 0.7))
  for index in (0, 3, 12):
    rng = np.random.default_rng((3, index))
    rng.uniform(0.7, 0.7)
    expected = render_face(SEVEN_EXPRESSIONS[index % 7], 0.7, 32, rng)
    np.testing.assert_array_equal(source[index]["image"], expected)


def test_reproducible_in_any_order():
  source = _source()
  copy = pickle.loads(pickle.dumps(source))
  for index in (7, 0, 19):
    np.testing.assert_array_equal(copy[index]["image"], source[index]["image"])
    np.testing.assert_array_equal(copy[np.int64(index)]["image"], source[index]["image"])
  assert len({source[i]["image"].tobytes() for i in range(20)}) == 20
  assert not np.array_equal(_source(seed=4)[0]["image"], source[0]["image"])


def test_labels_are_balanced_and_equal_those_of_the_records():
  source = _source(23, class_names=EXPRESSIONS)
  assert source.labels.shape == (23, 8)
  np.testing.assert_array_equal(source.labels, [source[i]["label"] for i in range(23)])
  assert set(source.labels.sum(0)) == {2, 3}
  assert _source(0).labels.shape == (0, 7)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"count": -1}, "num_examples is -1; expected 0 or more"),
    ({"seed": -2}, "seed is -2; expected 0 or more"),
    ({"image_size": 16}, "image_size is 16; expected 32 or more"),
    ({"class_names": ()}, "expected at least one"),
    ({"class_names": ("fear", "fear")}, "none twice"),
    ({"class_names": ("fear", "joy")}, "unknown expression 'joy'; known: neutral"),
    ({"intensity": (0.5, 1.5)}, r"intensity is \(0.5, 1.5\)"),
    ({"intensity": (0.6, 0.5)}, r"intensity is \(0.6, 0.5\)"),
  ],
)
def test_bad_arguments_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    _source(**changes)


def test_attributes_are_the_factors_of_the_drawings():
  source = _source(40)
  factors = source.attributes
  assert all(len(values) == 40 for values in factors.values())
  neutral = [x == "" for x in factors["intensity"]]
  assert neutral == [i % 7 == 0 for i in range(40)]
  assert set(factors["hair"]) <= set(HAIR_STYLES)
  assert {"none", "round"} <= set(factors["glasses"])
  assert all(0 <= float(x) <= np.degrees(0.25) for x in factors["rotation"])
  assert all(0.68 <= float(x) <= 0.82 for x in factors["face height"])
  # A record shows its factors: of two faces, the brighter skin is brighter in the middle.
  skin = [float(x) for x in factors["skin brightness"]]
  dark, light = np.argmin(skin), np.argmax(skin)
  cheek = [source[int(i)]["image"][14:18, 10:22].mean() for i in (dark, light)]
  assert cheek[0] < cheek[1]


def test_index_out_of_range_is_refused():
  for index in (20, -1):
    with pytest.raises(IndexError, match=f"face {index} of 20"):
      _source()[index]
