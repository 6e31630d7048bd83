import pytest

from ferjax.demo.limits import DemoLimits


@pytest.mark.parametrize(
  ("limit", "message"),
  [
    ({"queue_size": 0}, "queue_size is 0; expected at least 1"),
    ({"max_bytes": 0}, "max_bytes is 0; expected at least 1"),
    ({"cameras": 0}, "cameras is 0; expected at least 1"),
    ({"max_pixels": 10**12}, "max_pixels is 1000000000000; expected at most"),
    ({"film_seconds": 0.0}, "film_seconds is 0.0; expected seconds above 0"),
    ({"timeout": float("nan")}, "timeout is nan; expected seconds above 0"),
    ({"frame_rate": -1.0}, "frame_rate is -1.0; expected frames per second, above 0"),
  ],
)
def test_limits_out_of_range(limit, message):
  with pytest.raises(ValueError, match=message):
    DemoLimits(**limit)
