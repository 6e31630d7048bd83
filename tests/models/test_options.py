import json

import flax.linen as nn
import jax.numpy as jnp
import pytest

import ferjax
from ferjax.config import ModelConfig
from ferjax.models.options import model_arguments, model_config, option_types, parse_options
from ferjax.models.registry import MODELS, ModelSpec, register_model


class Everything(nn.Module):
  """One field of each kind."""

  num_classes: int
  required: int
  depths: tuple[int, ...] = (1, 2)
  scale: tuple[float, float] = (0.5, 2.0)
  rate: float = 0.1
  limit: float | None = 0.5
  gated: bool = False
  kind: str = "plain"
  init: nn.initializers.Initializer = nn.initializers.ones
  frozen: str = "none"
  dtype: jnp.dtype = jnp.float32

  def check(self):
    if self.rate > 1:
      raise ValueError(f"rate is {self.rate}; it must be at most 1")


@pytest.fixture(autouse=True)
def _registered():
  spec = ModelSpec(module=Everything, task="classification", image_size=32, parts=("head",))
  register_model("everything", spec)
  yield
  del MODELS["everything"]


@pytest.mark.parametrize(
  ("text", "options"),
  [
    ("", {}),
    ("kind=gated", {"kind": "gated"}),
    ("kind=3", {"kind": "3"}),
    ("required=3, rate=1e-2", {"required": 3, "rate": 0.01}),
    ("rate=1", {"rate": 1}),
    ("depths=(3,4,5),gated=true", {"depths": (3, 4, 5), "gated": True}),
    ("depths=(),gated=False", {"depths": (), "gated": False}),
    ("scale=(1,2.5)", {"scale": (1, 2.5)}),
    ("limit=None", {"limit": None}),
    ("limit=none,kind=none", {"limit": None, "kind": "none"}),
  ],
)
def test_values_of_every_kind(text, options):
  assert parse_options("everything", text) == options


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (
      "width=3",
      "sets width, which everything does not have; its options: required, depths, scale, rate",
    ),
    ("init=ones", "sets init, which everything does not have"),
    ("num_classes=3", "sets num_classes; set config.data.class_names instead"),
    ("frozen=stem", "sets frozen; set config.train.freeze instead"),
    ("dtype=float32", "sets dtype; set config.model.dtype instead"),
    ("rate=fast", "sets rate of everything to 'fast'; expected a number"),
    ("rate=True", "sets rate of everything to 'True'; expected a number"),
    ("rate=1e999", "sets rate of everything to '1e999'; expected a number"),
    ("required=1.5", "to '1.5'; expected a whole number"),
    ("gated=1", "to '1'; expected True or False"),
    ("scale=(1,2,3)", r"to '\(1,2,3\)'; expected a tuple of 2 numbers, such as"),
    ("depths=(1,a)", r"to '\(1,a\)'; expected a tuple of whole numbers, such as"),
    ("depths=3", "to '3'; expected a tuple"),
    ("limit=low", r"to 'low'; expected a number or None"),
    ("rate", "wrong at 'rate'; expected field=value,field=value"),
    ("rate=0.1,rate=0.2", "wrong at 'rate=0.2'; expected .* named once"),
    ("rate=0.1,", "wrong at ''"),
  ],
)
def test_errors_state_the_problem(text, message):
  with pytest.raises(ValueError, match=message):
    parse_options("everything", text)


def test_arguments_rebuild_the_network_after_json():
  config = ModelConfig(name="everything", options="required=2,depths=(4,),limit=none")
  arguments = json.loads(json.dumps(model_arguments(config)))
  model = ferjax.create_model(num_classes=3, **arguments)
  assert model == Everything(3, required=2, depths=(4,), limit=None)
  assert hash(model) == hash(Everything(3, required=2, depths=(4,), limit=None))


def test_an_option_without_a_default_is_needed():
  message = "model.options is 'rate=0.5'; everything also needs required"
  with pytest.raises(ValueError, match=message):
    model_arguments(ModelConfig(name="everything", options="rate=0.5"))


def test_arguments_include_the_defaults():
  assert model_arguments(ModelConfig(name="fermam")) == {
    "name": "fermam",
    "size": "base",
    "variant": "corrected",
    "dtype": "float32",
    "mode": "both",
    "dropout_rate": 0.1,
    "remat": "none",
  }


@pytest.mark.parametrize(
  "config",
  [
    ModelConfig(name="fermam", size="nano", options="mode=conv_only,dropout_rate=0.2"),
    ModelConfig(name="fer_yolo_mamba", size="s", variant="released", dtype="bfloat16"),
    ModelConfig(name="emonext", size="tiny"),
    ModelConfig(name="everything", options="required=1,rate=0.25"),
  ],
)
def test_a_config_from_the_arguments(config):
  arguments = model_arguments(config)
  stored = json.loads(json.dumps(arguments))  # as in a checkpoint: tuples are lists
  assert model_arguments(model_config(stored)) == arguments


def test_a_config_reaches_every_field_of_every_network():
  """Either as its own config field or as an option."""
  elsewhere = {"num_classes", "size", "variant", "dtype", "frozen"}
  for name in ("fer_yolo_mamba", "emonext", "fermam"):
    module = MODELS[name].module
    fields = set(module.__dataclass_fields__) - {"parent", "name"}
    assert fields - elsewhere == set(option_types(module))


def test_options_are_checked_from_config_and_python():
  with pytest.raises(TypeError, match="everything has no option 'widht'; known: num_classes, req"):
    ferjax.create_model("everything", num_classes=3, required=1, widht=2)
  with pytest.raises(TypeError, match=r"rate of everything is '0.1'; expected a number"):
    ferjax.create_model("everything", num_classes=3, required=1, rate="0.1")
  with pytest.raises(ValueError, match=r"rate is 2.0; it must be at most 1"):
    ferjax.create_model("everything", num_classes=3, required=1, rate=2.0)
  initializer = nn.initializers.zeros
  model = ferjax.create_model("everything", num_classes=3, required=1, init=initializer)
  assert model.init is initializer
