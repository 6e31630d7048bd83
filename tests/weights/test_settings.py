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
