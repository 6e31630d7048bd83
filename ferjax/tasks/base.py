"""The interface of a task for training, evaluation and inference."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ferjax.config import Config, EvalConfig
from ferjax.typing import Batch

Output = TypeVar("Output")
TaskBatch = TypeVar("TaskBatch", bound=Batch, contravariant=True)
Predictions = TypeVar("Predictions", covariant=True)
AddedPredictions = TypeVar("AddedPredictions", contravariant=True)


@flax.struct.dataclass
class Loss:
  """The loss of a batch: means, and the weight that they are divided by.

  A pytree. Its leaves are scalars; in stacked losses they have one more axis.

  Attributes:
    total: f32[], the minimised value: the sum of the parts.
    parts: f32[] by name, each already multiplied by its factor.
    weight: f32[], the divisor of all means, such as the number of matched cells or of examples, or
      the sum of class weights. At least 0; if it is 0, the means are the sums.
    weight_name: the name of the weight in logs, such as "num_examples".
  """

  total: Any
  parts: dict[str, Any]
  weight: Any
  weight_name: str = flax.struct.field(pytree_node=False)

  @classmethod
  def of_parts(
    cls, parts: Mapping[str, Float[Array, ""]], weight: Float[Array, ""], weight_name: str
  ) -> "Loss":
    """The loss whose total is the sum of its parts."""
    return cls(sum(parts.values(), start=jnp.float32(0)), dict(parts), weight, weight_name)

  @property
  def divisor(self) -> Any:
    """The divisor of the sums: the weight, or 1 if it is 0."""
    return self.weight + (self.weight == 0)

  def merged(self) -> "Loss":
    """Merges losses that are stacked along the first axis of every leaf.

    Up to rounding, this is the loss of all examples together, for parts that are sums over examples
    divided by the weight. Any other part, such as a variance over a batch, becomes a weighted mean.
    The leaves are JAX arrays, also under `jit`, or NumPy arrays.
    """
    sums = jax.tree.map(lambda means: (self.divisor * means).sum(axis=0), self)
    whole = dataclasses.replace(sums, weight=self.weight.sum(axis=0))
    means = jax.tree.map(lambda x: x / whole.divisor, whole)
    return dataclasses.replace(means, weight=whole.weight)

  def scalars(self) -> dict[str, Any]:
    """The values by their names in files: `loss`, `loss_<part>`, and the name of the weight."""
    parts = {f"loss_{name}": mean for name, mean in self.parts.items()}
    return {"loss": self.total, **parts, self.weight_name: self.weight}


def merge_losses(losses: Sequence[Loss]) -> Loss:
  """The loss of a data set from those of its batches (at least one), in float64 on the host."""
  return jax.tree.map(lambda *means: np.array(means, np.float64), *losses).merged()


@runtime_checkable
class Metrics(Protocol[AddedPredictions]):
  """Predictions and ground truth of many examples, accumulated on the host."""

  def add(self, predictions: AddedPredictions, truth: Mapping[str, np.ndarray], /) -> None:
    """Adds a batch: the result of `Task.predict`, and the batch without its images.

    Rows whose `mask` is False do not count.
    """
    ...

  def compute(self) -> dict[str, float]:
    """The metrics by name.

    Metrics of a class are named `<name>/<class>`, the bounds of an interval `<name>_low` and
    `<name>_high`. ValueError if nothing was added to compute them from.
    """
    ...


class Outcomes(NamedTuple):
  """Successes and trials of n examples in s strata, such as the classes.

  The rate is the mean over the strata of successes divided by trials, both summed over examples.
  """

  successes: Int[np.ndarray, "n s"]
  trials: Int[np.ndarray, "n s"]


@runtime_checkable
class RateMetrics(Protocol):
  """Metrics of which some are rates of single examples, so that groups can be compared."""

  def outcomes(self) -> Mapping[str, Outcomes]:
    """The outcomes of the added examples, by the name of the rate."""
    ...


Accumulator = TypeVar("Accumulator", bound=Metrics)


@runtime_checkable
class Examples(Protocol):
  """The evaluated records, for reports. Every source of `ferjax.data` has this interface."""

  def __getitem__(self, index: int, /) -> Mapping[str, Any]:
    """Record `index`, with its `image`: u8[h w 3], upright RGB."""
    ...


@runtime_checkable
class Task(Protocol[Output, TaskBatch, Predictions, Accumulator]):
  """The code that differs between detection, classification and further tasks.

  A task is a value: it has settings but no arrays, and its methods are pure functions.

  Type parameters: the output of a model, a batch of the input pipeline, the predictions for a
  batch, and the `Metrics` of the task.

  Attributes:
    name: of the task in models, data and checkpoints.
    selection_metrics: metrics that can select the best checkpoint; larger is better.
    shown_metrics: metrics that training prints after each evaluation.
    class_names: in the order of the class ids.
    primary_metric: the default of `selection_metrics`.
  """

  name: ClassVar[str]
  selection_metrics: ClassVar[tuple[str, ...]]
  shown_metrics: ClassVar[tuple[str, ...]]

  @property
  def class_names(self) -> tuple[str, ...]: ...

  @property
  def primary_metric(self) -> str: ...

  @classmethod
  def from_config(cls, config: Config) -> "Task[Output, TaskBatch, Predictions, Accumulator]":
    """The task for the config's classes; ValueError for unsupported settings."""
    ...

  def loss(self, output: Output, batch: TaskBatch) -> Loss:
    """The loss of a model's output, with means over the whole batch for any sharding.

    Runs under `jit`. In float32, whatever the dtype of the output.
    """
    ...

  def predict(
    self, output: Output, batch: TaskBatch, *, image_size: int, config: EvalConfig
  ) -> Predictions:
    """The predictions that evaluation compares with the ground truth. Runs under `jit`.

    Args:
      output: of the model, one row for each example of the batch.
      batch: its fields except the labels, such as the placement of its images.
      image_size: side of the model's input, pixels.
      config: thresholds.
    """
    ...

  def merge_views(self, output: Output, num_views: int, *, probabilities: bool = False) -> Output:
    """Merges `num_views` consecutive rows, the views of an image, to one row per image.

    With `probabilities`, these are averaged, otherwise the raw outputs.

    ValueError for a task that uses only one view of an image.
    """
    ...

  def metrics(self) -> Accumulator:
    """A new, empty accumulator."""
    ...

  def write_report(self, metrics: Accumulator, source: Examples, folder: pathlib.Path) -> None:
    """Writes plots of the metrics accumulated on `source` to a folder."""
    ...
