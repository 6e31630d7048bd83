"""Accuracy of a classifier on faces of a set, and on crops that are larger, smaller or shifted.

A detector's box is not the crop of the training set. This evaluates all faces of a set with the
crops of the set, with crops 10 % larger and smaller, and with crops shifted by 10 % of their side
in four directions, each with and without averaging the probabilities of the crop and its mirror
image. What a crop has beyond the image repeats the image's border. Crops are cut at whole pixels.

  python benchmarks/crop_robustness.py runs/fermam --csv DATA/lfw5/labels.csv \\
      --classes neutral,happiness,sadness,surprise,anger --output lfw5.json
  python benchmarks/crop_robustness.py runs/fermam --prepared OUT/ferplus/.../1.0.0 --split val

With --classes, only the faces of these classes count, and the prediction is the most probable of
them. Recall has Wilson intervals, the other figures have those of the bootstrap; differences from
the set's own crop are resampled in pairs.
"""

import argparse
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float, UInt8

from ferjax.allocator import keep_freed_memory
from ferjax.compilation_cache import enable_compilation_cache
from ferjax.config import DataConfig
from ferjax.data.datasets.base import Options
from ferjax.data.datasets.catalog import DATA_SETS
from ferjax.data.distortions import crop
from ferjax.data.loading import load_source
from ferjax.data.sources import LabelledSource, ReleasedFaces
from ferjax.inference.classification import ExpressionClassifier
from ferjax.tasks.classification.metrics import NUM_RESAMPLES, ClassificationMetrics
from ferjax.trained import TrainedNetwork
from ferjax.typing import Classifications

# Name -> (side relative to the set's crop, shift to the right, shift downwards).
CROPS = {
  "as in the set": (1.0, 0.0, 0.0),
  "10 % larger": (1.1, 0.0, 0.0),
  "10 % smaller": (0.9, 0.0, 0.0),
  "10 % to the left": (1.0, -0.1, 0.0),
  "10 % to the right": (1.0, 0.1, 0.0),
  "10 % up": (1.0, 0.0, -0.1),
  "10 % down": (1.0, 0.0, 0.1),
}
Pixels = UInt8[np.ndarray, "_ _ 3"]
Classifiers = Mapping[bool, ExpressionClassifier]  # by whether they average flips


def classify(
  classifier: ExpressionClassifier, images: Iterable[Pixels], subset: Sequence[int]
) -> Float[np.ndarray, "n k"]:
  """The probabilities of the classes `subset`, which sum to one."""
  faces = classifier.classify_crops(images)
  rows = np.array([list(face.scores.values()) for face in faces], np.float64)[:, subset]
  return rows / rows.sum(axis=1, keepdims=True)


def collect(
  probabilities: Float[np.ndarray, "n k"], truth: np.ndarray, names: Sequence[str]
) -> ClassificationMetrics:
  """The predictions for these faces; `truth` has class ids."""
  metrics, count = ClassificationMetrics(names), len(truth)
  metrics.add(
    Classifications(cast(Any, probabilities), probabilities.argmax(axis=1).astype(np.int32)),
    {
      "label": np.eye(len(names), dtype=np.float32)[truth],
      "mask": np.ones(count, bool),
      "index": np.arange(count, dtype=np.int32),
    },
  )
  return metrics


def difference(
  hits: np.ndarray, other: np.ndarray, truth: np.ndarray, seed: int = 0
) -> dict[str, float]:
  """Balanced accuracy of `hits` minus that of `other`, with the interval of a paired bootstrap."""
  present = np.unique(truth)
  change = hits.astype(float) - other
  members = [np.flatnonzero(truth == c) for c in present]
  rng = np.random.default_rng(seed)
  # Within each class, so every class stays in every resample.
  draws = [
    change[rng.choice(rows, (NUM_RESAMPLES, len(rows)))].mean(axis=1, dtype=float)
    for rows in members
  ]
  low, high = np.percentile(np.mean(draws, axis=0), (2.5, 97.5))
  mean = np.mean([change[rows].mean() for rows in members])
  return {"difference": float(mean), "difference_low": float(low), "difference_high": float(high)}


def open_faces(arguments: argparse.Namespace, class_names: tuple[str, ...]) -> LabelledSource:
  """All faces of a table, or the faces of a split of a prepared set."""
  if arguments.prepared:
    config = DataConfig(source="prepared", dir=arguments.prepared, class_names=class_names)
    source = load_source(config, arguments.split, task="classification")
    if not isinstance(source, LabelledSource):
      raise SystemExit(f"{arguments.prepared} has no faces for classification")
    return source
  return open_table(pathlib.Path(arguments.csv).expanduser(), arguments.split, class_names)


def open_table(table: pathlib.Path, split: str, class_names: tuple[str, ...]) -> ReleasedFaces:
  """The faces of a table with the columns image and label; of all splits if `split` is ""."""
  data_set = DATA_SETS["csv"]
  splits = (split,) if split else ()
  options = data_set.complete(Options(class_names=class_names, table=table.name, splits=splits))
  _, reading = data_set.read(table.parent, options)
  if reading.problems:
    raise SystemExit(reading.problems[0])
  return ReleasedFaces(reading.entries, class_names)


def with_and_without_flips(
  checkpoint: str | os.PathLike[str] | TrainedNetwork, batch_size: int
) -> Classifiers:
  """Classifiers of one network by whether they average flips, whatever the weights' default."""
  return {
    flip: ExpressionClassifier(checkpoint, batch_size=batch_size, flip=flip)
    for flip in (False, True)
  }


def evaluate(
  classifiers: Classifiers, source: LabelledSource, names: Sequence[str], *, step: int = 1
) -> Iterator[tuple[str, bool, dict[str, float]]]:
  """Yields (crop, whether flips are averaged, metrics) of every `step`-th face of the classes."""
  subset = [classifiers[False].class_names.index(name) for name in names]
  labels = np.asarray(source.labels).argmax(axis=1)
  rows = np.flatnonzero(np.isin(labels, subset))[::step]
  truth = np.array([subset.index(label) for label in labels[rows]])
  images = [source[int(row)]["image"] for row in rows]
  plain: dict[bool, np.ndarray] = {}  # hits with the set's own crop
  for name, change in CROPS.items():
    views = [crop(image, *change) for image in images]
    for flip, classifier in classifiers.items():
      probabilities = classify(classifier, views, subset)
      hits = probabilities.argmax(axis=1) == truth
      paired = difference(hits, plain.setdefault(flip, hits), truth)
      yield name, flip, {**collect(probabilities, truth, names).compute(), **paired}


def show(name: str, flip: bool, metrics: dict[str, float], names: Sequence[str]) -> str:
  """A row of the table."""
  recalls = "  ".join(
    f"{metrics[f'recall/{c}']:.3f} ({metrics[f'recall_low/{c}']:.2f}-"
    f"{metrics[f'recall_high/{c}']:.2f})"
    if f"recall/{c}" in metrics
    else "-"
    for c in names
  )
  return (
    f"{name:<18} {'yes' if flip else 'no':<4} {metrics['balanced_accuracy']:.3f} "
    f"({metrics['balanced_accuracy_low']:.3f}-{metrics['balanced_accuracy_high']:.3f})  "
    f"{metrics['difference']:+.3f} ({metrics['difference_low']:+.3f} to "
    f"{metrics['difference_high']:+.3f})  {metrics['accuracy']:.3f} "
    f"({metrics['accuracy_low']:.3f}-{metrics['accuracy_high']:.3f})  {recalls}"
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  add = parser.add_argument
  add("checkpoint", help="of a classifier, as for `ferjax predict`")
  data = parser.add_mutually_exclusive_group(required=True)
  data.add_argument("--csv", help="table with the columns image, label and split")
  data.add_argument("--prepared", help="folder that `ferjax data prepare` wrote")
  add("--split", default="", help="of the data (default: all rows of a table, val if prepared)")
  add("--classes", default="", help="names, separated by commas (default: those of the model)")
  add("--batch-size", type=int, default=64)
  add("--output", help="file for all metrics, as json")
  arguments = parser.parse_args()
  if arguments.prepared:
    arguments.split = arguments.split or "val"
  keep_freed_memory()
  enable_compilation_cache()
  classifiers = with_and_without_flips(arguments.checkpoint, arguments.batch_size)
  classifier = classifiers[False]
  names = tuple(filter(None, arguments.classes.split(","))) or classifier.class_names
  if unknown := [name for name in names if name not in classifier.class_names]:
    raise SystemExit(
      f"--classes: the model does not know {', '.join(unknown)}; it knows "
      f"{', '.join(classifier.class_names)}"
    )
  source = open_faces(arguments, classifier.class_names)
  print(f"{arguments.checkpoint}, step {classifier.step}; {len(source)} faces")
  print(
    "crop, flips averaged, balanced accuracy, its difference from the set's own crop, accuracy, "
    f"recall of {', '.join(names)}"
  )
  results = []
  for name, flip, metrics in evaluate(classifiers, source, names):
    print(show(name, flip, metrics, names), flush=True)
    results.append({"crop": name, "flip": flip, **metrics})
  if arguments.output:
    content = {
      "checkpoint": arguments.checkpoint,
      "step": classifier.step,
      "data": arguments.csv or arguments.prepared,
      "split": arguments.split or "all",
      "classes": list(names),
      "results": results,
    }
    pathlib.Path(arguments.output).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
  main()
