import numpy as np
from cards.faces import validation_faces

from ferjax.expressions import EXPRESSIONS, FERPLUS_COLUMNS, SEVEN_EXPRESSIONS

NEUTRAL, HAPPY = 6, 3  # codes of the column `emotion`


def write_tables(folder, rows):
  """Rows of (pixels, emotion, votes for neutral, votes for happiness, usage)."""
  faces, votes = ["emotion,pixels,Usage"], [f"Usage,Image name,{','.join(FERPLUS_COLUMNS)}"]
  for number, (pixels, emotion, neutral, happy, usage) in enumerate(rows):
    faces.append(f"{emotion},{' '.join(map(str, pixels.ravel()))},{usage}")
    counts = [neutral, happy, *[0] * (len(FERPLUS_COLUMNS) - 2)]
    votes.append(f"{usage},fer{number:07}.png,{','.join(map(str, counts))}")
  (folder / "fer2013.csv").write_text("\n".join(faces) + "\n")
  (folder / "fer2013new.csv").write_text("\n".join(votes) + "\n")


def test_faces_with_a_twin_in_training_are_known(tmp_path):
  rng = np.random.default_rng(0)
  first, second, third = (
    np.kron(rng.integers(0, 256, (6, 6)), np.ones((8, 8), int)) for _ in range(3)
  )
  brighter = np.clip(second + 2, 0, 255)
  rows = [
    (first, NEUTRAL, 10, 0, "Training"),
    (second, HAPPY, 0, 10, "Training"),
    (first, HAPPY, 10, 0, "PublicTest"),
    (brighter, HAPPY, 0, 10, "PublicTest"),
    (third, HAPPY, 1, 9, "PublicTest"),
  ]
  write_tables(tmp_path, rows)
  faces = validation_faces(tmp_path, EXPRESSIONS)
  np.testing.assert_array_equal(faces.truth, [0, 1, 1])
  np.testing.assert_array_equal(faces.twins, [True, True, False])
  np.testing.assert_array_equal(faces.images[0][..., 0], first)
  some = faces.some(2)
  np.testing.assert_array_equal(some.twins, [True, False])

  # Seven classes have the labels of FER2013.
  np.testing.assert_array_equal(validation_faces(tmp_path, SEVEN_EXPRESSIONS).truth, [1, 1, 1])
