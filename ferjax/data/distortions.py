"""Distortions of photographs and of cropped faces, in five strengths, to measure robustness.

They change the decoded image, before the preprocessing of a network. Levels are relative to the
face where its size matters: a cropped face is its whole image; of a photograph, the face has the
median size of its boxes. Hendrycks & Dietterich, Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations, ICLR 2019, is the model; the levels are for faces.
"""

import dataclasses
import io
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ferjax.data.image import GREY
from ferjax.data.sources import Source

Pixels = UInt8[np.ndarray, "_ _ 3"]
Boxes = Float[np.ndarray, "m 4"]
STRENGTHS = (1, 2, 3, 4, 5)
_FACES_ALONG_EMPTY = 4  # faces along the short side of a photograph without boxes


def blur(image: Pixels, sigma: float) -> Pixels:
  """Gaussian blur; `sigma` is in pixels."""
  return cv2.GaussianBlur(
    np.ascontiguousarray(image), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE
  )


def darken(image: Pixels, factor: float) -> Pixels:
  """Grey levels multiplied by a factor of at most 1, and rounded."""
  return np.rint(image * np.float32(factor)).astype(np.uint8)


def add_noise(image: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
  """Gaussian noise with a standard deviation in grey levels, the same in all channels.

  So a grey image stays grey, and noise has the same strength for grey and for colour networks.
  """
  noise = rng.standard_normal((*image.shape[:2], 1), np.float32) * np.float32(deviation)
  return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def compress(image: Pixels, quality: int) -> Pixels:
  """The image after JPEG compression with a quality of 1 to 100, 4:2:0."""
  file = io.BytesIO()
  Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=2)
  return np.array(Image.open(file).convert("RGB"))


def reduce_size(image: Pixels, scale: float) -> Pixels:
  """The image at a scale below 1, as averages over areas; at 1 or more, the image as it is."""
  if scale >= 1:
    return image
  height, width = image.shape[:2]
  size = (max(1, round(width * scale)), max(1, round(height * scale)))
  return cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)


def rotate(image: Pixels, degrees: float) -> Pixels:
  """Rotated clockwise about its centre; its border is repeated beyond it."""
  height, width = image.shape[:2]
  matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1.0)
  return cv2.warpAffine(
    np.ascontiguousarray(image), matrix, (width, height), borderMode=cv2.BORDER_REPLICATE
  )


def rotate_photograph(image: Pixels, boxes: Boxes, degrees: float) -> tuple[Pixels, Boxes]:
  """Rotated clockwise about its centre, in a grey frame around all of it.

  The new box encloses the rotated ellipse in the old box: a head is rounder than its box, whose
  rotated corners would give a box that is too large.
  """
  height, width = image.shape[:2]
  angle = math.radians(degrees)
  cos, sin = math.cos(angle), math.sin(angle)
  new_width = round(width * abs(cos) + height * abs(sin))
  new_height = round(width * abs(sin) + height * abs(cos))
  # Continuous coordinates: the centre of the first pixel is at 0.5, in OpenCV at 0.
  matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1.0)
  matrix[:, 2] += ((new_width - width) / 2, (new_height - height) / 2)
  framed = cv2.warpAffine(
    np.ascontiguousarray(image), matrix, (new_width, new_height), borderValue=(GREY,) * 3
  )
  turn = np.array([[cos, -sin], [sin, cos]])
  centres = (boxes[:, :2] + boxes[:, 2:]) / 2 - np.array([[width, height]]) / 2
  centres = centres @ turn.T + np.array([[new_width, new_height]]) / 2
  halves = np.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ (turn**2).T)
  return framed, np.concatenate([centres - halves, centres + halves], axis=1)


def occlude(
  image: Pixels, box: Float[np.ndarray, "4"], share: float, rng: np.random.Generator
) -> Pixels:
  """A grey rectangle hides a share of the area of a box (xyxy), anywhere in it."""
  place = rng.uniform(size=2)
  extent = (box[2:] - box[:2]) * math.sqrt(share)
  low = box[:2] + place * (box[2:] - box[:2] - extent)
  (x1, y1), (x2, y2) = np.rint(low).astype(int), np.rint(low + extent).astype(int)
  hidden = image.copy()
  hidden[max(y1, 0) : y2, max(x1, 0) : x2] = GREY
  return hidden


def crop(image: Pixels, scale: float, right: float, down: float) -> Pixels:
  """The image cropped anew: `scale` times its size, shifted by fractions of its size.

  Beyond the image, its border is repeated. The crop starts and ends at the nearest pixels.
  """
  rows, columns = (
    _positions(side, scale, shift)
    for side, shift in zip(image.shape[:2], (down, right), strict=True)
  )
  return image[rows[:, None], columns[None]]


def _positions(side: int, scale: float, shift: float) -> np.ndarray:
  start = round(side * (shift + (1 - scale) / 2))
  return np.clip(np.arange(start, start + max(1, round(side * scale))), 0, side - 1)


@dataclasses.dataclass(frozen=True)
class Distortion:
  """A kind of distortion.

  Attributes:
    unit: of the levels.
    levels: of the strengths 1 to 5.
    apply: (image, boxes, level, generator of the record) -> image and boxes; boxes are None for a
      cropped face.
    tasks: for which it makes sense.
  """

  unit: str
  levels: tuple[float, ...]
  apply: Callable[[Pixels, Boxes | None, float, np.random.Generator], tuple[Pixels, Boxes | None]]
  tasks: tuple[str, ...] = ("classification", "detection")


def face_side(image: Pixels, boxes: Boxes | None) -> float:
  """Pixels of the side of a square with the area of the (median) face."""
  if boxes is None:
    return math.sqrt(image.shape[0] * image.shape[1])
  if len(boxes) == 0:
    return min(image.shape[:2]) / _FACES_ALONG_EMPTY
  return float(np.median(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))))


def _blurred(image, boxes, level, rng):
  return blur(image, level * face_side(image, boxes)), boxes


def _reduced(image, boxes, level, rng):
  small = reduce_size(image, level / face_side(image, boxes))
  if boxes is None:
    return small, None
  scale = np.array(small.shape[1::-1], np.float32) / np.array(image.shape[1::-1], np.float32)
  return small, boxes * np.tile(scale, 2)[None]


def _rotated(image, boxes, level, rng):
  degrees = level * rng.choice((-1, 1))
  if boxes is None:
    return rotate(image, degrees), None
  turned, moved = rotate_photograph(image, boxes, degrees)
  return turned, moved.astype(np.float32)


def _occluded(image, boxes, level, rng):
  height, width = image.shape[:2]
  for box in np.array([[0, 0, width, height]], float) if boxes is None else boxes:
    image = occlude(image, box, level, rng)
  return image, boxes


def _shifted(image, boxes, level, rng):
  angle = rng.uniform(0, 2 * math.pi)
  return crop(image, 1.0, level * math.cos(angle), level * math.sin(angle)), boxes


DISTORTIONS: Mapping[str, Distortion] = {
  "blur": Distortion("standard deviation / face's side", (0.01, 0.02, 0.03, 0.045, 0.06), _blurred),
  "noise": Distortion(
    "standard deviation in grey levels",
    (8.0, 16.0, 28.0, 44.0, 64.0),
    lambda image, boxes, level, rng: (add_noise(image, level, rng), boxes),
  ),
  "jpeg": Distortion(
    "JPEG quality",
    (50.0, 30.0, 20.0, 10.0, 5.0),
    lambda image, boxes, level, rng: (compress(image, round(level)), boxes),
  ),
  "darkness": Distortion(
    "grey levels multiplied by",
    (0.6, 0.4, 0.25, 0.12, 0.06),
    lambda image, boxes, level, rng: (darken(image, level), boxes),
  ),
  "resolution": Distortion("pixels of the face's side", (40.0, 32.0, 24.0, 16.0, 12.0), _reduced),
  "rotation": Distortion("degrees", (10.0, 20.0, 30.0, 45.0, 60.0), _rotated),
  "occlusion": Distortion("hidden share of the face", (0.05, 0.1, 0.2, 0.3, 0.45), _occluded),
  # A detector finds a face wherever it is.
  "crop offset": Distortion(
    "shift / crop's side", (0.05, 0.1, 0.15, 0.2, 0.3), _shifted, ("classification",)
  ),
}


def distortions_of(task: str) -> tuple[str, ...]:
  """The names of the distortions that make sense for a task."""
  return tuple(name for name, distortion in DISTORTIONS.items() if task in distortion.tasks)


class DistortedSource:
  """A source whose images are distorted; see `ferjax.data.sources.Source`.

  Noise, directions and places are a function of (seed, distortion, number of the record), and the
  same for all strengths.

  Raises:
    ValueError: an unknown distortion, one that does not make sense for the source's task, or a
      strength outside 1..5.
  """

  def __init__(self, source: Source, distortion: str, strength: int, *, seed: int = 0):
    known = distortions_of(source.task)
    if distortion not in known:
      raise ValueError(
        f"unknown distortion {distortion!r} for {source.task}; known: {', '.join(known)}"
      )
    if strength not in STRENGTHS:
      raise ValueError(f"the strength of {distortion} is {strength}; expected 1 to 5")
    self.class_names, self.skipped = source.class_names, source.skipped
    self.max_boxes: int = getattr(source, "max_boxes", 0)
    self._source = source
    self._distortion, self._strength, self._seed = distortion, strength, seed

  @property
  def task(self) -> str:
    return self._source.task

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Any:
    example = self._source[index]
    kind = DISTORTIONS[self._distortion]
    rng = np.random.default_rng((self._seed, zlib.crc32(self._distortion.encode()), index))
    level = kind.levels[self._strength - 1]
    image, boxes = kind.apply(example["image"], example.get("boxes"), level, rng)
    return {**example, "image": image, **({} if boxes is None else {"boxes": boxes})}

  def origin(self, index: int) -> str:
    """See `Source.origin`."""
    return self._source.origin(index)


class SampledSource:
  """Some records of a source, drawn without replacement, in their order.

  Raises:
    ValueError: fewer than one record.
  """

  def __init__(self, source: Source, count: int, *, seed: int = 0):
    if count < 1:
      raise ValueError(f"a sample of {count} records; expected at least 1")
    self.class_names, self.skipped = source.class_names, source.skipped
    self.max_boxes: int = getattr(source, "max_boxes", 0)
    self._source = source
    self._records = np.sort(np.random.default_rng(seed).permutation(len(source))[:count])

  @property
  def task(self) -> str:
    return self._source.task

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Any:
    return self._source[int(self._records[index])]

  def origin(self, index: int) -> str:
    """See `Source.origin`."""
    return self._source.origin(int(self._records[index]))
