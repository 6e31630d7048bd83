"""Compares runs that started from known weights with runs from scratch, on validation faces.

Each run directory has a folder per seed (`train.seeds`). The last step of each is evaluated, so
nothing is selected on the validation faces. The prediction is the most probable of the table's
classes, and of these weights' classes the others do not count. Accuracies are means over the seeds.
Their intervals, and those of the differences from the first row, are the percentiles of a bootstrap
over the people in the table, in pairs; they do not contain the variation between seeds.

  python benchmarks/fine_tuning.py --csv DATA/lfw5/labels.csv \\
      --classes neutral,happiness,sadness,surprise,anger --weights fermam-nano-ferplus \\
      "from scratch=runs/scratch" "fine-tuned=runs/tuned"
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from crop_robustness import classify
from jaxtyping import Bool, Float, Int

from ferjax.compilation_cache import enable_compilation_cache
from ferjax.data.datasets.base import Options
from ferjax.data.datasets.catalog import DATA_SETS
from ferjax.data.datasets.entries import Entry
from ferjax.data.image import decode
from ferjax.inference.classification import ExpressionClassifier
from ferjax.tasks.classification.metrics import NUM_RESAMPLES

Hits = Bool[np.ndarray, "r n"]  # of r runs on n faces


def read_faces(table: pathlib.Path, class_names: tuple[str, ...]) -> list[Entry]:
  """The validation faces of a table."""
  options = Options(class_names=class_names, table=table.name, splits=("val",))
  _, reading = DATA_SETS["csv"].read(table.parent, DATA_SETS["csv"].complete(options))
  if reading.problems:
    raise SystemExit(reading.problems[0])
  return reading.entries


def hits(
  classifier: ExpressionClassifier, faces: Sequence[Entry], class_names: Sequence[str]
) -> Bool[np.ndarray, "n"]:
  """Whether the most probable of the classes is the label of each face."""
  subset = [classifier.class_names.index(name) for name in class_names]
  images = (decode(str(face.image)) for face in faces)
  found = classify(classifier, images, subset).argmax(axis=1)
  return found == np.array([face.classes[0] for face in faces])


def resample_people(faces: Sequence[Entry], seed: int = 0) -> Int[np.ndarray, "s n"]:
  """How often each face is in each bootstrap sample of the people."""
  names = sorted({face.group for face in faces})
  person = np.array([names.index(face.group) for face in faces])
  rng = np.random.default_rng(seed)
  drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), NUM_RESAMPLES)
  return drawn[:, person]


def accuracies(
  correct: Hits, truth: Int[np.ndarray, "n"], weights: Int[np.ndarray, "s n"]
) -> dict[str, Float[np.ndarray, "s"]]:
  """Means over runs of accuracy and balanced accuracy, for each weighting of the faces.

  A class without a face in a sample does not count in its balanced accuracy.
  """
  mean = correct.mean(axis=0)
  recalls = np.full((len(weights), truth.max() + 1), np.nan)
  for c in np.unique(truth):
    total = weights[:, truth == c].sum(axis=1)
    found = weights[:, truth == c] @ mean[truth == c]
    np.divide(found, total, out=recalls[:, c], where=total > 0)
  return {
    "accuracy": weights @ mean / weights.sum(axis=1),
    "balanced accuracy": np.nanmean(recalls, axis=1),
  }


def report(rows: Mapping[str, Hits], faces: Sequence[Entry], class_names: Sequence[str]) -> None:
  """Prints a table of the figures, and one of the seeds and recalls."""
  truth = np.array([face.classes[0] for face in faces])
  weights, one = resample_people(faces), np.ones((1, len(faces)), int)
  whole = {name: accuracies(correct, truth, one) for name, correct in rows.items()}
  drawn = {name: accuracies(correct, truth, weights) for name, correct in rows.items()}
  first = next(iter(rows))
  print("| | metric | mean | of each seed | minus the first row |\n| --- | --- | --- | --- | --- |")
  for name, correct in rows.items():
    for metric, (value,) in whole[name].items():
      seeds = ", ".join(f"{accuracies(run[None], truth, one)[metric][0]:.3f}" for run in correct)
      change = value - whole[first][metric][0]
      between = _interval(drawn[name][metric] - drawn[first][metric], "+")
      cells = (name, metric, f"{value:.3f} ({_interval(drawn[name][metric])})", seeds)
      print(f"| {' | '.join(cells)} | {'-' if name == first else f'{change:+.3f} ({between})'} |")
  print(f"\n| recall | {' | '.join(class_names)} |\n| --- |{' ---: |' * len(class_names)}")
  for name, correct in rows.items():
    recalls = [correct[:, truth == c].mean() for c in range(len(class_names))]
    print(f"| {name} | {' | '.join(f'{recall:.2f}' for recall in recalls)} |")


def _interval(values: Float[np.ndarray, "s"], sign: str = "") -> str:
  low, high = np.percentile(values, (2.5, 97.5))
  return f"{low:{sign}.3f} to {high:{sign}.3f}"


def main() -> None:
  """Evaluates the last step of all seeds of all runs."""
  parser = argparse.ArgumentParser(description="Compares fine-tuned runs with others.")
  parser.add_argument("runs", nargs="+", metavar="NAME=DIR")
  parser.add_argument("--csv", required=True, type=pathlib.Path)
  parser.add_argument("--classes", required=True, metavar="A,B,...")
  parser.add_argument("--weights", help="also evaluates known weights as they are")
  arguments = parser.parse_args()
  enable_compilation_cache()
  class_names = tuple(arguments.classes.split(","))
  faces = read_faces(arguments.csv.expanduser(), class_names)
  print(f"{len(faces)} faces of {len({face.group for face in faces})} people\n")
  checkpoints = {}
  for run in arguments.runs:
    name, _, folder = run.partition("=")
    if not (seeds := sorted(pathlib.Path(folder).glob("seed_*"))):
      parser.error(f"{run!r}: no folders seed_* there; expected NAME=DIR of a run with train.seeds")
    checkpoints[name] = [ExpressionClassifier(seed, step="latest") for seed in seeds]
  if arguments.weights:
    checkpoints[f"{arguments.weights} as it is"] = [ExpressionClassifier(arguments.weights)]
  rows = {
    name: np.stack([hits(classifier, faces, class_names) for classifier in classifiers])
    for name, classifiers in checkpoints.items()
  }
  report(rows, faces, class_names)


if __name__ == "__main__":
  main()
