import dataclasses
import functools
import json
import math

import pytest

from ferjax.config import AugmentConfig, Config, FaceAugmentConfig, ModelConfig
from ferjax.training.config_checks import flatten, from_dict, to_dict, validate


def _config(name="fer_yolo_mamba"):
  return Config(model=ModelConfig(name=name))


def test_defaults_are_valid():
  validate(_config())


def test_model_name_is_required():
  message = "model.name: unknown model ''; known: fer_yolo_mamba, emonext, fermam"
  with pytest.raises(ValueError, match=message):
    validate(Config())


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("optimizer.name", "lion", "optimizer.name is 'lion'; known: sgd, adamw"),
    ("optimizer.schedule", "linear", "known: cosine, step"),
    ("optimizer.decay", "some", "'some'; known for fer_yolo_mamba: kernels, all, released"),
    ("model.options", "mode=both", "sets mode, which fer_yolo_mamba does not have; its opt"),
    ("train.pretrained", "neck=w.npz", "the part 'neck', which fer_yolo_mamba cannot import"),
    ("train.freeze", "head", r"known: none, backbone, backbone\+neck"),
    ("data.on_bad_record", "ignore", "known: error, skip"),
    ("train.batch_size", 0, "train.batch_size is 0; it must be at least 1"),
    ("train.freeze_epochs", -1, "must not be negative"),
    ("optimizer.learning_rate", 0.0, "must be above 0"),
    ("optimizer.learning_rate", float("nan"), "learning_rate is nan"),
    ("optimizer.momentum", 1.0, "below 1"),
    ("optimizer.group_rates", "tail=2,neck=1,x=1", "names tail, x; parts of this model: backbone,"),
    ("optimizer.group_rates", "neck=1,head=2,neck=3", "invalid at 'neck=3'; expected part=factor,"),
    ("optimizer.group_rates", "neck", "'neck', invalid at 'neck'; expected"),
    ("optimizer.group_rates", "=2", "invalid at '=2'"),
    ("optimizer.group_rates", "neck=fast", "invalid at 'neck=fast'"),
    ("optimizer.group_rates", "neck=-1", "invalid at 'neck=-1'.*factors of at least 0"),
    ("optimizer.group_rates", "neck=inf", "invalid at 'neck=inf'"),
    ("train.ema_decay", 1.0, "below 1"),
    ("train.ema_ramp", 0.0, "must be above 0"),
    ("eval.iou_threshold", 1.5, r"must be in 0\.\.1"),
    ("optimizer.min_learning_rate", 1.0, "must not be above max_learning_rate, 0.05"),
    ("data.image_size", 300, "is 300; it must be divisible by 32; nearest: 288 or 320"),
    ("data.image_size", 20, "data.image_size is 20; it must be divisible by 32; nearest: 32"),
    ("data.augment", AugmentConfig(flip=2.0), r"data.augment.flip \(2.0\) must be in 0..1"),
    ("data.class_names", ("a", "a"), "without duplicates"),
    ("data.sources", ("voc=0.5",), "data.sources: the shares 1/2 add up to 1/2; expected 1"),
    ("data.sources", ("sfew=1",), "data.sources has 'sfew'; the model fer_yolo_mamba is for detec"),
    ("loss.regularizer_weight", 1.0, "fer_yolo_mamba has no attention to regularise"),
    ("data.class_names", (), "at least one name"),
    ("data.balance_power", 2.0, r"data.balance_power is 2.0; it must be in 0\.\.1"),
    ("data.face_augment", FaceAugmentConfig(mixup=0.2), "mixup is 0.2, which is for classifiers"),
    ("train.teachers", ("fermam-nano-ferplus",), "train.teachers is .* which is for classifiers"),
    ("train.teacher_weight", 1.1, r"teacher_weight is 1.1; it must be in 0\.\.1"),
    ("eval.temperature", 0.5, "eval.temperature is 0.5, which is for classifiers, but the model"),
    ("eval.temperature", 0.0, "eval.temperature is 0.0; it must be above 0"),
    ("eval.flip", True, "eval.flip is True, which is for classifiers, but the model fer_yolo_ma"),
  ],
)
def test_invalid_values(field, value, message):
  config = _config()
  group, name = field.split(".")
  setattr(getattr(config, group), name, value)
  with pytest.raises(ValueError, match=message):
    validate(config)


@pytest.mark.parametrize("name", ["emonext", "fermam"])
def test_decay_rule_of_another_network_is_refused(name):
  """EmoNeXt's BatchNorm has the name of FER-YOLO-Mamba's LayerNorm."""
  config = _config(name)
  config.optimizer.decay = "released"
  with pytest.raises(ValueError, match=rf"decay is 'released'; known for {name}: kernels, all\n"):
    validate(config)


def test_all_problems_are_reported_at_once():
  config = _config()
  config.train.epochs, config.eval.batch_size = 0, -2
  with pytest.raises(ValueError, match=r"(?s)train.epochs is 0.*eval.batch_size is -2"):
    validate(config)


def test_json_round_trip():
  config = Config(model=ModelConfig(size="nano"))
  config.data.class_names = ("x", "y")
  config.data.augment.scale = (0.5, 1.5)
  assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("class_names", [1, 2], r"data\.class_names is \(1, 2\); expected a tuple of strings"),
    ("augment", 3, r"data\.augment is 3; expected AugmentConfig"),
    ("image_size", "224", r"data\.image_size is '224'; expected a whole number"),
  ],
)
def test_stored_value_of_the_wrong_type(field, value, message):
  values = to_dict(Config())
  values["data"][field] = value
  with pytest.raises(ValueError, match=message):
    from_dict(values)


def test_types_are_checked_before_values():
  config = Config()
  config.train.seeds, config.train.epochs = ("a",), 0
  with pytest.raises(ValueError, match=r"^config: train\.seeds is \('a',\); expected .*\)$"):
    validate(config)


def leaves(values, prefix=()):
  for field in dataclasses.fields(values):
    value = getattr(values, field.name)
    if dataclasses.is_dataclass(value):
      yield from leaves(value, (*prefix, field.name))
    else:
      yield *prefix, field.name


ODD_VALUES = [
  *(None, "", "a", True, 1j, b"x", [1, 2], {"a": 1}),
  *(0, -1, 1, 10**30, 10**400, 0.0, 0.5, math.nan, math.inf),
  *((), (1,), (0.5,), ("a",), (None,), ("a", 1), ("a", "a"), ((1, 2), 3), ([1], [2])),
  *((math.nan, 1), (1, math.nan), (math.inf, math.inf), (10**400, 10**400)),
  *((1, 2, 3), (0, 0, 0), (math.nan, math.nan, math.nan)),
]


@pytest.mark.parametrize("path", list(leaves(Config())), ids=".".join)
def test_odd_values_raise_only_value_errors(path):
  *groups, name = path
  for value in ODD_VALUES:
    config = Config()
    config.model.name = "fermam"
    setattr(functools.reduce(getattr, groups, config), name, value)
    try:
      validate(config)
    except ValueError as error:
      assert str(error).startswith("config: ")  # noqa: PT017


def test_unknown_field_of_a_stored_config():
  values = to_dict(_config())
  values["train"]["speed"] = 3
  message = r"TrainConfig has no \['speed'\]; known: seed, seeds, epochs"
  with pytest.raises(ValueError, match=message):
    from_dict(values)


def test_flatten():
  assert flatten({"a": {"b": {"c": 1}, "d": 2}, "e": 3}) == {"a.b.c": 1, "a.d": 2, "e": 3}


@pytest.mark.parametrize(
  ("name", "changes", "message"),
  [
    ("fermam", {"num_workers": 2}, "data.num_workers is 2, but with data.on_device .* set it to 0"),
    ("fermam", {"on_device_limit": 0.0}, "data.on_device_limit is 0.0; it must be above 0"),
    ("fer_yolo_mamba", {}, r"fer_yolo_mamba is for detection, .*\(mosaic, mixup\); turn it off"),
  ],
)
def test_sets_on_the_device(name, changes, message):
  config = _config(name)
  source = "synthetic_faces" if name == "fermam" else "synthetic"
  data = dataclasses.replace(config.data, source=source, image_size=64)
  config.train.freeze = "none"
  config.data = data
  validate(config)
  config.data = dataclasses.replace(data, on_device=True, **changes)
  with pytest.raises(ValueError, match=message):
    validate(config)
