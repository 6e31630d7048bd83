import pytest

from ferjax.weights.settings import check_margin, check_settings


def test_margins():
  assert check_margin(0.25) == (0.25, 0.25, 0.25, 0.25)
  assert check_margin([0.0, 0.5, -0.25, 1.5]) == (0.0, 0.5, -0.25, 1.5)


def test_a_task_without_settings():
  check_settings("regression", {})
  with pytest.raises(
    ValueError, match=r"x is 1, but does not apply .* regression; its settings: none"
  ):
    check_settings("regression", {"x": 1})


@pytest.mark.parametrize(
  ("name", "value", "problem"),
  [
    ("flip", 1, "flip is 1; expected True or False"),
    ("logit_adjustment", float("nan"), "logit_adjustment is nan; expected a finite number"),
    ("temperature", 0.0, "temperature is 0.0; expected a finite number above 0"),
    ("temperature", float("inf"), "temperature is inf; expected a finite number above 0"),
    ("score_threshold", 0.5, "score_threshold is 0.5, but does not apply"),
  ],
)
def test_settings_of_a_classifier(name, value, problem):
  right = {"flip": True, "logit_adjustment": 0.5, "temperature": 0.7, "crop_margin": 0.1}
  check_settings("classification", right)
  with pytest.raises(ValueError, match=problem):
    check_settings("classification", {name: value})
