"""Baseline: histograms of oriented gradients and logistic regression on a table of faces.

A network trained on the same faces should beat it.

  pip install -e ".[bench]"
  python benchmarks/hog_baseline.py --dir DATA/lfw5 \\
      --classes neutral,happiness,sadness,surprise,anger
"""

import argparse

import numpy as np
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ferjax.config import DataConfig
from ferjax.data.classification.views import center_view
from ferjax.data.loading import load_source
from ferjax.tasks.classification.metrics import ClassificationMetrics
from ferjax.training.metric_writer import format_table
from ferjax.typing import Classifications

SIZE = 64  # pixels
FOLDS = 4
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # of the inverse regularisation, chosen on the training split


def features(source) -> tuple[np.ndarray, np.ndarray]:
  """HOG of every face [n, f], and the labels as distributions [n, k]."""
  rows = []
  for i in range(len(source)):
    grey = center_view(source[i]["image"], SIZE, grey=True)[..., 0]
    rows.append(
      hog(grey, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2), block_norm="L2-Hys")
    )
  return np.stack(rows), source.labels


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--dir", required=True, help="folder of the table and its images")
  parser.add_argument("--csv", default="labels.csv")
  parser.add_argument("--classes", required=True, help="names, separated by commas")
  arguments = parser.parse_args()
  names = tuple(arguments.classes.split(","))
  config = DataConfig(source="csv", dir=arguments.dir, csv=arguments.csv, class_names=names)
  train, val = (features(load_source(config, split)) for split in ("train", "val"))
  counts = f"{len(train[0])} faces for training, {len(val[0])} for validation"
  print(f"{counts}, {train[0].shape[1]} features")
  search = GridSearchCV(
    make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)),
    {"logisticregression__C": STRENGTHS},
    scoring="balanced_accuracy",
    cv=StratifiedKFold(FOLDS, shuffle=True, random_state=0),
  )
  search.fit(train[0], train[1].argmax(axis=1))
  print(f"C = {search.best_params_['logisticregression__C']:g}")
  probabilities = search.predict_proba(val[0]).astype(np.float32)
  metrics = ClassificationMetrics(names)
  count = len(val[0])
  metrics.add(
    Classifications(probabilities, probabilities.argmax(axis=1).astype(np.int32)),
    {
      "label": val[1],
      "mask": np.ones(count, bool),
      "index": np.arange(count, dtype=np.int32),
      "skipped": np.zeros(count, bool),
    },
  )
  print(format_table(metrics.compute()))


if __name__ == "__main__":
  main()
