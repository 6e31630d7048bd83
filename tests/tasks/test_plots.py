import pathlib

import numpy as np
import pytest
from PIL import Image

from ferjax.tasks.detection.metrics import DetectionMetrics
from ferjax.tasks.detection.plots import plot_precision_recall
from ferjax.tasks.detection.task import DetectionTask
from ferjax.tasks.plots import plot_confusion
from ferjax.typing import Detections


def _metrics(names: tuple[str, ...], num_images: int = 40) -> DetectionMetrics:
  rng = np.random.default_rng(0)
  corner = rng.uniform(0, 100, (num_images, 3, 2))
  boxes = np.concatenate([corner, corner + rng.uniform(20, 60, (num_images, 3, 2))], axis=-1)
  label = rng.integers(0, len(names), (num_images, 3))
  found = np.where(rng.random(label.shape) < 0.7, label, rng.integers(0, len(names), label.shape))
  scores = rng.random(label.shape)
  metrics = DetectionMetrics(names)
  yes = np.ones(label.shape, bool)
  metrics.add(
    Detections(
      boxes + rng.normal(0, 4, boxes.shape), scores, found, np.eye(len(names))[found], yes
    ),
    {"boxes": boxes, "label": label, "box_mask": yes, "mask": yes[:, 0]},
  )
  return metrics


def _pixels(path: pathlib.Path) -> np.ndarray:
  with Image.open(path) as image:
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


NAMES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")


def test_precision_recall_draws_a_line_per_class(tmp_path):
  metrics = _metrics(NAMES)
  plot_precision_recall(metrics, tmp_path / "curves.png")
  pixels = _pixels(tmp_path / "curves.png")
  for color in ([0, 114, 178], [213, 94, 0], [0, 158, 115]):
    assert np.sum(np.all(pixels == color, axis=-1)) > 100
  assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_precision_recall_without_ground_truth_is_empty_axes(tmp_path):
  plot_precision_recall(DetectionMetrics(NAMES), tmp_path / "curves.png")
  assert not np.any(np.all(_pixels(tmp_path / "curves.png") == [0, 114, 178], axis=-1))


def test_detection_report_has_both_plots(tmp_path):
  metrics = _metrics(NAMES)
  DetectionTask(NAMES).write_report(metrics, [], tmp_path)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["confusion.png", "precision_recall.png"]
  for path in tmp_path.iterdir():
    assert len(np.unique(_pixels(path).reshape(-1, 3), axis=0)) > 10


def test_confusion_colours_the_diagonal_of_a_perfect_matrix(tmp_path):
  plot_confusion(np.eye(3, dtype=np.int64), ("a", "b", "c"), tmp_path / "perfect.png")
  plot_confusion(np.zeros((3, 3), np.int64), ("a", "b", "c"), tmp_path / "empty.png")
  dark = [8, 48, 107]  # the end of the colour map: a fraction of 1
  cells = np.sum(np.all(_pixels(tmp_path / "perfect.png") == dark, axis=-1))
  bar = np.sum(np.all(_pixels(tmp_path / "empty.png") == dark, axis=-1))
  assert cells > 10 * max(bar, 1)


def test_confusion_accepts_the_matrix_of_the_metrics(tmp_path):
  plot_confusion(_metrics(NAMES).confusion_matrix(), NAMES, tmp_path / "confusion.png")
  assert min(_pixels(tmp_path / "confusion.png").shape[:2]) > 500


def test_confusion_rejects_another_number_of_names(tmp_path):
  with pytest.raises(ValueError, match=r"\(5, 5\) does not match 3 class names; expected 3 or 4"):
    plot_confusion(np.zeros((5, 5), np.int64), ("a", "b", "c"), tmp_path / "x.png")
  assert not list(tmp_path.iterdir())


def test_new_plot_replaces_the_old_one(tmp_path):
  path = tmp_path / "confusion.png"
  path.write_bytes(b"old")
  plot_confusion(np.eye(2, dtype=np.int64), ("a", "b"), path)
  assert _pixels(path).ndim == 3


def test_class_names_of_any_script(tmp_path, caplog):
  """Matplotlib warns about every glyph that it cannot draw, and warnings are errors here."""
  names = ("中性", "高兴", "\U0010fffd")  # the last is for private use; no font has it
  for _ in range(2):
    plot_confusion(np.eye(3, dtype=np.int64), names, tmp_path / "confusion.png")
    plot_precision_recall(_metrics(names), tmp_path / "curves.png")
  messages = [record.getMessage() for record in caplog.records]
  assert (
    len([text for text in messages if "no font has all letters of the class names" in text]) == 1
  )
