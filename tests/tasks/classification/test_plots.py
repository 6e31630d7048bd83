import pathlib

import numpy as np
import pytest
from PIL import Image

from ferjax.tasks.classification.metrics import ClassificationMetrics
from ferjax.tasks.classification.plots import plot_mistakes, plot_reliability
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.typing import Classifications

NAMES = ("happy", "sad", "calm")
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)
COLORS = [(255, 0, 255), (0, 255, 255), (255, 255, 0)]  # of the faces, by index modulo 3


class _Faces:
  """Images of one colour each, in three shapes; records which were read."""

  def __init__(self):
    self.read: list[int] = []

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    self.read.append(index)
    height, width = ((48, 48), (40, 100), (600, 300))[index % 3]
    return {"image": np.tile(np.array(COLORS[index % 3], np.uint8), (height, width, 1))}


def _metrics(predicted, label, confidence) -> ClassificationMetrics:
  predicted, confidence = np.asarray(predicted), np.asarray(confidence)[:, None]
  probabilities = np.where(np.eye(3)[predicted] > 0, confidence, (1 - confidence) / 2)
  metrics = ClassificationMetrics(NAMES)
  size = len(predicted)
  metrics.add(
    Classifications(probabilities, predicted),
    {"label": np.eye(3)[label], "mask": np.ones(size, bool), "index": np.arange(size)},
  )
  return metrics


def _pixels(path: pathlib.Path) -> np.ndarray:
  with Image.open(path) as image:
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def _where(pixels: np.ndarray, color) -> np.ndarray:
  return np.all(pixels == color, axis=-1)


def test_reliability_bars_are_as_high_as_the_accuracy(tmp_path):
  right = _metrics([0, 0], [0, 0], [0.5, 0.9])
  plot_reliability(right, tmp_path / "right.png")
  half = _metrics([0, 0] * 2, [0, 1] * 2, [0.5, 0.5, 0.9, 0.9])
  plot_reliability(half, tmp_path / "half.png")
  full_pixels, half_pixels = (_pixels(tmp_path / f"{name}.png") for name in ("right", "half"))
  assert full_pixels.shape == half_pixels.shape == (700, 600, 3)

  def height(pixels):  # of the bar of 0.9, clear of the legend
    return np.sum(_where(pixels[:, 500:], BLUE).any(axis=1))

  assert height(half_pixels) / height(full_pixels) == pytest.approx(0.5, abs=0.02)
  assert _where(full_pixels, ORANGE).any()
  assert sorted(p.name for p in tmp_path.iterdir()) == ["half.png", "right.png"]


def test_reliability_without_examples(tmp_path):
  with pytest.raises(ValueError, match="no example was added"):
    plot_reliability(ClassificationMetrics(NAMES), tmp_path / "reliability.png")
  assert not list(tmp_path.iterdir())


def test_mistakes_shows_the_most_confident_ones(tmp_path):
  faces = _Faces()
  metrics = _metrics([1, 1, 1, 0, 1], [0, 0, 2, 0, 0], [0.5, 0.99, 0.8, 0.9, 0.7])
  plot_mistakes(metrics, faces, tmp_path / "mistakes.png", count=2)
  assert faces.read == [1, 2]
  pixels = _pixels(tmp_path / "mistakes.png")
  assert pixels.shape == pytest.approx((290, 1050, 3), abs=2)
  assert not _where(pixels, COLORS[0]).any()
  for color, shape in ((COLORS[1], 40 / 100), (COLORS[2], 600 / 300)):
    face = _where(pixels, color)
    height, width = face.any(axis=1).sum(), face.any(axis=0).sum()
    assert max(height, width) > 100
    assert height / width == pytest.approx(shape, rel=0.05)
  assert _where(pixels, ORANGE).any()


def test_mistakes_fills_rows(tmp_path):
  metrics = _metrics([1] * 30, [0] * 30, np.linspace(0.5, 0.9, 30))
  plot_mistakes(metrics, _Faces(), tmp_path / "mistakes.png")
  pixels = _pixels(tmp_path / "mistakes.png")
  assert pixels.shape == pytest.approx((980, 1050, 3), abs=2)  # versions of matplotlib differ
  for row in range(4):
    band = pixels[60 + row * 230 : 60 + (row + 1) * 230]
    assert all(_where(band, color).sum() > 5000 for color in COLORS)


def test_no_mistakes_is_only_a_title(tmp_path):
  faces = _Faces()
  plot_mistakes(_metrics([0], [0], [0.9]), faces, tmp_path / "mistakes.png")
  pixels = _pixels(tmp_path / "mistakes.png")
  assert faces.read == []
  assert (pixels[:30] < 100).any()
  assert (pixels[30:] == 255).all()


def test_report(tmp_path):
  metrics = _metrics([1, 0, 2, 2], [0, 0, 2, 1], [0.5, 0.99, 0.8, 0.9])
  folder = tmp_path / "new" / "eval"
  ClassificationTask(NAMES).write_report(metrics, _Faces(), folder)
  names = ["confusion.png", "mistakes.png", "reliability.png"]
  assert sorted(p.name for p in folder.iterdir()) == names
  for name in names:
    pixels = _pixels(folder / name)
    assert min(pixels.shape[:2]) > 250
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
