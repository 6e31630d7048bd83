import math

import pytest

from ferjax.serving.limits import Limits


@pytest.mark.parametrize(
  ("name", "value", "expected"),
  [
    ("max_bytes", 0, "at least 1"),
    ("max_pixels", 0, "at least 1"),
    ("max_pixels", 2**28, f"at most {2**27}"),
    ("queue_size", -1, "at least 1"),
    ("timeout", 0.0, "seconds above 0"),
    ("timeout", math.inf, "seconds above 0"),
    ("upload_timeout", math.nan, "seconds above 0"),
    ("batch_wait", -0.1, "seconds, at least 0"),
  ],
)
def test_values_out_of_range(name, value, expected):
  with pytest.raises(ValueError, match=f"{name} is {value}; expected {expected}"):
    Limits(**{name: value})
