import json
import re

import pytest

import ferjax
from ferjax.checkpoint.meta import FORMAT, read_meta

# A description in format 1.
FIRST = {
  "model": {"name": "emonext", "size": "atto", "variant": "corrected", "dtype": "float32"},
  "task": "classification",
  "class_names": ["neutral", "anger"],
  "image_size": 32,
  "mean": [0.0, 0.0, 0.0],
  "std": [1.0, 1.0, 1.0],
  "grey": True,
  "resize": 40,
  "config": {"data": {"image_size": 32, "augment": {"flip": 0.5}}, "train": {"epochs": 2}},
  "selection": "",
  "num_examples": 16,
  "num_hosts": 1,
  "versions": {"ferjax": "0.0.7", "jax": "0.10.2"},
  "step": 8,
  "epoch": 2.0,
  "data_start": 0,
  "worse": 3,
  "metric": "accuracy",
  "metrics": {"accuracy": 0.5},
}


def without(*fields):
  return {field: value for field, value in FIRST.items() if field not in fields}


def test_first_format_is_read():
  meta = read_meta(json.loads(json.dumps(FIRST)), "run/8")
  expected = without("worse") | {"evaluations_since_best": 3}
  assert {field: meta[field] for field in expected} == expected
  assert (meta["format"], meta["skipped_records"], meta["training_seconds"]) == (1, 0, 0)


@pytest.mark.parametrize(
  ("field", "default"),
  [("grey", False), ("resize", 0), ("selection", ""), ("evaluations_since_best", 0)],
)
def test_defaults_for_fields_of_newer_versions(field, default):
  meta = read_meta(without("worse", field), "run/8")
  assert meta[field] == default
  assert meta["metrics"] == {"accuracy": 0.5}


VERSIONS = rf"(?s)the checkpoint run/8 was written by ferjax 0\.0\.7.*ferjax {ferjax.__version__} "


@pytest.mark.parametrize(
  ("change", "problem"),
  [
    ({"format": FORMAT + 1}, f"its format is {FORMAT + 1}.*reads formats up to {FORMAT}"),
    ({"colour": "green"}, "fields that this version does not know: colour"),
    ({"config": {"data": {"zoom": 1}}}, r"does not know: config\.data\.zoom"),
    ({"config": {"data": {"augment": {"zoom": 1}}}}, r"know: config\.data\.augment\.zoom"),
  ],
)
def test_newer_versions_are_named(change, problem):
  with pytest.raises(ValueError, match=VERSIONS + f"cannot read it: .*{problem}.*Use the ferjax"):
    read_meta(FIRST | change, "run/8")


def test_newer_format_is_reported_before_its_fields():
  with pytest.raises(ValueError, match="its format is 9"):
    read_meta({"format": 9, "versions": {"ferjax": "2.0"}, "everything": "new"}, "run/8")


def test_missing_fields_without_default():
  with pytest.raises(ValueError, match=VERSIONS + ".*lacks fields.*: mean, task"):
    read_meta(without("mean", "task"), "run/8")
  with pytest.raises(ValueError, match=re.escape("ferjax of an unknown version")):
    read_meta(without("versions"), "run/8")
