"""Temperature scaling: probabilities that are as high as the predictions are often right.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (arXiv:1706.04599).
"""

import numpy as np
import scipy.optimize
import scipy.special
from jaxtyping import Float, Int

_LIMITS = 0.05, 20.0  # of a temperature


def fit_temperature(probabilities: Float[np.ndarray, "n k"], truth: Int[np.ndarray, "m"]) -> float:
  """The temperature that makes true classes most likely, 0.05..20.

  Its use as `temperature` changes no prediction. Below 1, the probabilities are too uncertain, as
  those of networks that learned distributions of votes often are; above 1, they are too certain.

  Args:
    probabilities: of each class, with the flips and the logit adjustment of prediction and a
      temperature of 1. The examples must not be of the training set.
    truth: ids of the true classes, one for each example.

  Raises:
    ValueError: no examples, rows that do not sum to 1, or an unknown class.
  """
  probabilities, truth = np.asarray(probabilities, np.float64), np.asarray(truth)
  _check(probabilities, truth)
  logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))

  def loss(log_temperature: float) -> float:
    likelihood = scipy.special.log_softmax(logits / np.exp(log_temperature), axis=1)
    return -float(likelihood[np.arange(len(truth)), truth].mean())

  found = scipy.optimize.minimize_scalar(
    loss, bounds=tuple(np.log(_LIMITS)), method="bounded", options={"xatol": 1e-6}
  )
  return float(np.exp(found.x))


def _check(probabilities: np.ndarray, truth: np.ndarray) -> None:
  if probabilities.ndim != 2 or truth.shape != probabilities.shape[:1] or not truth.size:
    raise ValueError(
      f"the probabilities have the shape {probabilities.shape} and the classes {truth.shape}; "
      "expected (n, k) and (n,), of at least one example"
    )
  wrong = ~(np.abs(probabilities.sum(axis=1) - 1) < 1e-3) | (probabilities < 0).any(axis=1)
  for i in np.flatnonzero(wrong)[:1]:
    raise ValueError(
      f"the probabilities of example {i} are {probabilities[i].tolist()}; expected numbers in 0..1 "
      "that sum to 1"
    )
  k = probabilities.shape[1]
  for i in np.flatnonzero((truth < 0) | (truth >= k))[:1]:
    raise ValueError(f"the class of example {i} is {truth[i]}; expected 0..{k - 1}")
