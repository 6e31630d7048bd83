"""The distributions of mixup and CutMix."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from ferjax.config import FaceAugmentConfig
from ferjax.data.classification.augment import check_ranges
from ferjax.data.classification.mixing import draw_mixing, mixes

SIZE, COUNT = 20, 3000


def draw(count=COUNT, seed=0, **fields):
  rows = [draw_mixing(seed, n, SIZE, FaceAugmentConfig(**fields)) for n in range(count)]
  return np.array([row["weight"] for row in rows]), np.array([row["box"] for row in rows])


def areas_of(box):
  return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / SIZE**2


def test_weights_of_mixup_are_from_the_beta_distribution():
  weight, box = draw(mixup=0.4)
  assert not box.any()
  assert scipy.stats.kstest(weight, scipy.stats.beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_rectangles_of_cutmix_are_those_of_its_paper():
  """Inside, the weight is the area kept, and the mean area is the integral over its formula."""
  weight, box = draw(cutmix=1.0)
  assert (box[:, :2] >= 0).all()
  assert (box[:, 2:] <= SIZE).all()
  np.testing.assert_allclose(weight, 1 - areas_of(box), atol=1e-6)
  # E[clipped side | kept]^2, since the two places are independent; kept is uniform for alpha 1.
  kept = (np.arange(20_000) + 0.5) / 20_000
  half = np.floor(SIZE * np.sqrt(1 - kept)).astype(int) // 2
  place = np.arange(SIZE)
  side = np.minimum(place + half[:, None], SIZE) - np.maximum(place - half[:, None], 0)
  expected = np.mean((side.mean(axis=1) / SIZE) ** 2)
  assert areas_of(box).mean() == pytest.approx(expected, abs=4 * areas_of(box).std() / COUNT**0.5)


def test_each_pair_is_mixed_by_one_of_the_two_or_not_at_all():
  weight, box = draw(mixup=0.5, cutmix=1.0, mix_probability=0.6)
  is_cut = areas_of(box) > 0
  is_blended = ~is_cut & (weight < 1)
  # Some rectangles are empty: a kept area near 1.
  for found, expected in ((is_cut, 0.3), (is_blended, 0.3)):
    assert found.mean() == pytest.approx(expected, abs=0.04)


def test_numbers_are_a_function_of_seed_and_example():
  fields = {"mixup": 0.5, "cutmix": 1.0}
  a, b, other = draw(50, **fields), draw(50, **fields), draw(50, seed=1, **fields)
  np.testing.assert_array_equal(a[0], b[0])
  np.testing.assert_array_equal(a[1], b[1])
  assert (a[0] != other[0]).any()
  assert len(set(a[0].tolist())) > 40


def test_what_mixes():
  off = FaceAugmentConfig()
  for fields, expected in (
    ({}, False),
    ({"mixup": 0.2}, True),
    ({"cutmix": 1.0}, True),
    ({"mixup": 0.2, "mix_probability": 0.0}, False),
  ):
    assert mixes(dataclasses.replace(off, **fields)) == expected


@pytest.mark.parametrize(
  ("field", "value"), [("mixup", -0.1), ("cutmix", float("inf")), ("mix_probability", 1.5)]
)
def test_invalid_values(field, value):
  with pytest.raises(ValueError, match=rf"face_augment\.{field} \({value}\) must be"):
    check_ranges(FaceAugmentConfig(**{field: value}))
