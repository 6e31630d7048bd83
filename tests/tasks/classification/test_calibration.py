import numpy as np
import pytest
import scipy.special

from ferjax.tasks.classification.calibration import fit_temperature
from ferjax.tasks.classification.metrics import ClassificationMetrics
from ferjax.typing import Classifications


def _examples(scale=1.0, n=4000):
  """Probabilities, and classes that are drawn from those for a scale of 1."""
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(n, 4)) * 2
  cumulative = np.cumsum(scipy.special.softmax(logits, axis=1), axis=1)
  truth = (rng.random((n, 1)) > cumulative).sum(axis=1)
  return scipy.special.softmax(scale * logits, axis=1), truth


def test_two_classes_by_hand():
  """Four of five are right, with a probability of 0.6: log(0.6 / 0.4) / t = log(0.8 / 0.2)."""
  probabilities = np.tile([0.6, 0.4], (5, 1))
  found = fit_temperature(probabilities, np.array([0, 0, 0, 0, 1]))
  assert found == pytest.approx(np.log(1.5) / np.log(4), rel=1e-4)


def test_probabilities_that_are_right_stay():
  assert fit_temperature(*_examples()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("scale", [0.3, 2.5])
def test_scaled_logits_are_scaled_back(scale):
  expected = scale * fit_temperature(*_examples())
  assert fit_temperature(*_examples(scale)) == pytest.approx(expected, rel=1e-3)


def test_no_temperature_of_a_grid_is_better():
  probabilities, truth = _examples(0.6)

  def loss(temperature):
    scaled = probabilities ** (1 / temperature)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return -np.log(scaled[np.arange(len(truth)), truth]).mean()

  best = loss(fit_temperature(probabilities, truth))
  assert best <= min(map(loss, np.geomspace(0.1, 10, 101)))
  assert best < loss(1.0) - 0.01


def test_the_calibration_error_falls_and_no_label_changes():
  probabilities, truth = _examples(0.5)
  temperature = fit_temperature(probabilities, truth)
  scaled = scipy.special.softmax(np.log(probabilities) / temperature, axis=1)
  before, after = _metrics(probabilities, truth), _metrics(scaled, truth)
  assert before["ece"] > 0.15
  assert after["ece"] < 0.03
  assert before["accuracy"] == after["accuracy"]


def _metrics(probabilities, truth):
  metrics = ClassificationMetrics(tuple("abcd"))
  metrics.add(
    Classifications(probabilities, probabilities.argmax(axis=1)),
    {
      "label": np.eye(4)[truth],
      "mask": np.ones(len(truth), bool),
      "index": np.arange(len(truth)),
    },
  )
  return metrics.compute()


def test_a_probability_of_zero_for_the_true_class():
  """Has a finite loss, so the best temperature is high, but inside the limits."""
  found = fit_temperature(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
  assert 1 < found <= 20


@pytest.mark.parametrize(
  ("probabilities", "truth", "problem"),
  [
    (
      np.ones((2, 3)) / 3,
      np.array([0]),
      r"\(2, 3\) and the classes \(1,\); expected \(n, k\)",
    ),
    (np.ones((0, 3)), np.array([], int), "of at least one example"),
    (np.array([[0.5, 0.5], [0.9, 0.9]]), np.array([0, 1]), r"example 1 are \[0.9, 0.9\]; expected"),
    (np.array([[1.5, -0.5]]), np.array([0]), r"example 0 are \[1.5, -0.5\]; expected"),
    (np.array([[np.nan, 1.0]]), np.array([0]), r"example 0 are \[nan, 1.0\]; expected"),
    (np.ones((1, 3)) / 3, np.array([3]), r"the class of example 0 is 3; expected 0\.\.2"),
    (np.ones((1, 3)) / 3, np.array([-1]), r"the class of example 0 is -1; expected 0\.\.2"),
  ],
)
def test_wrong_examples(probabilities, truth, problem):
  with pytest.raises(ValueError, match=problem):
    fit_temperature(probabilities, truth)
