"""Descriptions of trained networks, which anyone can have written."""

import math

import pytest

from ferjax.trained import check_network_meta

META = {
  "model": {"name": "fermam"},
  "task": "classification",
  "class_names": ["anger", "fear"],
  "image_size": 64,
  "mean": [0, 0.5, 0.5],
  "std": [1, 0.5, 0.5],
  "grey": False,
  "resize": 0,
  "class_prior": [],
  "settings": {"flip": True, "crop_margin": [0, 0.3, 0, 0], "max_detections": 5, "other": "x"},
}


def test_numbers_become_floats():
  checked = check_network_meta(META, "a")
  assert checked == META
  assert all(isinstance(x, float) for x in (*checked["mean"], *checked["std"]))
  assert all(isinstance(x, float) for x in checked["settings"]["crop_margin"])
  kept = (checked["settings"]["max_detections"], checked["settings"]["flip"], checked["image_size"])
  assert kept == (5, True, 64)


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("model", {"size": "nano"}, "its model is {'size': 'nano'}; expected arguments with a name"),
    ("class_names", [], r"its class_names is \[\]; expected a list of different names"),
    ("class_names", ["a", "a"], "expected a list of different names"),
    ("class_names", ["a", "b\nc"], "without line breaks"),
    ("image_size", 10**9, r"its image_size is 1000000000; expected 1\.\.8192"),
    ("image_size", True, "its image_size is True"),
    ("resize", -1, r"its resize is -1; expected 0\.\.8192"),
    ("mean", [0.5, 0.5], "its mean is .*; expected three numbers"),
    ("mean", [0.5, 0.5, math.nan], "expected three numbers"),
    ("mean", [0.5, 0.5, 10**400], "expected three numbers"),
    ("std", [0.5, 0.5, 0], "expected three numbers, not 0"),
    ("grey", 1, "its grey is 1; expected true or false"),
    ("settings", {"score_threshold": 2}, "expected settings of prediction in their ranges"),
    ("settings", {"crop_margin": "wide"}, "expected settings of prediction"),
    ("settings", {"max_detections": 0}, "expected settings of prediction"),
    ("settings", {"temperature": 0}, "expected settings of prediction"),
  ],
)
def test_wrong_values(field, value, message):
  with pytest.raises(ValueError, match=f"^the file a is damaged: .*{message}"):
    check_network_meta(META | {field: value}, "the file a")
