import dataclasses
import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import pytest

from ferjax.data.loading import load_source
from ferjax.models import create_model
from ferjax.training.config_checks import validate

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
VARIANTS = {
  "emonext": (
    *("", "published", "fer2013", "ferplus", "ferplus_atto", "ferplus_atto_wide"),
    *("folder", "lfw5", "demo", "tiny"),
  ),
  "fermam": (
    *("", "raf_db", "affectnet7", "affectnet8", "ferplus_published", "ferplus"),
    *("ferplus_nano", "ferplus_nano_wide"),
    *("folder", "lfw5", "demo", "tiny"),
  ),
}
ALL = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]


@pytest.fixture(scope="module")
def get_config():
  modules = {}
  for name in VARIANTS:
    spec = importlib.util.spec_from_file_location(f"config_{name}", CONFIGS / f"{name}.py")
    modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(modules[name])
  return lambda name, variant="": modules[name].get_config(variant)


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_variants_are_valid_and_fit_the_model(get_config, name, variant):
  config = get_config(name, variant)
  validate(config)
  classes, model, size = len(config.data.class_names), config.model, config.data.image_size
  shape = _shape_of_logits(name, model.size, model.dtype, config.train.freeze, classes, size)
  assert shape == (2, classes)


@functools.cache
def _shape_of_logits(name, size, dtype, frozen, classes, image_size):
  model = create_model(name, num_classes=classes, size=size, dtype=dtype).clone(frozen=frozen)
  image = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)

  def forward(image):
    return model.init_with_output(jax.random.key(0), image, train=False)[0]

  return jax.eval_shape(forward, image).logits.shape


def test_variants_have_synthetic_data_or_need_files(get_config):
  for name, variants in VARIANTS.items():
    for variant in variants:
      data = get_config(name, variant).data
      if variant in ("demo", "tiny"):
        assert len(load_source(data, "train")) == data.train_examples
      else:
        with pytest.raises(ValueError, match=r"data\.dir is empty"):
          load_source(data, "train")


def test_the_published_recipe_of_emonext(get_config):
  """spec: emonext, Loss, recipe as published."""
  config = get_config("emonext")
  assert (config.train.epochs, config.model.dtype) == (300, "float32")
  optimizer, data, train = config.optimizer, config.data, config.train
  assert (optimizer.learning_rate, optimizer.schedule) == (1e-4, "warm_restarts")
  assert (optimizer.warmup_steps, optimizer.cycle_steps) == (128, 1024)
  assert (optimizer.weight_decay, optimizer.decay, optimizer.clip_norm) == (0.01, "all", 1.0)
  assert (config.loss.label_smoothing, config.loss.regularizer_weight) == (0.2, 1.0)
  assert (train.ema_rule, train.ema_every, train.ema_decay) == ("power", 16, 0.99)
  assert train.patience == 12
  assert (data.resize, data.image_size, data.grey, data.mean) == (236, 224, True, (0, 0, 0))
  assert (data.face_augment.flip, data.face_augment.vertical_flip) == (0.5, 0.0)
  assert data.face_augment.rotation == 20
  assert config.eval.ten_crop


def test_the_published_recipe_of_fermam(get_config):
  """spec: fermam, Loss, recipe as published."""
  config = get_config("fermam")
  optimizer, train = config.optimizer, config.train
  assert (optimizer.learning_rate, optimizer.epoch_decay, optimizer.sam_rho) == (4e-5, 0.98, 0.05)
  assert (config.loss.label_smoothing, config.loss.smoothed_weight) == (0.2, 2.0)
  assert (train.epochs, train.batch_size, train.freeze) == (260, 300, "landmark")
  assert get_config("fermam", "ferplus_published").train.batch_size == 200
  assert len(get_config("fermam", "affectnet8").data.class_names) == 8


@pytest.mark.parametrize(
  ("name", "variant", "published"),
  [
    ("emonext", "fer2013", "published"),
    ("emonext", "ferplus", "published"),
    ("fermam", "ferplus", "ferplus_published"),
  ],
)
def test_variants_for_a_gpu_are_the_published_recipe(get_config, name, variant, published):
  """Except for the number of epochs; the learning rate ends as published."""
  config, other = get_config(name, variant), get_config(name, published)
  assert (config.model.dtype, config.data.on_device) == ("bfloat16", True)
  assert config.data.face_augment == other.data.face_augment
  assert config.loss == other.loss
  assert (config.train.batch_size, config.train.freeze) == (
    other.train.batch_size,
    other.train.freeze,
  )
  optimizer = dataclasses.replace(config.optimizer, epoch_decay=other.optimizer.epoch_decay)
  assert optimizer == other.optimizer
  ends = [c.optimizer.epoch_decay**c.train.epochs for c in (config, other)]
  if name == "fermam":
    assert ends[0] == pytest.approx(ends[1], rel=0.05)


@pytest.mark.parametrize("name", VARIANTS)
def test_unknown_variant(get_config, name):
  with pytest.raises(ValueError, match=f"unknown variant 'demo2' of {name}; known: '', "):
    get_config(name, "demo2")
