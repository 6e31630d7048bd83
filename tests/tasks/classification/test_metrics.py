import numpy as np
import pytest
import scipy.stats

from ferjax.tasks.classification.metrics import ClassificationMetrics, Mistake, wilson_interval
from ferjax.typing import Classifications

NAMES = ("happy", "sad", "calm")


def _predictions(predicted, confidence=0.9, k: int = 3) -> Classifications:
  """The other classes share the rest of the probability equally."""
  predicted = np.asarray(predicted)
  confidence = np.broadcast_to(confidence, predicted.shape)[:, None]
  other = (1 - confidence) / (k - 1)
  probabilities = np.where(np.eye(k)[predicted] > 0, confidence, other)
  return Classifications(probabilities.astype(np.float32), predicted.astype(np.int32))


def _truth(label, *, mask=None, k: int = 3) -> dict:
  label = np.asarray(label)
  size = len(label)
  return {
    "label": (np.eye(k)[label] if label.ndim == 1 else label).astype(np.float32),
    "mask": np.ones(size, bool) if mask is None else np.asarray(mask),
    "index": np.arange(size, dtype=np.int32),
    "skipped": np.zeros(size, bool),
  }


def _metrics(classifications, truth, names=NAMES) -> ClassificationMetrics:
  metrics = ClassificationMetrics(names)
  metrics.add(classifications, truth)
  return metrics


def _random(seed: int, size: int) -> tuple[Classifications, dict]:
  rng = np.random.default_rng(seed)
  probabilities = rng.dirichlet(np.ones(3), size).astype(np.float32)
  return Classifications(probabilities, probabilities.argmax(1)), _truth(rng.integers(0, 3, size))


def _take(rows, classifications, truth) -> tuple[Classifications, dict]:
  return (
    Classifications(*(x[rows] for x in classifications)),
    {name: x[rows] for name, x in truth.items()},
  )


def test_by_hand():
  #                     right, right, wrong, right, wrong, wrong
  metrics = _metrics(_predictions([0, 0, 1, 1, 0, 1]), _truth([0, 0, 0, 1, 1, 2]))
  assert metrics.confusion_matrix().tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
  result = metrics.compute()
  f1 = {"happy": 2 * 2 / (3 + 3), "sad": 2 * 1 / (2 + 3), "calm": 0.0}
  expected = {
    "accuracy": 3 / 6,
    "balanced_accuracy": (2 / 3 + 1 / 2 + 0) / 3,
    "macro_f1": sum(f1.values()) / 3,
    "f1_accuracy": 0.67 * sum(f1.values()) / 3 + 0.33 / 2,
    "ece": 0.9 - 0.5,
    "num_images": 6,
    "precision/happy": 2 / 3,
    "precision/sad": 1 / 3,
    "precision/calm": 0,
    "recall/happy": 2 / 3,
    "recall/sad": 1 / 2,
    "recall/calm": 0,
    "count/happy": 3,
    "count/sad": 2,
    "count/calm": 1,
    **{f"f1/{name}": value for name, value in f1.items()},
  }
  assert {name: result[name] for name in expected} == pytest.approx(expected)
  intervals = {f"{name}_{end}" for name in list(expected)[:3] for end in ("low", "high")}
  per_class = {f"recall_{end}/{name}" for name in NAMES for end in ("low", "high")}
  assert set(result) == set(expected) | intervals | per_class
  assert all(type(value) is float for value in result.values())


def test_outcomes_give_the_rates():
  metrics = _metrics(_predictions([0, 0, 1, 1, 0, 1]), _truth([0, 0, 0, 1, 1, 2]))
  outcomes = metrics.outcomes()
  assert outcomes["accuracy"].successes.ravel().tolist() == [1, 1, 0, 1, 0, 0]
  assert outcomes["accuracy"].trials.ravel().tolist() == [1] * 6
  successes, trials = outcomes["balanced_accuracy"]
  assert successes.sum(axis=0).tolist() == [2, 1, 0]
  assert trials.sum(axis=0).tolist() == [3, 2, 1]
  assert np.mean(successes.sum(0) / trials.sum(0)) == metrics.compute()["balanced_accuracy"]


def test_means_exclude_classes_without_examples():
  result = _metrics(_predictions([0, 2, 1]), _truth([0, 0, 1])).compute()
  assert result["balanced_accuracy"] == pytest.approx((1 / 2 + 1) / 2)
  assert result["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
  assert [name for name in result if name.endswith("/calm")] == ["count/calm"]
  assert result["count/calm"] == 0


def test_soft_labels_are_scored_by_their_largest_probability():
  label = [[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]]  # the first of two equal probabilities counts
  assert _metrics(_predictions([1, 0]), _truth(np.array(label))).compute()["accuracy"] == 1


def test_masked_examples_do_not_count():
  predictions, truth = _random(0, 40)
  expected = _metrics(predictions, truth)
  padded = [np.concatenate([x, x[:5]]) for x in predictions]
  padded[0][40:] = np.nan
  other = {name: np.concatenate([x, x[:5]]) for name, x in truth.items()}
  other["mask"][40:] = False
  other["label"][40:] = 7
  metrics = _metrics(Classifications(*padded), other)
  assert metrics.compute() == expected.compute()
  assert metrics.mistakes(99) == expected.mistakes(99)


def test_batches_in_any_order_give_the_same_metrics():
  predictions, truth = _random(1, 100)
  expected = _metrics(predictions, truth)
  metrics = ClassificationMetrics(NAMES)
  order = np.random.default_rng(2).permutation(100)
  for rows in np.split(order, [1, 1, 30, 64]):
    metrics.add(*_take(rows, predictions, truth))
  assert len(metrics) == 100
  assert metrics.compute() == pytest.approx(expected.compute(), rel=1e-12)
  assert metrics.mistakes(20) == expected.mistakes(20)


def test_calibration_error_by_hand():
  # Bins of 1/15: (0.6, 0.667] holds two predictions, (0.933, 1] three, (0.4, 0.467] one.
  confidence = [0.61, 0.65, 0.95, 0.99, 1.0, 0.45]
  right = [True, False, True, True, False, True]
  metrics = _metrics(_predictions([0] * 6, confidence), _truth([0 if r else 1 for r in right]))
  count, mean, accuracy = metrics.reliability()
  assert {int(i): int(count[i]) for i in np.flatnonzero(count)} == {6: 1, 9: 2, 14: 3}
  np.testing.assert_allclose(mean[[6, 9, 14]], [0.45, 0.63, 2.94 / 3], rtol=1e-6)
  np.testing.assert_allclose(accuracy[[6, 9, 14]], [1, 1 / 2, 2 / 3], rtol=1e-6)
  expected = (1 * (1 - 0.45) + 2 * (0.63 - 0.5) + 3 * (0.98 - 2 / 3)) / 6
  assert metrics.calibration_error() == pytest.approx(expected, rel=1e-6)
  assert metrics.compute()["ece"] == metrics.calibration_error()


def test_calibrated_predictions_have_no_calibration_error():
  rng = np.random.default_rng(3)
  confidence = rng.uniform(0.4, 1, 50_000)
  label = np.where(rng.random(50_000) < confidence, 0, 1)
  predictions = _predictions(np.zeros(50_000, int), confidence)
  assert _metrics(predictions, _truth(label)).calibration_error() < 0.01


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (5, 5), (1, 1), (3, 8), (60, 67), (900, 1000)])
def test_wilson_interval_equals_scipy(hits, count):
  expected = scipy.stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
  np.testing.assert_allclose(wilson_interval(hits, count), expected, rtol=1e-9, atol=1e-15)


def test_recall_of_a_class_has_the_wilson_interval():
  result = _metrics(_predictions([0] * 6 + [1] * 4), _truth([0] * 8 + [1] * 2)).compute()
  low, high = scipy.stats.binomtest(6, 8).proportion_ci(0.95, method="wilson")
  assert (result["recall_low/happy"], result["recall_high/happy"]) == pytest.approx((low, high))


def test_bootstrap_of_the_accuracy_equals_the_binomial_interval():
  count, hits = 400, 280
  predicted = np.where(np.arange(count) < hits, 0, 1)
  result = _metrics(_predictions(predicted), _truth([0] * count)).compute()
  expected = scipy.stats.binom(count, hits / count).ppf([0.025, 0.975]) / count
  interval = np.array([result["accuracy_low"], result["accuracy_high"]])
  np.testing.assert_allclose(interval, expected, atol=2.5 / count)


def test_bootstrap_equals_resampling_the_examples():
  rng = np.random.default_rng(4)
  label = rng.choice(3, 200, p=[0.7, 0.2, 0.1])
  predicted = np.where(rng.random(200) < 0.6, label, rng.integers(0, 3, 200))
  result = _metrics(_predictions(predicted), _truth(label)).compute()
  resampled = []
  for _ in range(2000):
    rows = rng.integers(0, 200, 200)
    t, p = label[rows], predicted[rows]
    resampled.append(
      (
        np.mean([np.mean(p[t == c] == c) for c in range(3)]),
        np.mean([2 * np.sum((t == c) & (p == c)) / (sum(t == c) + sum(p == c)) for c in range(3)]),
      )
    )
  for name, values in zip(("balanced_accuracy", "macro_f1"), np.transpose(resampled), strict=True):
    interval = [result[f"{name}_low"], result[f"{name}_high"]]
    np.testing.assert_allclose(interval, np.percentile(values, (2.5, 97.5)), atol=0.02)
    assert interval[0] < result[name] < interval[1]


def test_interval_width_and_seed():
  """Intervals shrink with more examples, and depend on the seed."""
  predictions, truth = _random(5, 100_000)
  metrics = _metrics(predictions, truth)
  first = metrics.compute()
  assert 0.004 < first["accuracy_high"] - first["accuracy_low"] < 0.008
  assert metrics.compute() == first
  metrics.seed = 1
  other = metrics.compute()
  assert other["accuracy"] == first["accuracy"]
  assert other["macro_f1_low"] != first["macro_f1_low"]


def test_mistakes_by_decreasing_confidence():
  predictions = _predictions([1, 0, 2, 2, 1], [0.7, 0.9, 0.8, 0.7, 0.99])
  metrics = _metrics(predictions, _truth([0, 0, 1, 0, 1]) | {"index": np.array([9, 8, 7, 6, 5])})
  first, *rest = metrics.mistakes(2)
  assert first == Mistake(7, 1, 2, pytest.approx(0.8))
  assert rest == [
    Mistake(6, 0, 2, pytest.approx(0.7))
  ]  # the first of two equal ones by record number
  assert [mistake.index for mistake in metrics.mistakes(10)] == [7, 6, 9]
  assert metrics.mistakes(0) == []


def test_metrics_without_examples_are_undefined():
  metrics = _metrics(_predictions([0, 1]), _truth([0, 1], mask=[False, False]))
  assert len(metrics) == 0
  assert metrics.confusion_matrix().tolist() == [[0] * 3] * 3
  assert metrics.mistakes(3) == []
  for compute in (metrics.compute, metrics.calibration_error):
    with pytest.raises(ValueError, match=r"no example was added\. Check that the evaluation split"):
      compute()


def test_invalid_batches():
  with pytest.raises(ValueError, match="Classifications of 2 examples and labels of 3"):
    _metrics(_predictions([0, 1]), _truth([0, 1, 2]))
  with pytest.raises(ValueError, match=r"Labels have the shape \(2, 4\); expected 3 columns"):
    _metrics(_predictions([0, 1]), _truth([0, 1], k=4))
  with pytest.raises(ValueError, match=r"Probabilities have the shape \(2, 4\); expected 3"):
    _metrics(_predictions([0, 1], k=4), _truth([0, 1]))
  for label in ([0, 0, 0], [3, 1, 0], [-1, 2, 0], [np.nan, 0.5, 0.5]):
    with pytest.raises(ValueError, match=r"Example 1: the label \[.*\] is not a distribution"):
      _metrics(_predictions([0, 1]), _truth(np.array([[0, 1, 0], label])))
  predictions = _predictions([0, 1])
  predictions.probabilities[0] = np.nan
  with pytest.raises(ValueError, match=r"Example 0: the probabilities \[nan.* are not finite"):
    _metrics(predictions, _truth([0, 1]))


def test_arrays_have_everything_in_the_order_of_the_records():
  predictions, truth = _random(3, 20)
  order = np.random.default_rng(0).permutation(20)
  metrics = _metrics(*_take(order, predictions, truth))
  arrays = metrics.arrays()
  assert arrays["index"].tolist() == list(range(20))
  assert arrays["truth"].tolist() == truth["label"].argmax(1).tolist()
  restored = ClassificationMetrics.from_arrays(NAMES, arrays)
  assert restored.compute() == metrics.compute() == _metrics(predictions, truth).compute()
