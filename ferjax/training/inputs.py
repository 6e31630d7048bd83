"""The batches of a run on the devices: the next ones are copied there during the current step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import grain
import jax
import numpy as np

from ferjax.config import Config, DataConfig
from ferjax.data.classification.mixing import mixes
from ferjax.data.classification.stored import StoredFaces, decode_all
from ferjax.data.classification.views import scaled_size, short_side
from ferjax.data.pipeline import train_dataset
from ferjax.data.sources import LabelledSource, Source
from ferjax.ops.mixing import mixed_pairs
from ferjax.ops.normalize import normalize
from ferjax.ops.stored_views import Augmentation, stored_views
from ferjax.training.distillation import open_teachers
from ferjax.training.sharding import data_sharding, replicated, to_global
from ferjax.training.state import TrainState
from ferjax.training.step import Preprocess, TrainStep, compile_step
from ferjax.typing import Batch


class DeviceBatch(NamedTuple):
  """A batch on the devices, and its `index` and `skipped` on this host, for the log."""

  arrays: Batch
  host: dict[str, np.ndarray]


def device_batches(dataset: grain.IterDataset, mesh: jax.sharding.Mesh) -> grain.DatasetIterator:
  """Iterates over the batches of a pipeline as `DeviceBatch`es.

  A thread takes batches from the pipeline and copies them to the devices, so the copy overlaps the
  current step, whatever the program waits for. At most two batches are ahead of the one in use. The
  state of the iterator is that of the pipeline after the last batch that was returned.
  """

  def to_devices(batch):
    return DeviceBatch(to_global(batch, mesh), {name: batch[name] for name in ("index", "skipped")})

  ahead = grain.experimental.ThreadPrefetchIterDataset(
    dataset.map(to_devices), prefetch_buffer_size=1
  )
  return iter(ahead)


def preprocess_of(config: DataConfig) -> Preprocess:
  """The normalisation of a config, for the compiled steps."""
  return functools.partial(normalize, mean=tuple(config.mean), std=tuple(config.std))


class TrainingData:
  """The training set of a run: batches from the host, or images on the devices.

  With `data.on_device`, the first use decodes the whole set and copies its bytes to every device.
  Batches are then indices and parameters of views, and the compiled step makes the images. It also
  mixes pairs of a classifier's images (mixup, CutMix), and asks its teachers about them.

  Args:
    source: the records.
    config: of the run.
    mesh: the devices.

  Raises:
    FileNotFoundError, ValueError: as `ferjax.training.distillation.open_teachers`.
  """

  def __init__(self, source: Source, config: Config, mesh: jax.sharding.Mesh):
    self._source, self._config, self._mesh = source, config, mesh
    self._teachers = open_teachers(config.train, config.data.class_names)

  def batches(self, batch_size: int, start: int) -> grain.DatasetIterator:
    """Iterates over `DeviceBatch`es from example number `start`; errors as for `decode_all`."""
    dataset = train_dataset(
      self._source,
      self._config.data,
      batch_size=batch_size,
      seed=self._config.train.seed,
      epochs=self._config.train.epochs,
      start=start,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      stored=self._stored[1] if self._config.data.on_device else None,
    )
    return device_batches(dataset, self._mesh)

  def compile(
    self,
    train_step: TrainStep,
    shardings: TrainState | None = None,
    *,
    remat: bool = False,
  ) -> TrainStep:
    """Compiles a step for these batches; see `compile_step`."""
    options = {"shardings": shardings, "remat": remat}
    constants: tuple[Any, ...] = ()
    if self._teachers is not None:
      train_step = self._teachers.teaching(train_step)
      constants = (jax.device_put(self._teachers.variables, replicated(self._mesh)),)
    if self._source.task == "classification" and mixes(self._config.data.face_augment):
      train_step = self._with_mixing(train_step)
    if not self._config.data.on_device:
      return compile_step(train_step, self._mesh, *constants, **options)
    pixels, stored = self._stored
    augmentation = augmentation_of(self._config.data, stored)

    def step(state, batch, key, pixels, *constants):
      image = stored_views(pixels, batch["index"], batch["view"], key, augmentation)
      # Each device makes the images of its own part of the batch.
      image = jax.lax.with_sharding_constraint(image, data_sharding(self._mesh))
      rest = {name: value for name, value in batch.items() if name != "view"}
      return train_step(state, cast(Batch, {**rest, "image": image}), key, *constants)

    return compile_step(step, self._mesh, pixels, *constants, **options)

  def _with_mixing(self, train_step: Callable[..., Any]) -> Callable[..., Any]:
    """The step for batches whose pairs are to be mixed."""

    def step(state, batch, key, *constants):
      rest = dict(batch)
      mixed = mixed_pairs(batch["image"], batch["label"], batch["mask"], rest.pop("mixing"))
      image, label = jax.lax.with_sharding_constraint(mixed, data_sharding(self._mesh))
      mixed_batch = cast(Batch, {**rest, "image": image, "label": label})
      return train_step(state, mixed_batch, key, *constants)

    return step

  @functools.cached_property
  def _stored(self) -> tuple[jax.Array, StoredFaces]:
    pixels, stored = decode_all(cast(LabelledSource, self._source), self._config.data)
    everywhere = replicated(self._mesh)
    return jax.make_array_from_process_local_data(everywhere, pixels, pixels.shape), stored


def augmentation_of(config: DataConfig, stored: StoredFaces) -> Augmentation:
  """The operations of a config on a stored set."""
  faces = config.face_augment
  short = max(1, round(short_side(config.image_size, config.resize) * max(faces.scale)))
  return Augmentation(
    size=config.image_size,
    largest=scaled_size(stored.width, stored.height, short),
    rotates=faces.rotation > 0,
    lights=faces.brightness > 0 or faces.contrast > 0,
    noise_variance=faces.noise_variance if faces.noise > 0 or faces.flip_or_noise > 0 else 0.0,
    erases=faces.erasing > 0,
    repeats=faces.border == "repeat",
  )
