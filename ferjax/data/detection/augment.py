"""Training augmentation of the YOLOX family (spec: fer_yolo_mamba, Recipe as published).

An *example* is a dict of `image` u8[h w 3], `boxes` f32[m 4] (xyxy, pixels of that image) and
`label` i32[m], a class or `ferjax.expressions.UNLABELLED`. No function changes its input example.

Boxes are transformed and cropped with the pixels. A cropped box remains a label only if both sides
exceed `MIN_SIDE` pixels and at least `MIN_VISIBLE` of its area is visible: a chin alone does not
show an expression.
"""

from collections.abc import Callable, Sequence
from typing import TypedDict

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from ferjax.config import AugmentConfig
from ferjax.data.image import GREY, mirrored

MIN_SIDE = 1.0  # pixels
MIN_VISIBLE = 0.2  # of the area before cropping
MOSAIC_CUT = (0.3, 0.7)  # of the canvas, where the four tiles meet
MOSAIC_SCALE = (0.4, 1.0)  # of a tile's image, relative to the letterbox


class Example(TypedDict):
  image: UInt8[np.ndarray, "h w 3"]
  boxes: Float[np.ndarray, "m 4"]
  label: Int[np.ndarray, "m"]


def check_ranges(config: AugmentConfig) -> None:
  """Raises a ValueError for a probability or range that cannot be sampled from."""
  for name in ("flip", "mosaic", "mixup", "mosaic_until", "hue", "saturation", "value"):
    number = getattr(config, name)
    if not 0 <= number <= 1:
      raise ValueError(f"augment.{name} ({number}) must be in 0..1")
  if not 0 < config.scale[0] <= config.scale[1]:
    raise ValueError(f"augment.scale {config.scale} must be (low, high) with 0 < low <= high")
  if not 0 <= config.aspect_jitter < 1:
    raise ValueError(f"augment.aspect_jitter ({config.aspect_jitter}) must be in 0 <= x < 1")


def training_example(
  own: Example,
  load: Callable[[int], Example],
  partners: Sequence[int],
  rng: np.random.Generator,
  *,
  size: int,
  config: AugmentConfig,
  mosaic_allowed: bool,
) -> Example:
  """One augmented example of `size` x `size` pixels.

  Args:
    own: the example to augment.
    load: reads an example of the same data set; called only for mosaic and mixup partners.
    partners: arguments of `load`: three for the mosaic, one for mixup.
    rng: the only source of randomness.
    size: side of the result, pixels.
    config: probabilities and ranges.
    mosaic_allowed: False in the last epochs, which use neither mosaic nor mixup.
  """
  if not (mosaic_allowed and rng.random() < config.mosaic):
    return _single(own, rng, size, config)
  tiles = [own, *(load(partner) for partner in partners[:3])]
  example = mosaic([tiles[i] for i in rng.permutation(4)], rng, size, config)
  example = hsv(example, rng, config)
  if rng.random() < config.mixup:
    example = mixup(example, _single(load(partners[3]), rng, size, config))
  return example


def _single(
  example: Example, rng: np.random.Generator, size: int, config: AugmentConfig
) -> Example:
  example = resize_and_place(example, rng, size, config)
  return hsv(flip(example, rng, config.flip), rng, config)


def resize_and_place(
  example: Example, rng: np.random.Generator, size: int, config: AugmentConfig
) -> Example:
  """Random scale, aspect and position on a grey canvas of `size` x `size` pixels."""
  width, height = _random_size(example["image"], rng, size, config.scale, config.aspect_jitter)
  left = _between(rng, 0, size - width)
  top = _between(rng, 0, size - height)
  canvas = np.full((size, size, 3), GREY, np.uint8)
  boxes, label = _paste(example, canvas, (left, top, width, height), (0, 0, size, size))
  return {"image": canvas, "boxes": boxes, "label": label}


def flip(example: Example, rng: np.random.Generator, probability: float) -> Example:
  """Flips horizontally."""
  if rng.random() >= probability:
    return example
  boxes = _mirrored_boxes(example["boxes"], example["image"].shape[1])
  return {"image": mirrored(example["image"]), "boxes": boxes, "label": example["label"]}


def _mirrored_boxes(boxes: Float[np.ndarray, "m 4"], width: int) -> Float[np.ndarray, "m 4"]:
  output = boxes.copy()
  output[:, [0, 2]] = width - boxes[:, [2, 0]]
  return output


def hsv(example: Example, rng: np.random.Generator, config: AugmentConfig) -> Example:
  """Multiplies hue (modulo 360 degrees), saturation and value by gains around 1."""
  ranges = np.array([config.hue, config.saturation, config.value])
  if not ranges.any():
    return example
  gains = 1 + ranges * rng.uniform(-1, 1, 3)
  image = _recolored(example["image"], gains.astype(np.float32))
  return {"image": image, "boxes": example["boxes"], "label": example["label"]}


def _recolored(
  image: UInt8[np.ndarray, "h w 3"], gains: Float[np.ndarray, "3"]
) -> UInt8[np.ndarray, "h w 3"]:
  """In float32, because OpenCV quantises the hue of uint8 images to two degrees."""
  planes = cv2.split(cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV))
  highest = (np.inf, 1, 255)  # hue is used modulo 360 degrees
  planes = [np.minimum(x * gain, top) for x, gain, top in zip(planes, gains, highest, strict=True)]
  return cv2.convertScaleAbs(cv2.cvtColor(cv2.merge(planes), cv2.COLOR_HSV2RGB))


def mosaic(
  examples: Sequence[Example], rng: np.random.Generator, size: int, config: AugmentConfig
) -> Example:
  """Combines four images that meet at a random point, each in its own tile of the canvas.

  Each image is randomly flipped and resized, and one of its corners is at the meeting point. An
  image larger than its tile is cropped with its boxes.
  """
  canvas = np.full((size, size, 3), GREY, np.uint8)
  cut_x, cut_y = (int(size * cut) for cut in rng.uniform(*MOSAIC_CUT, 2))
  boxes, labels = [], []
  for position, example in enumerate(examples):
    is_mirrored = rng.random() < config.flip
    width, height = _random_size(example["image"], rng, size, MOSAIC_SCALE, config.aspect_jitter)
    is_right, is_low = position % 2 == 1, position >= 2
    # Pasting the unflipped image on a flipped view of the canvas is cheaper than flipping it.
    cut = size - cut_x if is_mirrored else cut_x
    on_right = is_right != is_mirrored
    place = (cut if on_right else cut - width, cut_y if is_low else cut_y - height)
    tile = (
      cut if on_right else 0,
      cut_y if is_low else 0,
      size if on_right else cut,
      size if is_low else cut_y,
    )
    view = canvas[:, ::-1] if is_mirrored else canvas
    placed, label = _paste(example, view, (*place, width, height), tile)
    boxes.append(_mirrored_boxes(placed, size) if is_mirrored else placed)
    labels.append(label)
  return {"image": canvas, "boxes": np.concatenate(boxes), "label": np.concatenate(labels)}


def mixup(a: Example, b: Example) -> Example:
  """The mean of two images of the same size, with the boxes of both."""
  image = (a["image"].astype(np.uint16) + b["image"] + 1) // 2
  return {
    "image": image.astype(np.uint8),
    "boxes": np.concatenate([a["boxes"], b["boxes"]]),
    "label": np.concatenate([a["label"], b["label"]]),
  }


def _random_size(
  image: UInt8[np.ndarray, "h w 3"],
  rng: np.random.Generator,
  size: int,
  scale: tuple[float, float],
  aspect_jitter: float,
) -> tuple[int, int]:
  """Width and height; the longer side is `size` times a random scale."""
  low, high = 1 - aspect_jitter, 1 + aspect_jitter
  aspect = image.shape[1] / image.shape[0] * rng.uniform(low, high) / rng.uniform(low, high)
  longer = size * rng.uniform(*scale)
  width, height = (longer * aspect, longer) if aspect < 1 else (longer, longer / aspect)
  return max(1, round(width)), max(1, round(height))


def _between(rng: np.random.Generator, a: int, b: int) -> int:
  """A uniform integer between a and b, inclusive; a may be larger than b."""
  return int(rng.integers(min(a, b), max(a, b), endpoint=True))


def _paste(
  example: Example,
  canvas: UInt8[np.ndarray, "h w 3"],
  place: tuple[int, int, int, int],
  window: tuple[int, int, int, int],
) -> tuple[Float[np.ndarray, "n 4"], Int[np.ndarray, "n"]]:
  """Pastes a resized image into a window of the canvas, in place.

  Args:
    example: the image and its boxes.
    canvas: modified.
    place: left, top, width, height of the whole image on the canvas; may extend beyond it.
    window: x1, y1, x2, y2; pixels outside it are not changed.

  Returns:
    The remaining boxes, in pixels of the canvas, and their labels.
  """
  height, width = example["image"].shape[:2]
  left, top, new_width, new_height = place
  scale_x, scale_y = new_width / width, new_height / height
  x1, y1 = max(left, window[0]), max(top, window[1])
  x2, y2 = min(left + new_width, window[2]), min(top + new_height, window[3])
  # Resampling only the visible part takes half the time at a scale of two.
  right, bottom = min((x2 - left) / scale_x, width), min((y2 - top) / scale_y, height)
  visible = ((x1 - left) / scale_x, (y1 - top) / scale_y, right, bottom)
  image = Image.fromarray(np.ascontiguousarray(example["image"]))
  part = image.resize((x2 - x1, y2 - y1), Image.Resampling.BICUBIC, box=visible, reducing_gap=1.5)
  canvas[y1:y2, x1:x2] = np.asarray(part)
  scale = np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
  boxes = example["boxes"] * scale + np.array([left, top, left, top], np.float32)
  return _clip(boxes, example["label"], (x1, y1, x2, y2))


def _clip(
  boxes: Float[np.ndarray, "m 4"],
  label: Int[np.ndarray, "m"],
  window: tuple[int, int, int, int],
) -> tuple[Float[np.ndarray, "n 4"], Int[np.ndarray, "n"]]:
  """Clips boxes to a window and drops those with too little area left."""
  low, high = window[:2] * 2, window[2:] * 2
  clipped = np.clip(boxes, low, high).astype(np.float32)
  sides = clipped[:, 2:] - clipped[:, :2]
  area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
  keep = (sides > MIN_SIDE).all(axis=1) & (np.prod(sides, axis=1) >= MIN_VISIBLE * area)
  return clipped[keep], label[keep]
