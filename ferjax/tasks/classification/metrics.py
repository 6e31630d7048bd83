"""Metrics of a classifier, accumulated on the host."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ferjax.tasks.base import Outcomes
from ferjax.tasks.resampling import NUM_RESAMPLES
from ferjax.typing import Classifications

NUM_BINS = 15  # of the calibration error
_Z = 1.959963984540054  # quantile of the normal distribution for 95 %


class Mistake(NamedTuple):
  """A misclassified example: class ids, and the probability of the predicted class."""

  index: int
  truth: int
  predicted: int
  probability: float


class Reliability(NamedTuple):
  """Examples by the probability of the predicted class, in bins of equal width over 0..1.

  `confidence` and `accuracy` are means over the bin's examples, 0 for an empty bin.
  """

  count: Int[np.ndarray, "n"]
  confidence: Float[np.ndarray, "n"]
  accuracy: Float[np.ndarray, "n"]


class ClassificationMetrics:
  """Predictions and true classes of many examples, and the metrics computed from them.

  Adding several batches, in any order, gives the same metrics as adding all examples at once.

  Attributes:
    class_names: names in the order of the class ids.
    seed: of the bootstrap for the intervals.
  """

  def __init__(self, class_names: Sequence[str], *, seed: int = 0):
    self.class_names = tuple(class_names)
    self.seed = seed
    self._index: list[np.ndarray] = []
    self._truth: list[np.ndarray] = []
    self._predicted: list[np.ndarray] = []
    self._probability: list[np.ndarray] = []

  def add(self, classifications: Classifications, truth: Mapping[str, np.ndarray]) -> None:
    """Adds a batch.

    Args:
      classifications: NumPy arrays.
      truth: a `ClassificationBatch`, or only its fields `label`, `mask` and `index`. The true class
        of an example is the most probable class of its hard or soft label (the first of several).

    Raises:
      ValueError: the batches differ in size, a row has a different number of classes, a label is
        not a distribution, or a probability is not finite.
    """
    probabilities, predicted = map(np.asarray, classifications)
    label, mask, index = (np.asarray(truth[key]) for key in ("label", "mask", "index"))
    self._check(probabilities, label, mask, index)
    rows = np.flatnonzero(mask)
    self._index.append(index[rows].astype(np.int64))
    self._truth.append(np.argmax(label[rows], axis=1))
    self._predicted.append(predicted[rows].astype(np.int64))
    self._probability.append(probabilities[rows, predicted[rows]].astype(np.float64))

  def arrays(self) -> dict[str, np.ndarray]:
    """Everything that was added, by record: `index`, `truth`, `predicted` and `probability`."""
    index = _join(self._index, np.int64)
    order = np.argsort(index, kind="stable")
    return {
      "index": index[order],
      "truth": _join(self._truth, np.int64)[order],
      "predicted": _join(self._predicted, np.int64)[order],
      "probability": _join(self._probability, np.float64)[order],
    }

  @classmethod
  def from_arrays(
    cls, class_names: Sequence[str], arrays: Mapping[str, np.ndarray]
  ) -> "ClassificationMetrics":
    """The inverse of `arrays`; KeyError for a missing one."""
    metrics = cls(class_names)
    metrics._index = [arrays["index"]]
    metrics._truth = [arrays["truth"]]
    metrics._predicted = [arrays["predicted"]]
    metrics._probability = [arrays["probability"]]
    return metrics

  def __len__(self) -> int:
    """The number of added examples."""
    return sum(map(len, self._index))

  def compute(self) -> dict[str, float]:
    """The metrics by name, all in 0..1 except the counts.

    `accuracy`, `balanced_accuracy` (mean recall) and `macro_f1` (mean F1), each with the 95 %
    interval `<name>_low`, `<name>_high` of the percentile bootstrap over the examples;
    `f1_accuracy` is 0.67 * macro_f1 + 0.33 * accuracy, the score of the released FERMam program;
    `ece` is the expected calibration error of the predictions, in 15 bins of equal width.

    For every class: `count/<class>`, the number of its examples, and, if it is not 0,
    `precision/<class>`, `recall/<class>`, `f1/<class>` and the 95 % Wilson interval
    `recall_low/<class>`, `recall_high/<class>`. Classes without examples have only the count and
    are excluded from the means; predicting one of them is still an error. The precision of a
    class that was never predicted is 0. `num_images` counts all examples.

    Raises:
      ValueError: no example was added.
    """
    matrix = self.confusion_matrix()
    self._check_not_empty()
    values = {name: float(value[0]) for name, value in headline(matrix[None]).items()}
    for name, (low, high) in _bootstrap(matrix, self.seed).items():
      values |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    values["f1_accuracy"] = 0.67 * values["macro_f1"] + 0.33 * values["accuracy"]
    values["ece"] = self.calibration_error()

    hits, counts, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    for i, name in enumerate(self.class_names):
      values[f"count/{name}"] = float(counts[i])
      if counts[i] == 0:
        continue
      low, high = wilson_interval(int(hits[i]), int(counts[i]))
      values |= {
        f"precision/{name}": float(hits[i] / max(predicted[i], 1)),
        f"recall/{name}": float(hits[i] / counts[i]),
        f"recall_low/{name}": low,
        f"recall_high/{name}": high,
        f"f1/{name}": float(2 * hits[i] / (counts[i] + predicted[i])),
      }
    return {**values, "num_images": float(len(self))}

  def outcomes(self) -> dict[str, Outcomes]:
    """Of `accuracy`, and of `balanced_accuracy` with the classes as strata."""
    truth, predicted = _join(self._truth, np.int64), _join(self._predicted, np.int64)
    correct, of_class = (truth == predicted)[:, None], np.eye(len(self.class_names), dtype=int)
    return {
      "accuracy": Outcomes(correct.astype(int), np.ones_like(correct, int)),
      "balanced_accuracy": Outcomes(correct * of_class[truth], of_class[truth]),
    }

  def confusion_matrix(self) -> Int[np.ndarray, "k k"]:
    """Counts: row is the true class, column the predicted class."""
    k = len(self.class_names)
    cells = _join(self._truth, np.int64) * k + _join(self._predicted, np.int64)
    return np.bincount(cells, minlength=k * k).reshape(k, k)

  def reliability(self) -> Reliability:
    """The accuracy of predictions with similar probability."""
    probability = _join(self._probability, np.float64)
    correct = _join(self._truth, np.int64) == _join(self._predicted, np.int64)
    # A bin includes its upper edge and excludes its lower edge.
    bins = np.clip(np.ceil(probability * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    count = np.bincount(bins, minlength=NUM_BINS)
    confidence, accuracy = (
      np.bincount(bins, weights=x, minlength=NUM_BINS) / np.maximum(count, 1)
      for x in (probability, correct)
    )
    return Reliability(count, confidence, accuracy)

  def calibration_error(self) -> float:
    """The expected calibration error: |accuracy - confidence| of the bins, weighted by counts.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Raises:
      ValueError: no example was added.
    """
    self._check_not_empty()
    count, confidence, accuracy = self.reliability()
    return float(np.sum(count * np.abs(accuracy - confidence)) / np.sum(count))

  def mistakes(self, n: int) -> list[Mistake]:
    """At most `n` wrong predictions, in order of decreasing probability."""
    index, truth, predicted = (
      _join(x, np.int64) for x in (self._index, self._truth, self._predicted)
    )
    probability = _join(self._probability, np.float64)
    wrong = np.flatnonzero(truth != predicted)
    order = wrong[np.lexsort((index[wrong], -probability[wrong]))][:n]
    return [
      Mistake(int(index[i]), int(truth[i]), int(predicted[i]), float(probability[i])) for i in order
    ]

  def _check_not_empty(self) -> None:
    if len(self) == 0:
      raise ValueError(
        "Accuracy is not defined: no example was added. Check that the evaluation split is not "
        "empty and that its records can be read."
      )

  def _check(
    self, probabilities: np.ndarray, label: np.ndarray, mask: np.ndarray, index: np.ndarray
  ) -> None:
    if len(probabilities) != len(label):
      raise ValueError(
        f"Classifications of {len(probabilities)} examples and labels of {len(label)}; both must "
        "be of the same batch."
      )
    for name, array in (("Probabilities", probabilities), ("Labels", label)):
      if array.ndim != 2 or array.shape[1] != len(self.class_names):
        raise ValueError(
          f"{name} have the shape {array.shape}; expected {len(self.class_names)} columns, for "
          f"the classes {', '.join(self.class_names)}."
        )
    with np.errstate(invalid="ignore"):
      bad_label = (label < 0).any(axis=1) | ~(np.abs(label.sum(axis=1) - 1) < 1e-3)
    for wrong, text in (
      (bad_label, "label {} is not a distribution that sums to 1 (one-hot for a hard label)."),
      (~np.isfinite(probabilities).all(axis=1), "probabilities {} are not finite."),
    ):
      for i in np.flatnonzero(wrong & mask)[:1]:
        values = label[i] if wrong is bad_label else probabilities[i]
        raise ValueError(f"Example {index[i]}: the {text.format(values.tolist())}")


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
  """The 95 % interval of a proportion of `count` examples (Wilson, JASA 1927), uncorrected."""
  rate, spread = hits / count, _Z**2 / count
  center = (rate + spread / 2) / (1 + spread)
  half = _Z / (1 + spread) * np.sqrt(rate * (1 - rate) / count + spread / (4 * count))
  return float(max(center - half, 0.0)), float(min(center + half, 1.0))


def headline(matrices: Int[np.ndarray, "r k k"]) -> dict[str, Float[np.ndarray, "r"]]:
  """The metrics of each confusion matrix; the means exclude classes without examples."""
  hits = np.diagonal(matrices, axis1=1, axis2=2)
  counts, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
  # A class without examples has no correct predictions, and adds 0 to the sums below.
  num_present = np.count_nonzero(counts, axis=1)
  return {
    "accuracy": hits.sum(axis=1) / counts.sum(axis=1),
    "balanced_accuracy": np.sum(hits / np.maximum(counts, 1), axis=1) / num_present,
    "macro_f1": np.sum(2 * hits / np.maximum(counts + predicted, 1), axis=1) / num_present,
  }


def _bootstrap(matrix: Int[np.ndarray, "k k"], seed: int) -> dict[str, Float[np.ndarray, "2"]]:
  """(low, high) of each headline metric: percentiles over resamples.

  The metrics depend only on the counts, which are multinomial in a resample with replacement.
  Sampling the counts is equivalent to sampling the examples, at a cost that does not depend on
  their number.
  """
  count = matrix.sum()
  draws = np.random.default_rng(seed).multinomial(count, matrix.ravel() / count, NUM_RESAMPLES)
  resampled = headline(draws.reshape(NUM_RESAMPLES, *matrix.shape))
  return {name: np.percentile(values, (2.5, 97.5)) for name, values in resampled.items()}


def _join(arrays: list[np.ndarray], dtype: type) -> np.ndarray:
  return np.concatenate([np.empty(0, dtype), *arrays])
