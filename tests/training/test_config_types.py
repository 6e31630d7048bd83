import ml_collections
import pytest

from ferjax.config import AugmentConfig, Config
from ferjax.training.config_types import type_problems


def problems_with(field, value):
  config = Config()
  *groups, name = field.split(".")
  values = config
  for group in groups:
    values = getattr(values, group)
  setattr(values, name, value)
  return list(type_problems(config))


@pytest.mark.parametrize(
  ("field", "value", "expected"),
  [
    ("data.class_names", (1, 2, 3), "a tuple of strings, such as ('a', 'b')"),
    ("data.class_names", "happiness", "a tuple of strings, such as ('a', 'b')"),
    ("data.class_names", ["a", "b"], "a tuple of strings, such as ('a', 'b')"),
    ("data.class_names", (None,), "a tuple of strings, such as ('a', 'b')"),
    ("data.class_names", ([1], [2]), "a tuple of strings, such as ('a', 'b')"),
    ("train.seeds", ("a",), "a tuple of whole numbers, such as (1, 2)"),
    ("train.seeds", (0.5,), "a tuple of whole numbers, such as (1, 2)"),
    ("train.seeds", (True,), "a tuple of whole numbers, such as (1, 2)"),
    ("data.augment.scale", (1.0,), "a tuple of 2 numbers, such as (0.5, 1.0)"),
    ("data.augment.scale", 1.0, "a tuple of 2 numbers, such as (0.5, 1.0)"),
    ("data.face_augment.scale", (1, 2, 3), "a tuple of 2 numbers, such as (0.5, 1.0)"),
    ("data.mean", (0.5, "a", 0.5), "a tuple of 3 numbers, such as (0.5, 1.0, 1.5)"),
    ("loss.class_weights", (1.0, False), "a tuple of numbers, such as (0.5, 1.0)"),
    ("train.epochs", 3.0, "a whole number of at most 64 bits"),
    ("train.epochs", True, "a whole number of at most 64 bits"),
    ("train.epochs", 2**63, "a whole number of at most 64 bits"),
    ("optimizer.momentum", "0.9", "a number"),
    ("optimizer.momentum", False, "a number"),
    ("optimizer.momentum", 10**400, "a number"),
    ("optimizer.momentum", None, "a number"),
    ("data.source", 3, "a string"),
    ("data.grey", 1, "True or False"),
    ("data.augment", None, "AugmentConfig"),
    ("data.augment", Config(), "AugmentConfig"),
  ],
)
def test_wrong_type(field, value, expected):
  assert problems_with(field, value) == [f"{field} is {value!r}; expected {expected}"]


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("data.class_names", ()),
    ("data.class_names", ("1", "2")),
    ("train.seeds", (0, 2**40)),
    ("data.mean", (0, 1, 0.5)),
    ("optimizer.momentum", 1),
    ("optimizer.momentum", float("nan")),  # reported by the range check
    ("data.augment.scale", (1, 2)),
    ("data.augment", AugmentConfig(flip=0.25)),
  ],
)
def test_correct_type(field, value):
  assert problems_with(field, value) == []


def test_all_fields_are_reported():
  config = Config()
  config.train.seeds, config.data.grey = ("a",), "no"
  first, second = type_problems(config)
  assert first.startswith("data.grey is 'no'")
  assert second.startswith("train.seeds is ('a',)")


def test_not_a_config():
  (problem,) = type_problems(ml_collections.ConfigDict())
  assert problem.endswith("is a ConfigDict; expected a ferjax.config.Config")
