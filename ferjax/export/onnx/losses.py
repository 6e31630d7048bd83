"""What a smaller file loses: agreement with the float32 file, and accuracy on labelled data."""

import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ferjax.data.datasets.base import Options
from ferjax.data.datasets.catalog import DATA_SETS
from ferjax.data.prepared import open_prepared
from ferjax.data.sources import ReleasedFaces, Source
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.data.synthetic.scenes import MIN_IMAGE_SIZE, SyntheticScenes
from ferjax.export.exported_file import ExportedFile
from ferjax.export.onnx.reader import open_session
from ferjax.export.predictors import ExportedClassifier, ExportedDetector
from ferjax.expressions import EXPRESSIONS
from ferjax.inference.base import ImagePredictor
from ferjax.inference.results import Face
from ferjax.tasks.classification.metrics import ClassificationMetrics
from ferjax.tasks.detection.metrics import FACE_AP, DetectionMetrics
from ferjax.tasks.detection.voc import ImageResult, match_boxes
from ferjax.typing import Classifications

_LOWEST_SCORE = 0.01  # average precision needs the weak detections, too
_DRAWINGS = 32
_BATCH = 1  # the ranges of a dynamic quantisation are those of the whole batch
_METRICS = {"classification": ("accuracy", "balanced_accuracy"), "detection": (FACE_AP, "map50")}


def predictor_of(file: ExportedFile, **settings: float) -> ImagePredictor:
  """The predictor that runs a file; `settings` are those of `ExportedDetector`."""
  if file.description["task"] == "detection":
    return ExportedDetector(file, batch_size=_BATCH, **settings)  # pyright: ignore
  return ExportedClassifier(file, batch_size=_BATCH)


def agreement(
  smaller: ExportedFile, full: ExportedFile, images: Sequence[np.ndarray]
) -> dict[str, int | float]:
  """Compares the faces that two files find in images u8[h w 3].

  Returns:
    `faces`, of the full file; `found`, those of them that the smaller file finds at an IoU of 0.5
    (all of them for a classifier); `additional` faces of the smaller file; `same_expression`, the
    share of the found ones; and `largest_difference` of all their scores. The last two are left out
    if no face was found.
  """
  faces, additional, same, differences = 0, 0, [], []
  predictions = (predictor_of(file).predict(images) for file in (smaller, full))
  for ours, theirs in zip(*predictions, strict=True):
    pairs = _pairs(ours.faces, theirs.faces)
    faces += len(theirs.faces)
    additional += len(ours.faces) - len(pairs)
    for face, other in pairs:
      same.append(face.expression == other.expression)
      differences += [abs(face.scores[name] - x) for name, x in other.scores.items()]
  counts: dict[str, int | float] = {"faces": faces, "found": len(same), "additional": additional}
  if not same:
    return counts
  return counts | {
    "same_expression": float(np.mean(same)),
    "largest_difference": float(max(differences)),
  }


def _pairs(ours: Sequence[Face], theirs: Sequence[Face]) -> list[tuple[Face, Face]]:
  """Faces of two predictions that are the same face."""
  if all(face.box is None for face in (*ours, *theirs)):
    return list(zip(ours, theirs, strict=True))
  match = match_boxes(_boxes(ours), np.array([face.score for face in ours]), _boxes(theirs))
  return [(face, theirs[i]) for face, i in zip(ours, match, strict=True) if i >= 0]


def _boxes(faces: Sequence[Face]) -> np.ndarray:
  return np.array([face.box for face in faces], np.float64).reshape(-1, 4)


def latencies(
  models: Sequence[bytes], feed: Mapping[str, np.ndarray], *, seconds: float = 0.3
) -> list[float]:
  """The median seconds of a call of each model, in turns, with one thread of the CPU.

  Args:
    models: ONNX files.
    feed: inputs by name.
    seconds: that each model may take, or five calls if these take longer.
  """
  sessions = [open_session(model, "the model", threads=1) for model in models]
  times: list[list[float]] = [[] for _ in models]
  for session in sessions:
    session.run(None, feed)
  while len(times[0]) < 5 or sum(map(sum, times)) < seconds * len(models):
    for session, own in zip(sessions, times, strict=True):
      start = time.perf_counter()
      session.run(None, feed)
      own.append(time.perf_counter() - start)
  return [float(np.median(own)) for own in times]


def open_labelled(path: str, split: str, task: str, class_names: Sequence[str]) -> Source:
  """Opens labelled images for a network.

  Args:
    path: a folder that `ferjax data prepare` wrote, or, for classifiers, a table `.csv` with the
      columns image, label and split.
    split: "train", "val" or "test"; "" for val.
    task: of the network.
    class_names: of the network.

  Raises:
    OSError: the table cannot be read.
    ValueError: no such data, for another task, with other classes, or malformed.
  """
  table = pathlib.Path(path).expanduser()
  if table.suffix.lower() != ".csv":
    source = open_prepared(path, split or "val", task=task)
    if tuple(source.class_names) != tuple(class_names):
      raise ValueError(
        f"--data-set {path} has the classes {', '.join(source.class_names)}; expected those of the "
        f"network in the same order: {', '.join(class_names)}. Prepare it with --classes"
      )
    return source
  if task != "classification":
    raise ValueError(
      f"--data-set {path} is a table of faces, but the network is for {task}; expected a folder "
      "that `ferjax data prepare` wrote"
    )
  if not table.is_file():
    raise FileNotFoundError(f"--data-set {path}: no such file; expected a table of faces")
  data_set = DATA_SETS["csv"]
  names, split = tuple(class_names), split or "val"
  options = data_set.complete(Options(class_names=names, table=table.name, splits=(split,)))
  _, reading = data_set.read(table.parent, options)
  if reading.problems:
    raise ValueError(f"--data-set: {reading.problems[0]}")
  return ReleasedFaces(reading.entries, names)


def labelled_drawings(task: str, class_names: Sequence[str], image_size: int) -> Source | None:
  """Drawings of the network's classes; None if one of them is no expression that is drawn."""
  if not set(class_names) <= set(EXPRESSIONS):
    return None
  kind = SyntheticScenes if task == "detection" else SyntheticFaces
  size = max(image_size, MIN_IMAGE_SIZE)
  return kind(_DRAWINGS, image_size=size, seed=1, class_names=tuple(class_names))


def evaluate(file: ExportedFile, source: Source) -> dict[str, float]:
  """Accuracy of a file: `accuracy` and `balanced_accuracy`, or `face_ap50` and `map50`.

  `map50` is left out if no box has a label.
  """
  task = file.description["task"]
  measure = _face_metrics if task == "classification" else _detection_metrics
  metrics = measure(file, source)
  return {name: metrics[name] for name in _METRICS[task] if name in metrics}


def _face_metrics(file: ExportedFile, source: Source) -> dict[str, float]:
  predictor = ExportedClassifier(file, batch_size=_BATCH)
  names = predictor.class_names
  metrics = ClassificationMetrics(names)
  labels: list[np.ndarray] = []
  faces = list(predictor.classify_crops(_images(source, label=labels)))
  classifications = Classifications(
    np.array([[face.scores[name] for name in names] for face in faces], np.float32),  # pyright: ignore
    np.array([names.index(face.expression) for face in faces], np.int32),  # pyright: ignore
  )
  mask, index = np.ones(len(faces), bool), np.arange(len(faces))
  metrics.add(classifications, {"label": np.stack(labels), "mask": mask, "index": index})
  return metrics.compute()


def _detection_metrics(file: ExportedFile, source: Source) -> dict[str, float]:
  predictor = predictor_of(file, score_threshold=_LOWEST_SCORE)
  names = predictor.class_names
  metrics = DetectionMetrics(names)
  boxes: list[np.ndarray] = []
  labels: list[np.ndarray] = []
  predictions = predictor.predict(_images(source, boxes=boxes, label=labels))
  for prediction, truth_boxes, truth_labels in zip(predictions, boxes, labels, strict=True):
    faces = prediction.faces
    result = ImageResult(
      boxes=_boxes(faces),
      scores=np.array([face.score for face in faces]),
      labels=np.array([names.index(face.expression) for face in faces], np.int64),
      truth_boxes=truth_boxes.astype(np.float64),
      truth_labels=truth_labels,
    )
    metrics.images.append(result)
  return metrics.compute()


def _images(source: Source, **collected: list[np.ndarray]) -> Iterator[np.ndarray]:
  """Yields all images, decoding each once; adds the other fields to the lists of their names."""
  for i in range(len(source)):
    example = source[i]
    for field, values in collected.items():
      values.append(example[field])
    yield example["image"]
