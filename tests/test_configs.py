import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import pytest

from ferjax.data.loading import load_source
from ferjax.models import create_model
from ferjax.training.config_checks import validate

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
VARIANTS = ("", "sfew", "voc", "scenes", "demo", "tiny")


@pytest.fixture(scope="module")
def get_config():
  spec = importlib.util.spec_from_file_location("config", CONFIGS / "fer_yolo_mamba.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_valid_and_fit_the_model(get_config, variant):
  config = get_config(variant)
  validate(config)
  model = create_model(
    config.model.name, num_classes=len(config.data.class_names), size=config.model.size
  )
  size = config.data.image_size
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)

  def forward(image):
    output, _ = model.init_with_output(jax.random.key(0), image, train=False)
    return output

  levels = jax.eval_shape(forward, image).levels
  channels = 5 + len(config.data.class_names)
  assert [x.shape for x in levels] == [(1, size // s, size // s, channels) for s in (8, 16, 32)]


def test_every_call_returns_a_new_config(get_config):
  get_config("demo").train.epochs = 1
  assert get_config("demo").train.epochs > 1


def test_the_published_recipe(get_config):
  config = get_config()
  assert (config.data.source, config.data.image_size, config.model.size) == ("raf_db", 320, "s")
  train, optimizer = config.train, config.optimizer
  assert (train.epochs, train.freeze_epochs, train.freeze) == (300, 100, "backbone")
  assert (train.batch_size, train.freeze_batch_size) == (16, 32)
  assert (train.ema_decay, train.ema_ramp) == (0.9999, 2000.0)
  assert (optimizer.name, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.937, 5e-4)
  assert (optimizer.learning_rate, optimizer.final_fraction) == (1e-2, 0.01)
  augment = config.data.augment
  assert (augment.mosaic, augment.mixup, augment.mosaic_until) == (0.5, 0.5, 0.7)
  assert (augment.scale, augment.aspect_jitter) == ((0.25, 2.0), 0.3)
  assert (augment.hue, augment.saturation, augment.value) == (0.1, 0.7, 0.4)
  assert (config.eval.score_threshold, config.eval.iou_threshold) == (0.05, 0.5)


@pytest.mark.parametrize("variant", ["demo", "tiny"])
def test_variants_without_files_have_data(get_config, variant):
  config = get_config(variant)
  for split, count in (("train", config.data.train_examples), ("val", config.data.val_examples)):
    source = load_source(config.data, split, seed=config.train.seed)
    assert len(source) == count
    assert source.class_names == config.data.class_names
    assert source[0]["image"].shape[-1] == 3


def test_variants_that_need_files_report_it(get_config):
  for variant in ("", "sfew", "voc"):
    with pytest.raises(ValueError, match=r"data\.dir is empty"):
      load_source(get_config(variant).data, "train")


def test_unknown_variant(get_config):
  message = "unknown variant 'demo2' of fer_yolo_mamba; known: " + ", ".join(map(repr, VARIANTS))
  with pytest.raises(ValueError, match=message):
    get_config("demo2")
