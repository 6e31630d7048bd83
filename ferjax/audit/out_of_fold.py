"""Probabilities of the labels from classifiers that were not fitted on them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_REGULARISATION = 0.01  # inverse strength; the features are standardised
_ITERATIONS = 1000


def out_of_fold(
  features: Float[np.ndarray, "n c"],
  labels: Int[np.ndarray, "n"],
  groups: Sequence[str],
  class_names: Sequence[str],
  *,
  folds: int = 5,
  seed: int = 0,
) -> Float[np.ndarray, "n k"]:
  """The probabilities of each record from a logistic regression on the other folds.

  Args:
    features: of the records.
    labels: class ids; classes may be missing.
    groups: records of one group, such as a person or copies of one image, are in one fold.
    class_names: of the k classes.
    folds: number of folds, at least 2.
    seed: of the folds.

  Raises:
    ValueError: too few folds, a single class, or a class with fewer groups than folds.
  """
  if folds < 2:
    raise ValueError(f"--folds is {folds}; expected at least 2")
  _, group_ids = np.unique(np.asarray(groups), return_inverse=True)
  present = np.unique(labels)
  if len(present) < 2:
    found = ", ".join(class_names[int(c)] for c in present) or "none"
    raise ValueError(f"the records have labels of one class ({found}); expected at least two")
  for label in present:
    count = len(np.unique(group_ids[labels == label]))
    if count < folds:
      raise ValueError(
        f"the class {class_names[int(label)]} has {count} different images or persons, fewer than "
        f"the {folds} folds; pass --folds {max(count, 2)}"
        + ("" if count > 1 else ", and leave this class out, or add records")
      )
  probabilities = np.zeros((len(labels), len(class_names)))
  divisions = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
  for rest, fold in divisions.split(features, labels, group_ids):
    model = make_pipeline(
      StandardScaler(), LogisticRegression(C=_REGULARISATION, max_iter=_ITERATIONS)
    )
    model.fit(features[rest], labels[rest])
    probabilities[np.ix_(fold, model.classes_)] = model.predict_proba(features[fold])
  return probabilities
