"""An example of a data set before its image is opened, which `ferjax.data.examples` does."""

import dataclasses
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ferjax.output import one_line

_TOLERANCE = 1e-3  # for the sum of a distribution
Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Pixels:
  """An image stored in a table: `values` are its grey levels, row by row."""

  values: bytes
  width: int
  height: int

  def encode(self) -> bytes:
    """Encodes the image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(self._grey()).save(file, "PNG")
    return file.getvalue()

  def decode(self) -> UInt8[np.ndarray, "h w 3"]:
    """The image with three equal channels, as from the PNG file."""
    return np.repeat(self._grey()[..., None], 3, axis=2)

  def _grey(self) -> UInt8[np.ndarray, "h w"]:
    return np.frombuffer(self.values, np.uint8).reshape(self.height, self.width)


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
  """One example of a data set.

  Attributes:
    origin: file and row of the annotation: "list.txt:12 (images/a.jpg)".
    key: unique in the set, and independent of the location of the folder.
    image: path of the file, or the pixels.
    split: "train", "val" or "test", as released.
    label: class index, or a distribution over the classes; for a detector, one index per box, or
      `UNLABELLED`.
    boxes: xyxy pixels of the upright image; None for a classifier.
    relative: whether `boxes` are relative to width and height, 0..1, instead.
    crop: xyxy pixels of the face, for a classifier; None for the whole image.
    group: subject or clip; "" if unknown.
    size: width and height of the image according to the annotation; None if not given.
    votes: the annotators' vote counts; () if none.
    lines: line of each box in a table of boxes; the line of the record if it has none. () for other
      sets.
    attributes: column -> value, such as the age of a face, for metrics by group; "" if unknown. ()
      if the set has none; otherwise the same columns in all entries of a set.
  """

  origin: str
  key: str
  image: str | Pixels
  split: str
  label: int | tuple[float, ...] | tuple[int, ...]
  boxes: tuple[Box, ...] | None = None
  relative: bool = False
  crop: Box | None = None
  group: str = ""
  size: tuple[int, int] | None = None
  votes: tuple[int, ...] = ()
  lines: tuple[int, ...] = ()
  attributes: tuple[tuple[str, str], ...] = ()

  @property
  def classes(self) -> tuple[int, ...]:
    """The class index of each box, or the most probable class of a face."""
    if self.boxes is not None:
      return tuple(int(c) for c in self.label)  # pyright: ignore[reportGeneralTypeIssues]
    return (self.label,) if isinstance(self.label, int) else (int(np.argmax(self.label)),)

  def distribution(self, num_classes: int) -> Float[np.ndarray, "k"]:
    """The label of a face as a distribution over the k classes.

    Raises:
      ValueError: a class beyond them, or numbers that are not a distribution over them.
    """
    if isinstance(self.label, int):
      if not 0 <= self.label < num_classes:
        raise ValueError(f"{self.origin}: class {self.label}; expected 0..{num_classes - 1}")
      return np.eye(num_classes, dtype=np.float32)[self.label]
    label = np.array(self.label, np.float32)
    is_one = label.shape == (num_classes,) and abs(label.sum() - 1) <= _TOLERANCE
    if not is_one or label.min() < 0:
      raise ValueError(
        f"{self.origin}: label {self.label}; expected {num_classes} probabilities that sum to 1"
      )
    return label


class RecordError(ValueError):
  """A bad annotation; the message starts with its origin, and has one line.

  `example` is what is known of the record. It is counted when a validation split is taken, so that
  fixing the record moves no other record to another split.
  """

  def __init__(self, message: object, *, example: Entry | None = None):
    super().__init__(one_line(str(message)))
    self.example = example


class LayoutError(ValueError):
  """An unexpected folder layout; the message names the file and the fix, in one or more lines."""

  def __init__(self, message: object):
    super().__init__("\n".join(map(one_line, str(message).split("\n"))))
