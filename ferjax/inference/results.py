"""The results of a predictor."""

import dataclasses

Box = tuple[float, float, float, float]  # x1, y1, x2, y2, in pixels


@dataclasses.dataclass(frozen=True)
class Face:
  """One face of an image, or a whole image that was classified.

  Attributes:
    box: (x1, y1, x2, y2) in pixels of the upright original image; None if the whole image was
      classified.
    score: the largest of `scores`.
    expression: the name of the class with this score.
    scores: for each class name, 0..1: the probability of the class for a classifier, objectness
      times the probability of the class for a detector.
    detection: the detector's result, for a face that a classifier classified afterwards.
  """

  box: Box | None
  score: float
  expression: str
  scores: dict[str, float]
  detection: "Face | None" = None


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The faces of one image; `image` is its path, or None for an array.

  Faces are sorted by decreasing detector score. Without a detector, each image has one face.
  """

  image: str | None
  width: int
  height: int
  faces: tuple[Face, ...]
