"""Targets from trained networks: knowledge distillation (Hinton et al. 2015, arXiv:1503.02531).

The teachers see the same augmented and mixed images as the network that they teach, as in Beyer et
al., CVPR 2022 (arXiv:2106.05237). The cross entropy is linear in its target. So one target, a mean
of the label and the teachers' probabilities, stands for the two terms of the loss.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from ferjax.config import TrainConfig
from ferjax.models import create_model
from ferjax.ops.normalize import normalize
from ferjax.trained import NetworkMeta, TrainedNetwork
from ferjax.training.state import Variables
from ferjax.typing import ClassificationBatch, ClassifierOutput
from ferjax.weights.opening import open_weights

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A trained classifier.

  Attributes:
    model: its network.
    meta: its description.
    columns: of its outputs, the places of the classes to be taught.
  """

  model: nn.Module
  meta: NetworkMeta
  columns: tuple[int, ...]

  def probabilities(
    self, variables: Variables, image: UInt8[Array, "b h w c"]
  ) -> Float[Array, "b k"]:
    """The probabilities of the classes to be taught, which sum to 1. Runs under `jit`.

    Args:
      variables: of the network.
      image: RGB or grey, of any size; it is resized to the network's input.
    """
    views = _as_input(image, self.meta["image_size"], grey=self.meta["grey"])
    views = normalize(views, tuple(self.meta["mean"]), tuple(self.meta["std"]))
    output = cast(ClassifierOutput, self.model.apply(variables, views, train=False))
    return jax.nn.softmax(output.logits.astype(jnp.float32)[:, jnp.array(self.columns)], axis=-1)


@dataclasses.dataclass(frozen=True)
class Teachers:
  """The mean prediction of trained classifiers, as a part of the targets.

  Attributes:
    networks: at least one.
    variables: of each of them. They are arguments of a compiled step, not constants in it.
    weight: of the prediction in the targets; the label has the rest.
  """

  networks: tuple[Teacher, ...]
  variables: tuple[Variables, ...]
  weight: float

  def targets(
    self, batch: ClassificationBatch, variables: Sequence[Variables]
  ) -> Float[Array, "b k"]:
    """(1 - weight) * label + weight * the mean prediction. Runs under `jit`."""
    pairs = zip(self.networks, variables, strict=True)
    total = sum(teacher.probabilities(own, batch["image"]) for teacher, own in pairs)
    return (1 - self.weight) * batch["label"] + self.weight / len(self.networks) * total

  def teaching(self, train_step: Callable[..., Any]) -> Callable[..., Any]:
    """The step (state, batch, key) with these targets: (state, batch, key, variables)."""

    def step(state, batch, key, variables):
      return train_step(state, {**batch, "label": self.targets(batch, variables)}, key)

    return step


def open_teachers(config: TrainConfig, class_names: Sequence[str]) -> Teachers | None:
  """The networks of `train.teachers`; None if there are none.

  Raises:
    FileNotFoundError, ValueError: as `ferjax.weights.open_weights`; a detector, or a network that
      does not know all classes.
  """
  if not config.teachers:
    return None
  opened = [open_weights(name) for name in config.teachers]
  networks = tuple(_teacher(network, class_names) for network in opened)
  variables = tuple(jax.device_get(network.variables()) for network in opened)
  return Teachers(networks, variables, config.teacher_weight)


def _teacher(opened: TrainedNetwork, class_names: Sequence[str]) -> Teacher:
  known, task = opened.meta["class_names"], opened.meta["task"]
  if task != "classification":
    raise ValueError(
      f"train.teachers has {opened.name}, a network for {task}; expected classifiers, such as "
      "those that `ferjax weights` lists with the task classification"
    )
  if missing := [name for name in class_names if name not in known]:
    raise ValueError(
      f"train.teachers has {opened.name}, which does not know {', '.join(missing)}; it knows "
      f"{', '.join(known)}. Choose another teacher, or remove these classes from data.class_names"
    )
  columns = tuple(known.index(name) for name in class_names)
  return Teacher(opened.build_model(create_model), opened.meta, columns)


def _as_input(
  image: UInt8[Array, "b h w c"], size: int, *, grey: bool
) -> UInt8[Array, "b {size} {size} _"]:
  """The images with this side, and if `grey` with one channel."""
  if grey and image.shape[-1] == 3:
    image = jnp.round(image @ jnp.array(_LUMA))[..., None].astype(jnp.uint8)
  if image.shape[1:3] == (size, size):
    return image
  shape = (image.shape[0], size, size, image.shape[-1])
  resized = jax.image.resize(image.astype(jnp.float32), shape, "linear")
  return jnp.round(resized).astype(jnp.uint8)
