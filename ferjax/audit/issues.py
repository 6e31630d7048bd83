"""Confident learning: which labels contradict the probabilities.

Northcutt, Jiang, Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021,
in the implementation of its authors, cleanlab.
"""

import dataclasses

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Issues:
  """The quality of labels.

  Attributes:
    quality: of each label, 0..1; the least likely labels have the lowest.
    suspected: records whose label is probably wrong, the least likely first.
    suggested: the most probable class of each record.
  """

  quality: Float[np.ndarray, "n"]
  suspected: Int[np.ndarray, "m"]
  suggested: Int[np.ndarray, "n"]


def find_issues(labels: Int[np.ndarray, "n"], probabilities: Float[np.ndarray, "n k"]) -> Issues:
  """Ranks labels by how well out-of-fold probabilities agree with them.

  The quality is the normalised margin: the probability of the label, minus that of the most
  probable other class. Suspected are, for each pair of classes, as many as confident learning
  estimates to be mislabelled.

  Args:
    labels: class ids.
    probabilities: of the classes, from models that were not fitted on the record.
  """
  present = np.unique(labels)  # cleanlab needs an example of each class
  columns = probabilities[:, present] / probabilities[:, present].sum(axis=1, keepdims=True)
  ids = np.searchsorted(present, labels)
  suspected = find_label_issues(ids, columns, n_jobs=1)
  quality = np.asarray(get_label_quality_scores(ids, columns, method="normalized_margin"))
  rows = np.flatnonzero(suspected)
  order = rows[np.argsort(quality[rows], kind="stable")]
  return Issues(quality, order, present[columns.argmax(axis=1)])
