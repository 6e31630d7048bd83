"""Settings of prediction: their ranges, and which ones weights can have."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# Task -> settings that its weights may have.
SETTINGS = {
  "detection": ("score_threshold", "iou_threshold"),
  "classification": ("crop_margin", "flip", "logit_adjustment", "temperature"),
}
_MARGINS = (
  -0.5,
  1.5,
)  # exclusive and inclusive: sides above 0 and at most 4 times those of the box

Margin = tuple[float, float, float, float]


def check_settings(task: str, settings: Mapping[str, Any]) -> None:
  """Raises a ValueError for a setting that does not apply to the task, or is out of range."""
  known = SETTINGS.get(task, ())
  for name, value in settings.items():
    if name not in known:
      raise ValueError(
        f"{name} is {value}, but does not apply to a model for {task}; its settings: "
        f"{', '.join(known) or 'none'}"
      )
    if name == "crop_margin":
      check_margin(value)
    elif name == "flip":
      if not isinstance(value, bool):
        raise ValueError(f"flip is {value!r}; expected True or False")
    elif name == "logit_adjustment":
      if not math.isfinite(value):
        raise ValueError(f"logit_adjustment is {value}; expected a finite number")
    elif name == "temperature":
      check_temperature(value)
    else:
      check_fraction(name, value)


def check_temperature(value: float) -> None:
  """Raises a ValueError for a temperature that is not above 0 and finite."""
  if not (math.isfinite(value) and value > 0):
    raise ValueError(f"temperature is {value}; expected a finite number above 0")


def check_fraction(name: str, value: float) -> None:
  """Raises a ValueError for a number outside 0..1."""
  if not 0 <= value <= 1:
    raise ValueError(f"{name} is {value}; expected 0..1")


def check_margin(margin: float | Sequence[float]) -> Margin:
  """The margins (left, top, right, bottom) of a crop around a box.

  Left and right are relative to the width of the box, top and bottom to its height; negative ones
  cut parts of the box off. One number is the margin of all four sides.

  Raises:
    ValueError: not one or four numbers above -0.5 and at most 1.5.
  """
  sides = tuple(margin) if isinstance(margin, Sequence) else (margin,) * 4
  low, high = _MARGINS
  if len(sides) != 4 or not all(math.isfinite(x) and low < x <= high for x in sides):
    raise ValueError(
      f"crop_margin is {margin}; expected one number, or four (left, top, right, bottom), above "
      f"{low} and at most {high}"
    )
  left, top, right, bottom = map(float, sides)
  return left, top, right, bottom
