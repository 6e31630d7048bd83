"""The recipes' training pipelines as a PyTorch user writes them: PIL and torchvision.

Decoded sizes, filters, ranges and probabilities are those of `ferjax.data`. The batches are
normalised float32 tensors of a `torch.utils.data.DataLoader` with its own shuffling and collation.
"""

import io
import random

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import v2

from ferjax.config import DataConfig
from ferjax.data.detection.augment import MIN_SIDE, MIN_VISIBLE, MOSAIC_CUT, MOSAIC_SCALE
from ferjax.data.image import GREY

ENDLESS = 10**9  # rows of an epoch


def loader(dataset: Dataset, batch_size: int, num_workers: int) -> DataLoader:
  sampler = RandomSampler(dataset, replacement=True, num_samples=ENDLESS)
  return DataLoader(dataset, batch_size, sampler=sampler, num_workers=num_workers, drop_last=True)


def _open(encoded: bytes) -> Image.Image:
  return Image.open(io.BytesIO(encoded)).convert("RGB")


class Faces(Dataset):
  """A classifier's training images [3 s s] and labels."""

  def __init__(self, encoded: list[bytes], labels: np.ndarray, config: DataConfig):
    self._encoded = encoded
    self._labels = torch.from_numpy(labels)
    self._transform = _face_transform(config)

  def __len__(self) -> int:
    return len(self._labels)

  def __getitem__(self, index: int):
    image = self._transform(_open(self._encoded[index % len(self._encoded)]))
    return {"image": image, "label": self._labels[index], "index": index}


def _face_transform(config: DataConfig) -> v2.Compose:
  """The transform for the fields that configs/fermam.py and configs/emonext.py set."""
  size, augment = config.image_size, config.face_augment
  steps = [v2.Grayscale()] if config.grey else []
  steps += [v2.Resize(config.resize or size)]
  if augment.rotation:
    steps += [v2.RandomRotation(augment.rotation, v2.InterpolationMode.BILINEAR)]
  steps += [v2.RandomCrop(size)]
  to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
  if augment.flip_or_noise:
    steps += [*to_tensor, FlipOrNoise(augment.flip_or_noise, augment.noise_variance)]
  else:
    steps += [v2.RandomHorizontalFlip(augment.flip), *to_tensor]
  if config.grey:
    steps += [v2.Lambda(_three_channels)]
  if any(config.mean):
    steps += [v2.Normalize(config.mean, config.std)]
  if augment.erasing:
    steps += [v2.RandomErasing(augment.erasing, augment.erasing_area, value="random")]
  return v2.Compose(steps)


def _three_channels(image: torch.Tensor) -> torch.Tensor:
  return image.repeat(3, 1, 1)


class FlipOrNoise(torch.nn.Module):
  """Flips half of the images, and adds noise to the others with `probability`."""

  def __init__(self, probability: float, variance: float):
    super().__init__()
    self._probability = probability
    self._noise = v2.GaussianNoise(sigma=variance**0.5 / 255)

  def forward(self, image: torch.Tensor) -> torch.Tensor:
    chosen = random.random() < self._probability
    if random.random() < 0.5:
      return v2.functional.horizontal_flip(image)
    return self._noise(image) if chosen else image


class Photographs(Dataset):
  """A detector's training images [3 s s], boxes [m 4] and labels [m], padded."""

  def __init__(
    self,
    encoded: list[bytes],
    boxes: list[np.ndarray],
    labels: list[np.ndarray],
    config: DataConfig,
  ):
    self._encoded, self._boxes, self._labels = encoded, boxes, labels
    self._config = config
    self._to_tensor = v2.Compose(
      [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(config.mean, config.std),
      ]
    )

  def __len__(self) -> int:
    return len(self._encoded)

  def __getitem__(self, index: int):
    augment = self._config.augment
    if random.random() < augment.mosaic:
      image, boxes, labels = self._mosaic(index)
      if random.random() < augment.mixup:
        other, other_boxes, other_labels = self._single(random.randrange(len(self)))
        image = Image.blend(image, other, 0.5)
        boxes = np.concatenate([boxes, other_boxes])
        labels = np.concatenate([labels, other_labels])
    else:
      image, boxes, labels = self._single(index)
    rows = self._config.max_boxes
    count = min(len(boxes), rows)
    padded, classes = torch.zeros(rows, 4), torch.zeros(rows, dtype=torch.int32)
    padded[:count] = torch.from_numpy(boxes[:count])
    classes[:count] = torch.from_numpy(labels[:count])
    return {
      "image": self._to_tensor(image),
      "boxes": padded,
      "label": classes,
      "box_mask": torch.arange(rows) < count,
      "index": index,
    }

  def _single(self, index: int):
    size = self._config.image_size
    image, boxes = self._resized(index, self._config.augment.scale)
    left, top = (_between(0, size - side) for side in image.size)
    canvas = Image.new("RGB", (size, size), (GREY,) * 3)
    canvas.paste(image, (left, top))
    boxes = boxes + np.array([left, top, left, top])
    boxes, labels = _cut(boxes, self._labels[index], (0, 0, size, size))
    canvas, boxes = self._flipped(canvas, boxes)
    return self._hsv(canvas), boxes, labels

  def _mosaic(self, index: int):
    size = self._config.image_size
    indices = [index, *(random.randrange(len(self)) for _ in range(3))]
    random.shuffle(indices)
    cut_x, cut_y = (int(size * random.uniform(*MOSAIC_CUT)) for _ in range(2))
    canvas = Image.new("RGB", (size, size), (GREY,) * 3)
    all_boxes, all_labels = [], []
    for position, tile_index in enumerate(indices):
      image, boxes = self._resized(tile_index, MOSAIC_SCALE)
      image, boxes = self._flipped(image, boxes)
      is_right, is_low = position % 2, position // 2
      left = cut_x if is_right else cut_x - image.width
      top = cut_y if is_low else cut_y - image.height
      x1, y1 = max(left, cut_x if is_right else 0), max(top, cut_y if is_low else 0)
      x2 = min(left + image.width, size if is_right else cut_x)
      y2 = min(top + image.height, size if is_low else cut_y)
      canvas.paste(image.crop((x1 - left, y1 - top, x2 - left, y2 - top)), (x1, y1))
      boxes = boxes + np.array([left, top, left, top])
      boxes, labels = _cut(boxes, self._labels[tile_index], (x1, y1, x2, y2))
      all_boxes.append(boxes)
      all_labels.append(labels)
    return self._hsv(canvas), np.concatenate(all_boxes), np.concatenate(all_labels)

  def _resized(self, index: int, scale: tuple[float, float]):
    image, jitter = _open(self._encoded[index]), self._config.augment.aspect_jitter
    aspect = image.width / image.height
    aspect *= random.uniform(1 - jitter, 1 + jitter) / random.uniform(1 - jitter, 1 + jitter)
    longer = self._config.image_size * random.uniform(*scale)
    width, height = (longer * aspect, longer) if aspect < 1 else (longer, longer / aspect)
    width, height = max(1, round(width)), max(1, round(height))
    scales = (width / image.width, height / image.height) * 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized, self._boxes[index] * np.array(scales, np.float32)

  def _flipped(self, image: Image.Image, boxes: np.ndarray):
    if random.random() >= self._config.augment.flip:
      return image, boxes
    boxes = boxes.copy()
    boxes[:, [0, 2]] = image.width - boxes[:, [2, 0]]
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), boxes

  def _hsv(self, image: Image.Image) -> Image.Image:
    augment = self._config.augment
    gains = [
      1 + random.uniform(-1, 1) * part for part in (augment.hue, augment.saturation, augment.value)
    ]
    table = [int(level * gains[0]) % 256 for level in range(256)]
    for gain in gains[1:]:
      table += [min(255, int(level * gain)) for level in range(256)]
    return image.convert("HSV").point(table).convert("RGB")


def _between(a: int, b: int) -> int:
  return random.randint(min(a, b), max(a, b))


def _cut(boxes: np.ndarray, labels: np.ndarray, window: tuple[int, int, int, int]):
  clipped = np.clip(boxes, window[:2] * 2, window[2:] * 2).astype(np.float32)
  sides = clipped[:, 2:] - clipped[:, :2]
  area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
  keep = (sides > MIN_SIDE).all(axis=1) & (sides.prod(axis=1) >= MIN_VISIBLE * area)
  return clipped[keep], labels[keep]
