"""What a predictor says of an image."""

import dataclasses

Box = tuple[float, float, float, float]  # x1, y1, x2, y2, in pixels


@dataclasses.dataclass(frozen=True)
class Face:
  """One face of an image, or an image that was classified as it is.

  Attributes:
    box: (x1, y1, x2, y2) in pixels of the upright original image; None where no face was looked
      for, because the image is one.
    score: the largest of `scores`.
    expression: the name of the class that has it.
    scores: for each class name, 0..1: of a detector, objectness times the probability of the
      class; of a classifier, the probability of the class.
    detection: of a face that one network found and another classified, what the first said.
  """

  box: Box | None
  score: float
  expression: str
  scores: dict[str, float]
  detection: "Face | None" = None


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The faces of one image; `image` is its path, or None if it was an array.

  Faces come by falling score of the detector. A classifier without one gives each image one face.
  """

  image: str | None
  width: int
  height: int
  faces: tuple[Face, ...]
