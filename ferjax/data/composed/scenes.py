"""Composed scenes: labelled face crops pasted into photographs without faces.

A detector needs photographs with boxes, but most sets of labelled expressions are crops. docs/
composed.md describes the scenes.
"""

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import cv2
import numpy as np
from jaxtyping import UInt8

from ferjax.config import ComposeConfig, DataConfig
from ferjax.data.classification.augment import FaceExample
from ferjax.data.composed.backgrounds import find_backgrounds, random_part
from ferjax.data.composed.layout import place, sample_count
from ferjax.data.composed.pasting import as_lit_as, match_light, paste, photograph, random_mask
from ferjax.data.datasets.base import SPLITS
from ferjax.data.detection.augment import Example
from ferjax.data.image import decode
from ferjax.data.sources import LabelledSource

MIN_IMAGE_SIZE = 32  # pixels
_LEAST_SCENE = 0.6  # part of a background that becomes a scene, relative to the largest square
_LEAST_PATCH = 0.3  # and of one that becomes a patch, relative to the largest that fits

Image = UInt8[np.ndarray, "h w 3"]


class ComposedScenes:
  """A source of `num_examples` scenes; each record depends only on (seed, index) and the files.

  A record contains `image` u8[s s 3], `boxes` f32[m 4] (xyxy pixels, clipped to the image; hidden
  parts included) and `label` i32[m], the most probable class of each face. Every visible face has
  a box: a face that would be hidden too much is not pasted.
  """

  task = "detection"

  def __init__(
    self,
    faces: LabelledSource,
    backgrounds: Sequence[str],
    num_examples: int,
    *,
    image_size: int,
    seed: int,
    config: ComposeConfig,
    grey: bool = False,
  ):
    """Checks the arguments; images are read on access.

    Args:
      faces: the labelled crops; colour or grey.
      backgrounds: paths of photographs without faces.
      num_examples: number of records.
      image_size: side of the square images, pixels.
      seed: not negative.
      config: ranges and probabilities; its files are not used.
      grey: make all scenes grey (three equal channels). A scene of which any crop is grey is grey
        in any case.

    Raises:
      ValueError: an argument outside these ranges, no faces or no backgrounds.
    """
    check_ranges(config)
    for name, value, least in (
      ("num_examples", num_examples, 0),
      ("seed", seed, 0),
      ("image_size", image_size, MIN_IMAGE_SIZE),
      ("number of faces", len(faces), 1),
      ("number of backgrounds", len(backgrounds), 1),
    ):
      if value < least:
        raise ValueError(f"{name} is {value}; expected {least} or more")
    if config.size[0] > image_size:
      raise ValueError(
        f"compose.size {config.size} starts above the side of the scenes, {image_size} pixels "
        "(data.image_size); lower it"
      )
    self.class_names = faces.class_names
    self.skipped = list(faces.skipped)
    self._faces = faces
    self._backgrounds = tuple(backgrounds)
    self._num_examples, self._size, self._seed = num_examples, image_size, seed
    self._config = dataclasses.replace(config)  # configs are mutable
    self._grey = grey
    labels = faces.labels.argmax(axis=1)
    self._members = [np.flatnonzero(labels == c) for c in np.unique(labels)]

  def __len__(self) -> int:
    return self._num_examples

  @property
  def max_boxes(self) -> int:
    """The maximum number of boxes per scene."""
    return self._config.count[1]

  def origin(self, index: SupportsIndex) -> str:
    """The name of a record in messages."""
    return f"composed scene {self._checked(index)} of seed {self._seed}"

  def __getitem__(self, index: SupportsIndex) -> Example:
    rng = np.random.default_rng((self._seed, self._checked(index)))
    num_faces, num_others = (sample_count(rng, self._config) for _ in range(2))
    total = num_faces + num_others
    # A crop for each patch: a non-face gets the resolution and light of a face. One more, so that
    # scenes without patches are grey too if the faces are.
    crops = [self._draw(rng) for _ in range(total + 1)]
    is_face = rng.permutation(total) < num_faces
    scene = random_part(rng, self._background(rng), (self._size, self._size), _LEAST_SCENE)
    if rng.random() < 0.5:
      scene = cv2.flip(scene, 1)
    boxes, labels = self._paste_all(rng, scene, crops[:total], is_face.tolist())
    if self._grey or any(_is_grey(crop["image"]) for crop in crops):
      scene = cv2.cvtColor(cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return {
      "image": photograph(rng, scene, self._config),
      "boxes": np.clip(np.array(boxes, np.float32).reshape(-1, 4), 0, self._size),
      "label": np.array(labels, np.int32),
    }

  def _paste_all(
    self, rng: np.random.Generator, scene: Image, crops: Sequence[FaceExample], is_face: list[bool]
  ) -> tuple[list[np.ndarray], list[int]]:
    """Pastes the patches that fit, in place; the boxes and classes of the faces among them."""
    boxes, labels = [], []
    aspects = [crop["image"].shape[1] / crop["image"].shape[0] for crop in crops]
    donor = self._background(rng) if crops else scene
    for placed in place(rng, self._size, aspects, self._config):
      image, label = crops[placed.number]["image"], crops[placed.number]["label"]
      if is_face[placed.number]:
        boxes.append(placed.box)
        labels.append(int(label.argmax()))
      else:
        height, width = image.shape[:2]
        image = as_lit_as(random_part(rng, donor, (width, height), _LEAST_PATCH), image)
      image = match_light(rng, image, scene, placed.patch, self._config)
      paste(scene, image, random_mask(rng), placed.patch)
      if placed.occluder:
        side = int(np.ceil(placed.occluder.width))
        image = random_part(rng, donor, (side, side), _LEAST_PATCH)
        paste(scene, image, random_mask(rng), placed.occluder)
    return boxes, labels

  def _draw(self, rng: np.random.Generator) -> FaceExample:
    if not self._config.balance:
      return self._faces[int(rng.integers(len(self._faces)))]
    members = self._members[rng.integers(len(self._members))]
    return self._faces[int(members[rng.integers(len(members))])]

  def _background(self, rng: np.random.Generator) -> Image:
    return decode(self._backgrounds[rng.integers(len(self._backgrounds))])

  def _checked(self, index: SupportsIndex) -> int:
    index = operator.index(index)
    if not 0 <= index < self._num_examples:
      raise IndexError(f"scene {index} of {self._num_examples}; expected 0 <= index < length")
    return index


def _is_grey(image: Image) -> bool:
  red, green, blue = cv2.split(image)
  return np.array_equal(red, green) and np.array_equal(green, blue)


def open_composed(
  config: DataConfig, faces: LabelledSource, split: str, seed: int
) -> ComposedScenes:
  """The scenes of a split.

  Args:
    config: `train_examples` and so on are the numbers of scenes.
    faces: the crops of the split.
    split: "train", "val" or "test".
    seed: of the training scenes; those of the other splits never change.

  Raises:
    ValueError: a field out of its range, or no backgrounds.
  """
  count = getattr(config, f"{split}_examples")
  if count <= 0:
    raise ValueError(
      f"data.{split}_examples ({count}) must be positive for the source {config.source!r}: "
      f"--config.data.{split}_examples=1000"
    )
  seed = len(SPLITS) * (seed if split == "train" else 0) + SPLITS.index(split)
  return ComposedScenes(
    faces,
    find_backgrounds(config.compose, split),
    count,
    image_size=config.image_size,
    seed=seed,
    config=config.compose,
    grey=config.grey,
  )


def check_ranges(config: ComposeConfig) -> None:
  """Raises a ValueError for a probability or range that cannot be sampled from."""
  for name in ("empty", "occlusion", "match"):
    number = getattr(config, name)
    if not 0 <= number <= 1:
      raise ValueError(f"compose.{name} ({number}) must be in 0..1")
  checks: tuple[tuple[str, Any, bool, str], ...] = (
    ("count", config.count, 1 <= config.count[0] <= config.count[1], "(low, high), 1 <= low"),
    ("size", config.size, 1 <= config.size[0] <= config.size[1], "(low, high) pixels, 1 <= low"),
    ("rotation", config.rotation, 0 <= config.rotation <= 60, "in 0..60 degrees"),
    ("hidden", config.hidden, 0 <= config.hidden < 1, "at least 0 and below 1"),
    ("held_out", config.held_out, 0 < config.held_out < 0.5, "above 0 and below 0.5"),
    ("noise", config.noise, 0 <= config.noise <= 255, "in 0..255 grey levels"),
    ("blur", config.blur, 0 <= config.blur <= 100, "in 0..100 pixels"),
    (
      "quality",
      config.quality,
      1 <= config.quality[0] <= config.quality[1] <= 100,
      "(low, high) within 1..100",
    ),
  )
  for name, value, fits, expected in checks:
    if not fits:
      raise ValueError(f"compose.{name} ({value}) must be {expected}")
  left, top, right, bottom = config.inset
  if min(config.inset) < 0 or left + right >= 1 or top + bottom >= 1:
    raise ValueError(
      f"compose.inset {config.inset} must be (left, top, right, bottom), none negative, with "
      "left + right and top + bottom below 1"
    )
