import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.config import EvalConfig, LossConfig
from ferjax.tasks.classification.task import ClassificationTask, average_views, classification_loss
from ferjax.training.sharding import data_sharding, make_mesh
from ferjax.typing import ClassifierOutput

NAMES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")
EMONEXT = LossConfig(label_smoothing=0.2, regularizer_weight=1.0)
FERMAM = LossConfig(label_smoothing=0.2, smoothed_weight=2.0)
EVERYTHING = LossConfig(
  label_smoothing=0.3,
  smoothed_weight=0.7,
  regularizer_weight=1.5,
  class_weights=(1.0, 2.0, 0.5, 3.0, 1.0, 0.25, 4.0),
)

# Logits of the released programs for weights and images from rules; the expected losses are
# PyTorch's in float64. EmoNeXt's attention is over its batch of two.
EMONEXT_LOGITS = (
  (-0.02516026, 0.77225256, -0.8980607, -0.2980929, 0.5353261, -1.3201987, 2.3980246),
  (-0.00802748, 0.6941389, -0.89269304, -0.27778125, 0.47904646, -1.3835323, 2.5297809),
)
EMONEXT_ATTENTION = ((0.440572, 0.55942804), (0.4353272, 0.5646728))
FERMAM_LOGITS = (
  (-0.04555189, 0.44728008, 0.0827386, 0.03598813, -0.39420348, 0.2718082, -0.985108),
  (0.28928497, -0.73653936, 0.5784288, -0.37743357, 0.17810906, 0.12424245, 0.5663928),
)


def _output(logits, attention=None) -> ClassifierOutput:
  logits = jnp.asarray(logits, jnp.float32)
  if attention is not None:
    attention = jnp.asarray(attention, jnp.float32)
  return ClassifierOutput(logits, jnp.zeros((len(logits), 4)), attention)


def _batch(label, mask=None) -> dict:
  label = jnp.asarray(label)
  if label.ndim == 1:
    label = jax.nn.one_hot(label, len(NAMES))
  mask = jnp.ones(len(label), bool) if mask is None else jnp.asarray(mask)
  return {"label": label.astype(jnp.float32), "mask": mask}


def _random(seed: int, size: int, *, tokens: int = 0) -> tuple[ClassifierOutput, dict]:
  """Logits, soft labels, and attention over tokens or, with 0, over the batch."""
  rng = np.random.default_rng(seed)
  shape = (size, tokens, tokens) if tokens else (size, size)
  attention = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
  label = rng.dirichlet(np.full(len(NAMES), 0.3), size)
  return _output(rng.normal(0, 2, (size, len(NAMES))), attention), _batch(label)


def _numpy_loss(logits, label, attention, config: LossConfig) -> dict[str, float]:
  """In float64, with loops over examples and classes."""
  logits, label = np.asarray(logits, np.float64), np.asarray(label, np.float64)
  k = logits.shape[1]
  weights = config.class_weights or (1,) * k

  def mean(smoothing):
    total = divisor = 0.0
    for row, target in zip(logits, label, strict=True):
      log_p = row - np.log(np.sum(np.exp(row)))
      for c in range(k):
        total -= weights[c] * ((1 - smoothing) * target[c] + smoothing / k) * log_p[c]
        divisor += weights[c] * target[c]
    return total / divisor

  smoothing = config.label_smoothing
  if config.smoothed_weight:
    parts = {"cross_entropy": mean(0), "smoothed": config.smoothed_weight * mean(smoothing)}
  else:
    parts = {"cross_entropy": mean(smoothing)}
  if config.regularizer_weight:
    parts["regularizer"] = config.regularizer_weight * np.var(np.asarray(attention, np.float64))
  return parts


def _loss(output, batch, config=LossConfig()):  # noqa: B008
  return jax.jit(ClassificationTask(NAMES, config).loss)(output, batch)


def test_emonext_loss_equals_the_released_program():
  loss = _loss(_output(EMONEXT_LOGITS, EMONEXT_ATTENTION), _batch([2, 5]), EMONEXT)
  np.testing.assert_allclose(loss.total, 3.7688938037665496, rtol=1e-6)
  np.testing.assert_allclose(loss.parts["cross_entropy"], 3.76503689308557, rtol=1e-6)
  # The attention above has only 8 digits.
  np.testing.assert_allclose(loss.parts["regularizer"], 0.003856910680979375, rtol=1e-4)
  assert set(loss.parts) == {"cross_entropy", "regularizer"}
  assert (loss.weight, loss.weight_name) == (2, "num_examples")


def test_fermam_loss_equals_the_released_program():
  loss = _loss(_output(FERMAM_LOGITS), _batch([3, 6]), FERMAM)
  np.testing.assert_allclose(loss.total, 5.322646335623737, rtol=1e-6)
  np.testing.assert_allclose(loss.parts["cross_entropy"], 1.7343941130824698, rtol=1e-6)
  np.testing.assert_allclose(loss.parts["smoothed"], 2 * 1.7941261112706333, rtol=1e-6)
  assert set(loss.parts) == {"cross_entropy", "smoothed"}
  assert (loss.weight, loss.weight_name) == (2, "num_examples")


def test_smoothing_by_hand():
  """p = (1/2, 1/4, 1/4): the target 0 smoothed by 0.3 is (0.8, 0.1, 0.1)."""
  task = ClassificationTask(("a", "b", "c"), LossConfig(label_smoothing=0.3))
  output = _output([[np.log(2), 0.0, 0.0]])
  loss = task.loss(output, {"label": jnp.eye(3)[:1], "mask": jnp.ones(1, bool)})
  np.testing.assert_allclose(loss.total, 0.8 * np.log(2) + 0.2 * np.log(4), rtol=1e-6)
  assert (loss.weight, loss.weight_name) == (1, "num_examples")


def test_fermam_loss_of_votes_by_hand():
  """p = (1/2, 1/4, 1/4), votes 3 and 1 of 4: 5/4 log 2, and twice 4/5 of that plus 1/3 log 2."""
  task = ClassificationTask(("a", "b", "c"), FERMAM)
  batch = {"label": jnp.array([[0.75, 0.25, 0.0]]), "mask": jnp.ones(1, bool)}
  loss = task.loss(_output([[np.log(2), 0.0, 0.0]]), batch)
  np.testing.assert_allclose(loss.parts["cross_entropy"], 5 / 4 * np.log(2), rtol=1e-6)
  np.testing.assert_allclose(loss.parts["smoothed"], 2 * (1 + 1 / 3) * np.log(2), rtol=1e-6)
  np.testing.assert_allclose(loss.total, loss.parts["cross_entropy"] + loss.parts["smoothed"])


def test_class_weights_by_hand():
  """PyTorch's weighted mean of hard labels: losses log 2 and log 4, weights 1 and 3."""
  task = ClassificationTask(("a", "b", "c"), LossConfig(class_weights=(1.0, 3.0, 7.0)))
  output = _output([[np.log(2), 0.0, 0.0]] * 2)
  loss = task.loss(output, {"label": jnp.eye(3)[:2], "mask": jnp.ones(2, bool)})
  np.testing.assert_allclose(loss.total, (1 * np.log(2) + 3 * np.log(4)) / 4, rtol=1e-6)
  assert (loss.weight, loss.weight_name) == (4, "num_weighted_examples")


def test_soft_label_equals_a_mixture_of_hard_labels():
  config = LossConfig(class_weights=EVERYTHING.class_weights)
  output, _ = _random(0, 1)
  votes = [1, 1, 1, 4]
  soft = _loss(output, _batch(np.bincount(votes, minlength=7)[None] / 4), config)
  repeated = _output(np.repeat(output.logits, 4, axis=0))
  hard = _loss(repeated, _batch(votes), config)
  np.testing.assert_allclose(soft.total, hard.total, rtol=1e-6)


@pytest.mark.parametrize("tokens", [0, 3])
@pytest.mark.parametrize("config", [LossConfig(), EMONEXT, FERMAM, EVERYTHING])
def test_loss_equals_numpy(config, tokens):
  output, batch = _random(1, 5, tokens=tokens)
  loss = _loss(output, batch, config)
  expected = _numpy_loss(output.logits, batch["label"], output.attention, config)
  assert set(loss.parts) == set(expected)
  assert loss.weight_name == ("num_weighted_examples" if config.class_weights else "num_examples")
  for name, value in expected.items():
    np.testing.assert_allclose(loss.parts[name], value, rtol=1e-5, err_msg=name)
  np.testing.assert_allclose(loss.total, sum(expected.values()), rtol=1e-5)


def test_gradient_equals_finite_differences():
  output, batch = _random(2, 3, tokens=2)
  grads = jax.grad(lambda x: _loss(x, batch, EVERYTHING).total)(output)

  def total(logits, attention):
    return sum(_numpy_loss(logits, batch["label"], attention, EVERYTHING).values())

  values = {"logits": output.logits, "attention": output.attention}
  values = {name: np.asarray(x, np.float64) for name, x in values.items()}
  for name, value in values.items():
    slopes = np.zeros_like(value)
    for i in np.ndindex(*value.shape):
      step = np.zeros_like(value)
      step[i] = 1e-5
      slopes[i] = (
        total(**values | {name: value + step}) - total(**values | {name: value - step})
      ) / 2e-5
    np.testing.assert_allclose(getattr(grads, name), slopes, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("filler", [7.0, np.inf, np.nan])
def test_padding_changes_nothing(filler, with_gradient):
  output, batch = _random(3, 4, tokens=3)
  step = jax.jit(with_gradient(functools.partial(classification_loss, config=EVERYTHING)))
  loss, grads = step(output, **batch)
  pad = functools.partial(jax.tree.map, lambda x: jnp.concatenate([x, jnp.full_like(x, filler)]))
  padded = pad(batch) | {"mask": jnp.arange(8) < 4}
  other, other_grads = step(pad(output), **padded)
  chex.assert_trees_all_close(other, loss, rtol=1e-6)
  for name in ("logits", "attention"):
    grad = np.asarray(getattr(other_grads, name))
    np.testing.assert_allclose(grad[:4], getattr(grads, name), rtol=1e-5, atol=1e-8)
    assert not grad[4:].any()


def test_permutation_changes_nothing():
  output, batch = _random(4, 6, tokens=2)
  order = np.array([3, 0, 5, 1, 4, 2])
  loss = _loss(output, batch, EVERYTHING)
  other = _loss(*jax.tree.map(lambda x: x[order], (output, batch)), EVERYTHING)
  np.testing.assert_allclose(other.total, loss.total, rtol=1e-6)


@pytest.mark.parametrize("tokens", [0, 3])
def test_two_devices_equal_one(tokens):
  """Their parts have different sums of class weights, and one has a masked example."""
  output, batch = _random(5, 4, tokens=tokens)
  if tokens:
    batch["mask"] = jnp.array([True, False, True, True])
  loss = _loss(output, batch, EVERYTHING)
  spread = jax.device_put((output, batch), data_sharding(make_mesh(2)))
  assert len(spread[0].logits.sharding.device_set) == 2
  chex.assert_trees_all_close(_loss(*spread, EVERYTHING), loss, rtol=1e-6)


def test_batch_without_examples_has_zero_loss_and_gradient(with_gradient):
  output, batch = _random(6, 3, tokens=2)
  batch["mask"] = jnp.zeros(3, bool)
  loss, grads = with_gradient(lambda x: _loss(x, batch, EVERYTHING))(output)
  assert (loss.total, loss.weight, loss.weight_name) == (0, 0, "num_weighted_examples")
  assert all(not np.any(grad) for grad in jax.tree.leaves(grads))


def test_no_attention_no_regularizer():
  output, batch = _random(7, 3)
  loss = _loss(output._replace(attention=None), batch, EMONEXT)
  assert set(loss.parts) == {"cross_entropy"}


def test_loss_is_finite_and_float32_if_probabilities_vanish():
  loss = _loss(_output([[300.0, -300, 0, 0, 0, 0, 0]]), _batch([1]))
  assert loss.total == 600
  half = _output(EMONEXT_LOGITS)
  half = half._replace(logits=half.logits.astype(jnp.bfloat16))
  assert _loss(half, _batch([2, 5])).total.dtype == jnp.float32


def test_postprocess():
  task = ClassificationTask(NAMES[:3])
  found = jax.jit(task.postprocess)(_output([[0.0, np.log(3), 0], [1000, 999, -1000]]))
  np.testing.assert_allclose(found.probabilities[0], [0.2, 0.6, 0.2], rtol=1e-6)
  np.testing.assert_allclose(found.probabilities[1], [0.731059, 0.268941, 0], atol=1e-6)
  assert found.labels.tolist() == [1, 0]
  assert found.labels.dtype == jnp.int32


def test_average_views():
  logits = jnp.arange(12.0).reshape(6, 2)
  averaged = average_views(ClassifierOutput(logits, 10 * logits, jnp.ones((6, 4, 4))), 3)
  assert averaged.logits.tolist() == [[2, 3], [8, 9]]
  assert averaged.features.tolist() == [[20, 30], [80, 90]]
  assert averaged.attention is None
  with pytest.raises(ValueError, match="6 rows are not divisible into 4 views"):
    average_views(ClassifierOutput(logits, logits), 4)


def test_average_probabilities():
  """p = (1/2, 1/2) and (1/4, 3/4)."""
  logits = jnp.log(jnp.array([[3.0, 3.0], [1.0, 3.0]]))
  averaged = average_views(ClassifierOutput(logits, logits), 2, probabilities=True)
  np.testing.assert_allclose(np.exp(averaged.logits), [[0.375, 0.625]], rtol=1e-6)
  np.testing.assert_allclose(averaged.features, [[np.log(3) / 2, np.log(3)]], rtol=1e-6)


PRIOR = (0.5, 0.25, 0.25)


def test_logit_adjusted_loss_by_hand():
  """Logits 0: p is the prior, or for 2 its squares (4, 1, 1) / 6; and p with other logits."""
  label = jnp.array([[0.0, 1.0, 0.0], [0.75, 0.25, 0.0]])
  batch = {"label": label, "mask": jnp.ones(2, bool)}
  for factor, logits, expected in (
    (0.0, (0.0, 0.0, 0.0), np.log(3)),
    (1.0, (0.0, 0.0, 0.0), (np.log(4) + 0.75 * np.log(2) + 0.25 * np.log(4)) / 2),
    (2.0, (0.0, 0.0, 0.0), (np.log(6) + 0.75 * np.log(6 / 4) + 0.25 * np.log(6)) / 2),
    (1.0, (0.0, np.log(2), np.log(2)), np.log(3)),
  ):
    task = ClassificationTask(
      ("a", "b", "c"), LossConfig(logit_adjustment=factor, class_prior=PRIOR)
    )
    loss = task.loss(_output([logits] * 2), batch)
    np.testing.assert_allclose(loss.total, expected, rtol=1e-6)


def test_scores_shifted_afterwards_by_hand():
  """Logits of the prior become equal, or a square root; a temperature of 0.5 squares after that."""
  task = ClassificationTask(("a", "b", "c"), LossConfig(logit_adjustment=1.0, class_prior=PRIOR))
  batch = {"label": jnp.eye(3)[:1], "mask": jnp.ones(1, bool)}
  for p, factor, temperature, ratios in (
    (PRIOR, 0.0, 1.0, PRIOR),
    (PRIOR, 1.0, 1.0, (1, 1, 1)),
    (PRIOR, 0.5, 1.0, np.sqrt(PRIOR)),
    (PRIOR, 0.5, 0.5, PRIOR),
    ((0.2, 0.3, 0.5), 0.0, 0.5, (4, 9, 25)),
  ):
    config = EvalConfig(logit_adjustment=factor, temperature=temperature)
    found = task.predict(_output([np.log(p)]), batch, image_size=8, config=config)
    expected = np.array(ratios) / np.sum(ratios)
    np.testing.assert_allclose(found.probabilities[0], expected, rtol=1e-6)


def test_adjustment_without_the_frequencies():
  for prior in ((), (0.0, 0.5, 0.5)):
    task = ClassificationTask(("a", "b", "c"), LossConfig(class_prior=prior))
    with pytest.raises(ValueError, match="needs one above 0 for each class: set it, or"):
      task.postprocess(_output([[0.0] * 3]), logit_adjustment=1.0)


@pytest.mark.parametrize("method", ["loss", "postprocess"])
def test_logits_with_wrong_number_of_classes(method):
  arguments = (_batch([0]),) if method == "loss" else ()
  task = ClassificationTask(NAMES)
  with pytest.raises(ValueError, match=r"\(1, 8\); expected .* 7 columns.* num_classes=7"):
    getattr(task, method)(_output([[0.0] * 8]), *arguments)


def test_labels_with_wrong_number_of_classes():
  batch = {"label": jnp.ones((1, 8)) / 8, "mask": jnp.ones(1, bool)}
  with pytest.raises(ValueError, match=r"Labels have the shape \(1, 8\) and logits \(1, 7\)"):
    ClassificationTask(NAMES).loss(_output([[0.0] * 7]), batch)


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"label_smoothing": 1.5}, r"loss.label_smoothing is 1.5; it must be in 0..1"),
    ({"label_smoothing": float("nan")}, r"loss.label_smoothing is nan"),
    ({"smoothed_weight": -1.0}, "loss.smoothed_weight is -1.0; it must not be negative"),
    ({"regularizer_weight": float("inf")}, "loss.regularizer_weight is inf"),
    ({"class_weights": (1.0, 2.0)}, "loss.class_weights has 2 values; expected 7, one for each"),
    ({"class_weights": (1.0,) * 6 + (-1.0,)}, "weights must not be negative"),
    ({"class_weights": (0.0,) * 7}, "nor all 0"),
    ({"class_prior": (0.5, 0.5)}, "loss.class_prior has 2 values; expected 7"),
    ({"logit_adjustment": -1.0}, "loss.logit_adjustment is -1.0; it must not be negative"),
    (
      {"logit_adjustment": 1.0, "class_prior": (0.5,) + (0.0,) + (0.1,) * 5},
      "there is no training example of happiness; remove",
    ),
  ],
)
def test_invalid_loss_config(values, message):
  with pytest.raises(ValueError, match=message):
    ClassificationTask(NAMES, LossConfig(**values))


def test_primary_metric_is_a_selection_metric():
  task = ClassificationTask(NAMES, primary_metric="macro_f1")
  assert (task.num_classes, hash(task)) == (7, hash(ClassificationTask(NAMES, EMONEXT, "macro_f1")))
  with pytest.raises(ValueError, match="primary_metric is 'ece'; known: accuracy, balanced"):
    ClassificationTask(NAMES, primary_metric="ece")
