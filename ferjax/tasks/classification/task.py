"""Expression classification: loss, post-processing and metrics of a face classifier."""

import dataclasses
import math
import os
import pathlib
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ferjax.config import Config, EvalConfig, LossConfig
from ferjax.tasks.base import Examples, Loss
from ferjax.tasks.classification.metrics import ClassificationMetrics
from ferjax.typing import ClassificationBatch, Classifications, ClassifierOutput


@dataclasses.dataclass(frozen=True)
class ClassificationTask:
  """Classifying the expression of a face; see `ferjax.tasks.base.Task`.

  Attributes:
    class_names: names in the order of the class ids.
    loss_config: the terms of the loss, and the frequencies of the classes for `logit_adjustment`.
    primary_metric: one of `selection_metrics`.

  Raises:
    ValueError: a field has an invalid value.
  """

  class_names: tuple[str, ...]
  loss_config: LossConfig = dataclasses.field(default_factory=LossConfig, hash=False)
  primary_metric: str = "accuracy"

  name: ClassVar[str] = "classification"
  selection_metrics: ClassVar[tuple[str, ...]] = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "f1_accuracy",
  )
  shown_metrics: ClassVar[tuple[str, ...]] = ("accuracy", "balanced_accuracy", "macro_f1")

  def __post_init__(self):
    check_loss_config(self.loss_config, self.class_names)
    if self.primary_metric not in self.selection_metrics:
      raise ValueError(
        f"primary_metric is {self.primary_metric!r}; known: {', '.join(self.selection_metrics)}."
      )

  @classmethod
  def from_config(cls, config: Config) -> "ClassificationTask":
    """The task for the config's classes and loss; ValueError as for the constructor."""
    return cls(tuple(config.data.class_names), config.loss)

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  def metrics(self) -> ClassificationMetrics:
    """A new, empty accumulator."""
    return ClassificationMetrics(self.class_names)

  def loss(self, output: ClassifierOutput, batch: ClassificationBatch) -> Loss:
    """See `classification_loss`; the sums are over the whole batch, for any sharding.

    Raises:
      ValueError: logits or labels do not match the classes of the task.
    """
    self._check(output)
    if batch["label"].shape != output.logits.shape:
      raise ValueError(
        f"Labels have the shape {batch['label'].shape} and logits {output.logits.shape}; a label "
        f"is a distribution over the {self.num_classes} classes (one-hot if hard)."
      )
    return classification_loss(
      output, label=batch["label"], mask=batch["mask"], config=self.loss_config
    )

  def postprocess(
    self, output: ClassifierOutput, *, logit_adjustment: float = 0.0, temperature: float = 1.0
  ) -> Classifications:
    """Logits to probabilities and the most probable class. Runs under `jit`.

    Args:
      output: of the model.
      logit_adjustment: times the logarithm of the classes' frequencies in training, which is
        subtracted from the logits.
      temperature: divides the logits after that; below 1, predictions become more certain. It
        changes no label. See `ferjax.tasks.classification.calibration`.

    Raises:
      ValueError: the logits do not match the classes of the task, or an adjustment without these
        frequencies.
    """
    self._check(output)
    logits = output.logits.astype(jnp.float32)
    if logit_adjustment:
      logits = logits - logit_adjustment * log_prior(self.loss_config)
    probabilities = jax.nn.softmax(logits / temperature, axis=-1)
    return Classifications(probabilities, jnp.argmax(probabilities, axis=-1).astype(jnp.int32))

  def predict(
    self,
    output: ClassifierOutput,
    batch: ClassificationBatch,
    *,
    image_size: int,
    config: EvalConfig,
  ) -> Classifications:
    """`postprocess`, in the interface that evaluation uses for every task."""
    del batch, image_size
    return self.postprocess(
      output, logit_adjustment=config.logit_adjustment, temperature=config.temperature
    )

  def merge_views(
    self, output: ClassifierOutput, num_views: int, *, probabilities: bool = False
  ) -> ClassifierOutput:
    """See `average_views`."""
    return average_views(output, num_views, probabilities=probabilities)

  def write_report(
    self, metrics: ClassificationMetrics, source: Examples, folder: str | os.PathLike[str]
  ) -> None:
    """Writes confusion.png, reliability.png and mistakes.png.

    Args:
      metrics: the predictions on `source`.
      source: the records whose images mistakes.png shows.
      folder: created if missing.

    Raises:
      ValueError: the metrics are empty.
    """
    # Imported here because inference needs this module, but not Matplotlib.
    from ferjax.tasks.classification.plots import plot_mistakes, plot_reliability
    from ferjax.tasks.plots import plot_confusion

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plot_confusion(metrics.confusion_matrix(), self.class_names, folder / "confusion.png")
    plot_reliability(metrics, folder / "reliability.png")
    plot_mistakes(metrics, source, folder / "mistakes.png")

  def _check(self, output: ClassifierOutput) -> None:
    if output.logits.ndim != 2 or output.logits.shape[1] != self.num_classes:
      raise ValueError(
        f"Logits have the shape {output.logits.shape}; expected one row for each example and "
        f"{self.num_classes} columns, for the classes {', '.join(self.class_names)}. Create the "
        f"model with num_classes={self.num_classes}."
      )


def check_loss_config(config: LossConfig, class_names: tuple[str, ...]) -> None:
  """Raises a ValueError for an invalid value, with the valid ones."""
  if not 0 <= config.label_smoothing <= 1:
    raise ValueError(f"loss.label_smoothing is {config.label_smoothing}; it must be in 0..1.")
  for name in ("smoothed_weight", "regularizer_weight", "logit_adjustment"):
    value = getattr(config, name)
    if not (math.isfinite(value) and value >= 0):
      raise ValueError(f"loss.{name} is {value}; it must not be negative or infinite.")
  for name, kind in (("class_weights", "weights"), ("class_prior", "frequencies")):
    values = getattr(config, name)
    if values and len(values) != len(class_names):
      raise ValueError(
        f"loss.{name} has {len(values)} values; expected {len(class_names)}, one for each "
        f"of the classes {', '.join(class_names)}, or none."
      )
    if values and not (all(math.isfinite(x) and x >= 0 for x in values) and any(values)):
      raise ValueError(
        f"loss.{name} is {tuple(values)}; {kind} must not be negative or infinite, nor all 0."
      )
  if config.logit_adjustment > 0 and 0 in config.class_prior:
    absent = [name for name, x in zip(class_names, config.class_prior, strict=True) if x == 0]
    raise ValueError(
      f"loss.logit_adjustment is {config.logit_adjustment}, but there is no training example of "
      f"{', '.join(absent)}; remove these from data.class_names, or set it to 0."
    )


def log_prior(config: LossConfig) -> Float[Array, "1 k"]:
  """The logarithm of the classes' frequencies in training; ValueError if they are not known."""
  if not config.class_prior or 0 in config.class_prior:
    problem = f"loss.class_prior, the classes' frequencies in training, is {config.class_prior}"
    raise ValueError(
      f"{problem}, but an adjustment of the logits needs one above 0 for each class: set it, or "
      "set logit_adjustment to 0. Checkpoints of older versions do not have it."
    )
  prior = jnp.asarray(config.class_prior, jnp.float32)[None]
  return jnp.log(prior / prior.sum())


def classification_loss(
  output: ClassifierOutput,
  *,
  label: Float[Array, "b k"],
  mask: Bool[Array, "b"],
  config: LossConfig,
) -> Loss:
  """Cross entropy and further terms (spec: emonext and fermam, Loss), in float32.

  Smoothing by s turns the target y into (1 - s) * y + s / k, as PyTorch's `CrossEntropyLoss`
  does; this equals (1 - s) * nll + s * the mean over the classes of -log p.

  With class weights w, an example's loss is -sum_c w_c * target_c * log p_c, and the divisor is
  the sum of w_c * y_c over the examples and classes. For hard labels this is PyTorch's weighted
  mean. For soft labels PyTorch divides by the number of examples; here a distribution counts as a
  mixture of hard labels. So hard labels written as distributions give the same loss, and rare
  classes do not scale the gradient.

  With `config.logit_adjustment` t and the classes' frequencies f, t * log f is added to the logits,
  so the logits themselves, which predict, do not depend on the frequencies (Menon et al., ICLR
  2021, arXiv:2007.07314, equation 10).

  Args:
    output: logits; `attention` is set when EmoNeXt is trained. Its first axis is the
      examples, also in the released variant, which attends over the batch.
    label: targets, before smoothing.
    mask: False for excluded examples; without any example the loss is 0.
    config: the terms and their weights.

  Returns:
    The parts `cross_entropy`; `smoothed`, if `config.smoothed_weight` is above 0; and
    `regularizer`, if `config.regularizer_weight` is above 0 and there is attention; each already
    multiplied by its weight. The cross entropies are divided by the number of unmasked examples,
    `num_examples`, or with class weights by their sum, `num_weighted_examples`.
  """
  # Values in padding rows affect neither the sums nor, as 0 * NaN, the gradient.
  logits, label = (
    jnp.where(mask[:, None], x.astype(jnp.float32), 0) for x in (output.logits, label)
  )
  if config.logit_adjustment > 0:
    logits = logits + config.logit_adjustment * log_prior(config)
  log_p = jax.nn.log_softmax(logits, axis=-1)
  if config.class_weights:
    weights = jnp.asarray(config.class_weights, jnp.float32)
    divisor, divisor_name = jnp.sum(weights[None] * label), "num_weighted_examples"
  else:
    weights = jnp.ones(log_p.shape[1], jnp.float32)
    divisor, divisor_name = jnp.sum(mask, dtype=jnp.float32), "num_examples"

  def cross_entropy(smoothing: float) -> Array:
    targets = (1 - smoothing) * label + smoothing / label.shape[1]
    terms = -jnp.sum(weights[None] * targets * log_p, axis=1)
    return _quotient(jnp.sum(terms, where=mask), divisor)

  if config.smoothed_weight > 0:
    parts = {
      "cross_entropy": cross_entropy(0.0),
      "smoothed": config.smoothed_weight * cross_entropy(config.label_smoothing),
    }
  else:
    parts = {"cross_entropy": cross_entropy(config.label_smoothing)}
  if config.regularizer_weight > 0 and output.attention is not None:
    parts["regularizer"] = config.regularizer_weight * _variance(output.attention, mask)
  return Loss.of_parts(parts, divisor, divisor_name)


def average_views(
  output: ClassifierOutput, num_views: int, *, probabilities: bool = False
) -> ClassifierOutput:
  """The mean of logits and features over every `num_views` consecutive rows.

  Used to classify an image from several views (spec: emonext, Loss, recipe as published). The
  result has no attention, which belongs to views, not to images. With `probabilities`, their mean
  is taken instead of that of the logits; the logits of the result are its logarithm.

  Raises:
    ValueError: the number of rows is not divisible by `num_views`.
  """
  num_rows = output.logits.shape[0]  # may be a symbolic size
  if num_views < 1 or num_rows % num_views:
    raise ValueError(
      f"{num_rows} rows are not divisible into {num_views} views per image; pass the number of "
      "views in the batch."
    )
  logits, features = (
    x.reshape(-1, num_views, x.shape[1]) for x in (output.logits, output.features)
  )
  if probabilities:
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    merged = jax.nn.logsumexp(log_p, axis=1) - math.log(num_views)
  else:
    merged = jnp.mean(logits, axis=1)
  return ClassifierOutput(merged, jnp.mean(features, axis=1))


def _variance(weights: Float[Array, "*g t t"], mask: Bool[Array, "b"]) -> Float[Array, ""]:
  """mean((weights - mean(weights))^2) over the rows of examples that are not masked."""
  where = mask.reshape(-1, *(1,) * (weights.ndim - 1))
  weights = jnp.where(where, weights.astype(jnp.float32), 0)
  count = jnp.sum(mask, dtype=jnp.float32) * math.prod(weights.shape[1:])
  mean = _quotient(jnp.sum(weights), count)
  return _quotient(jnp.sum((weights - mean) ** 2, where=where), count)


def _quotient(total: Float[Array, ""], divisor: Float[Array, ""]) -> Float[Array, ""]:
  """0 if the divisor is 0, with a gradient of 0."""
  return jnp.where(divisor > 0, total, 0) / jnp.where(divisor > 0, divisor, 1)
