"""Random photographs, and comparisons of faces from two compiled programs."""

import numpy as np
import pytest

# Two programs sum in different orders, so their outputs differ by 2e-5 (see `check_same`). For
# logits below 20 this is 1e-4 after a sigmoid or softmax, whose slope is at most 1/4; for boxes of
# a few hundred pixels, a hundredth of a pixel.
SCORE_TOLERANCE, PIXELS = 1e-4, 1e-2


@pytest.fixture(scope="package")
def photographs():
  rng = np.random.default_rng(1)
  sizes = [(64, 64), (50, 90), (200, 41), (7, 7), (128, 96)]
  return [rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in sizes]


@pytest.fixture(scope="session")
def check_same_face():
  """Compares a face with the expected one, and its box if there is one."""

  def check(face, other):
    if other.box is not None:
      assert face.box == pytest.approx(other.box, abs=PIXELS)
    assert face.scores == pytest.approx(other.scores, abs=SCORE_TOLERANCE)
    # Another class may have the same highest score.
    assert other.scores[face.expression] == pytest.approx(other.score, abs=SCORE_TOLERANCE)

  return check


@pytest.fixture(scope="session")
def nearest():
  """Finds the most similar face."""

  def find(face, others):
    def distance(other):
      scores = np.subtract(list(face.scores.values()), list(other.scores.values()))
      return np.abs(np.subtract(face.box, other.box)).max() + np.abs(scores).max()

    return min(others, key=distance)

  return find


@pytest.fixture(scope="session")
def check_same_faces(nearest, check_same_face):
  """Each face of an image is in both lists, unless its score is at the threshold."""

  def check(faces, others, score_threshold):
    for some, rest in ((faces, others), (others, faces)):
      for face in some:
        if face.score > score_threshold + SCORE_TOLERANCE:
          check_same_face(face, nearest(face, rest))

  return check
