"""The difference of two classifiers on the same records, with its interval."""

import numpy as np
from jaxtyping import Int

from ferjax.tasks.classification.metrics import ClassificationMetrics, headline
from ferjax.tasks.resampling import NUM_RESAMPLES, Estimate, estimate

_CELLS = 10_000_000  # counts in memory at once


def differences(
  first: ClassificationMetrics,
  second: ClassificationMetrics,
  *,
  resamples: int = NUM_RESAMPLES,
  seed: int = 0,
) -> dict[str, Estimate]:
  """`second` minus `first`, for accuracy, balanced accuracy and macro F1.

  The bootstrap is paired: a resample takes the same records for both, so what is difficult for both
  cancels. Records with the same class and the same two predictions are alike; their numbers in a
  resample are multinomial, so the cost hardly depends on the number of records.

  Raises:
    ValueError: other classes, other records, or records with another class.
  """
  a, b = first.arrays(), second.arrays()
  if first.class_names != second.class_names:
    raise ValueError(
      f"the classes are {', '.join(first.class_names)} and {', '.join(second.class_names)}; "
      "expected the same, in the same order"
    )
  if len(a["index"]) == 0:
    raise ValueError("there are no records to compare")
  for name in ("index", "truth"):
    if not np.array_equal(a[name], b[name]):
      raise ValueError(f"the two have different records (their {name} differs); expected the same")
  k = len(first.class_names)
  rows = np.stack([a["truth"], a["predicted"], b["predicted"]])
  kinds, counts = np.unique(rows, axis=1, return_counts=True)
  rng, number = np.random.default_rng(seed), int(counts.sum())
  point = _differences(kinds, counts[None], k)
  chunk = max(1, _CELLS // (len(counts) + 2 * k * k))
  drawn = [
    _differences(kinds, rng.multinomial(number, counts / number, min(chunk, resamples - start)), k)
    for start in range(0, resamples, chunk)
  ]
  return {
    name: estimate(float(value[0]), np.concatenate([part[name] for part in drawn]))
    for name, value in point.items()
  }


def _differences(
  kinds: Int[np.ndarray, "3 c"], counts: Int[np.ndarray, "r c"], k: int
) -> dict[str, np.ndarray]:
  """The differences of the metrics in each resample; `counts` are those of the kinds."""
  truth, *predictions = kinds
  metrics = []
  for predicted in predictions:
    matrices = np.zeros((k * k, len(counts)), np.int64)
    np.add.at(matrices, truth * k + predicted, counts.T)
    metrics.append(headline(matrices.T.reshape(-1, k, k)))
  return {name: metrics[1][name] - metrics[0][name] for name in metrics[0]}
