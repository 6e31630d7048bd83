"""How many of the labels that `ferjax data audit` suspects in FER2013 do ten annotators reject?

FER+ has the votes of ten annotators for each face of FER2013. A label is confirmed as wrong if the
annotators have a majority (FER+'s rule: single votes do not count, more than half of the rest) for
another expression. The figure for records drawn at random is beside it.

The faces are the PublicTest part, without those that have a twin in Training: the default
classifier was trained on the votes of Training, and has seen none of these.

  python benchmarks/audit_fer2013.py --data DATA --output audit.json
"""

import argparse
import json
import pathlib
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from ferjax.audit.features import network_features, view_of
from ferjax.audit.issues import find_issues
from ferjax.audit.out_of_fold import out_of_fold
from ferjax.compilation_cache import enable_compilation_cache
from ferjax.data.datasets.base import Options
from ferjax.data.datasets.catalog import DATA_SETS
from ferjax.data.datasets.entries import Entry
from ferjax.data.datasets.ferplus import VOTES_TABLE, majority
from ferjax.data.datasets.parsing import read_rows
from ferjax.data.examples import load
from ferjax.data.preparation.duplicates import LEAK_FREE, HashedEntry, find_dropped, signature
from ferjax.expressions import FERPLUS_COLUMNS, SEVEN_EXPRESSIONS
from ferjax.tasks.classification.metrics import wilson_interval
from ferjax.weights.defaults import DEFAULT_CLASSIFIER
from ferjax.weights.opening import open_weights


def pixels(entry: Entry) -> np.ndarray:
  """The face, u8[h w 3]."""
  return load(entry, overhang=0.0, margin=0.0).image


def without_twins(entries: Sequence[Entry]) -> list[Entry]:
  """The validation entries without those that look like one of train."""
  hashed = [HashedEntry(x.split, x, signature(pixels(x))) for x in tqdm(entries, disable=None)]
  dropped = {(one.split, one.entry.key) for one, _ in find_dropped(hashed, LEAK_FREE)}
  return [x for x in entries if x.split == "val" and ("val", x.key) not in dropped]


def read_entries(folder: pathlib.Path) -> list[Entry]:
  """The faces of FER2013's PublicTest without twins; their key is the line of the table."""
  data_set = DATA_SETS["fer2013"]
  _, reading = data_set.read(folder, data_set.complete(Options(splits=("train", "val"))))
  return without_twins(reading.entries)


def rejections(folder: pathlib.Path, entries: Sequence[Entry]) -> tuple[np.ndarray, np.ndarray]:
  """Whether the majority of FER+ is another expression, and whether there is a majority."""
  rows = dict(read_rows(folder / VOTES_TABLE, FERPLUS_COLUMNS))
  found = [majority([int(rows[int(x.key)][c]) for c in FERPLUS_COLUMNS]) for x in entries]
  winners = ["" if x is None else FERPLUS_COLUMNS[int(np.argmax(x))] for x in found]
  given = [SEVEN_EXPRESSIONS[x.classes[0]] for x in entries]
  rejected = [bool(w) and w != label for w, label in zip(winners, given, strict=True)]
  return np.array(rejected), np.array([bool(w) for w in winners])


def share(rejected: np.ndarray, has_majority: np.ndarray) -> dict[str, float]:
  """Confirmed labels among records, with Wilson's interval."""
  count, confirmed = len(rejected), int(rejected.sum())
  low, high = wilson_interval(confirmed, count)
  return {
    "records": count,
    "confirmed": confirmed,
    "rate": confirmed / count,
    "low": low,
    "high": high,
    "without_majority": int(count - has_majority.sum()),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  add = parser.add_argument
  add("--data", required=True, help="folder with fer2013.csv and fer2013new.csv")
  add("--weights", default=DEFAULT_CLASSIFIER, help="of a classifier")
  add("--count", type=int, default=500)
  add("--folds", type=int, default=5)
  add("--seed", type=int, default=0)
  add("--output", help="file for the figures, as json")
  arguments = parser.parse_args()
  enable_compilation_cache()
  folder = pathlib.Path(arguments.data)
  entries = read_entries(folder)
  labels = np.array([x.classes[0] for x in entries])
  images = [x.image.values.hex() for x in entries]  # copies of an image are in one fold
  weights = open_weights(arguments.weights)
  view = view_of(weights)
  features = network_features(weights, (view(pixels(x)) for x in tqdm(entries, disable=None)))
  probabilities = out_of_fold(
    features, labels, images, SEVEN_EXPRESSIONS, folds=arguments.folds, seed=arguments.seed
  )
  issues = find_issues(labels, probabilities)
  rejected, has_majority = rejections(folder, entries)
  first = issues.suspected[: arguments.count]
  drawn = np.random.default_rng(arguments.seed).permutation(len(entries))[: arguments.count]
  content = {
    "weights": weights.name,
    "agreement": float((probabilities.argmax(axis=1) == labels).mean()),
    "first": share(rejected[first], has_majority[first]),
    "suspected": share(rejected[issues.suspected], has_majority[issues.suspected]),
    "random": share(rejected[drawn], has_majority[drawn]),
    "all": share(rejected, has_majority),
  }
  print(json.dumps(content, indent=2))
  if arguments.output:
    pathlib.Path(arguments.output).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
  main()
