"""What training, evaluation and inference use of a task."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ferjax.config import Config, EvalConfig
from ferjax.typing import Batch

Output = TypeVar("Output")
TaskBatch = TypeVar("TaskBatch", bound=Batch, contravariant=True)
Predictions = TypeVar("Predictions", covariant=True)
AddedPredictions = TypeVar("AddedPredictions", contravariant=True)


@flax.struct.dataclass
class Loss:
  """The loss of a batch: means, and what they are means over.

  A pytree, whose leaves are scalars, or have one more axis where several losses are stacked.

  Attributes:
    total: f32[], what is minimised: the sum of the parts.
    parts: f32[] by name, each already multiplied by its factor.
    weight: f32[], what all of these are means over, such as the number of matched cells or of
      examples, or the sum of class weights. At least 0; of nothing (0), the means are the sums.
    weight_name: what the logs call the weight, such as "num_examples".
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
    """What the sums were divided by: the weight, or 1 where it is 0."""
    return self.weight + (self.weight == 0)

  def merged(self) -> "Loss":
    """The loss of a whole from those of its parts, stacked along the first axis of every leaf.

    Up to rounding, this is the loss of the whole for all that is a sum over examples divided by
    the weight. A part that is not, such as a variance over a batch, becomes a weighted mean. The
    leaves are JAX arrays, also under `jit`, or NumPy arrays.
    """
    sums = jax.tree.map(lambda means: (self.divisor * means).sum(axis=0), self)
    whole = dataclasses.replace(sums, weight=self.weight.sum(axis=0))
    means = jax.tree.map(lambda x: x / whole.divisor, whole)
    return dataclasses.replace(means, weight=whole.weight)

  def scalars(self) -> dict[str, Any]:
    """The names in files and tables: `loss`, `loss_<part>`, and that of the weight."""
    parts = {f"loss_{name}": mean for name, mean in self.parts.items()}
    return {"loss": self.total, **parts, self.weight_name: self.weight}


def merge_losses(losses: Sequence[Loss]) -> Loss:
  """The loss of a data set from those of its batches, at least one; on the host, in float64."""
  return jax.tree.map(lambda *means: np.array(means, np.float64), *losses).merged()


@runtime_checkable
class Metrics(Protocol[AddedPredictions]):
  """Predictions and the truth of many examples, accumulated on the host."""

  def add(self, predictions: AddedPredictions, truth: Mapping[str, np.ndarray], /) -> None:
    """Adds a batch: what `Task.predict` gave, and the batch without its images.

    Rows whose `mask` is False do not count.
    """
    ...

  def compute(self) -> dict[str, float]:
    """The metrics by name.

    That of a class is called `<name>/<class>`, the ends of an interval `<name>_low` and
    `<name>_high`. A ValueError where nothing was added that they could be computed from.
    """
    ...


Accumulator = TypeVar("Accumulator", bound=Metrics)


@runtime_checkable
class Examples(Protocol):
  """What a report shows of the records that were evaluated; every source of `ferjax.data`."""

  def __getitem__(self, index: int, /) -> Mapping[str, Any]:
    """Record `index`, with its `image`: u8[h w 3], upright RGB."""
    ...


@runtime_checkable
class Task(Protocol[Output, TaskBatch, Predictions, Accumulator]):
  """What differs between finding faces, classifying them, and whatever is added.

  A task is a value: it holds settings, no arrays, and its methods are pure functions.

  Type parameters: what a model returns; what the input pipeline yields; what is predicted for a
  batch; the `Metrics` of the task.

  Attributes:
    name: by which models, data and checkpoints name the task.
    selection_metrics: metrics that can choose the best checkpoint; of all, larger is better.
    shown_metrics: metrics that training shows after each evaluation.
    class_names: in the order of the class ids.
    primary_metric: that of `selection_metrics` which is taken unless the config names another.
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
    """The task for the config's classes; a ValueError for settings that it does not have."""
    ...

  def loss(self, output: Output, batch: TaskBatch) -> Loss:
    """Of a model's output; the means are over the whole batch, however it is sharded.

    Runs under `jit`. In float32, whatever the output is.
    """
    ...

  def predict(
    self, output: Output, batch: TaskBatch, *, image_size: int, config: EvalConfig
  ) -> Predictions:
    """What evaluation compares with the truth. Runs under `jit`.

    Args:
      output: of the model, one row for each example of the batch.
      batch: its fields but the labels, such as how its images were placed.
      image_size: side of the model's input, pixels.
      config: thresholds.
    """
    ...

  def merge_views(self, output: Output, num_views: int) -> Output:
    """One row for each image, from `num_views` consecutive rows, one for each of its views.

    A ValueError for a task whose images are seen in one view only.
    """
    ...

  def metrics(self) -> Accumulator:
    """A new, empty accumulator."""
    ...

  def write_report(self, metrics: Accumulator, source: Examples, folder: pathlib.Path) -> None:
    """Writes plots of what was accumulated on `source` to a folder."""
    ...
