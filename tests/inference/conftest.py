"""Random photographs."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def photographs():
  rng = np.random.default_rng(1)
  sizes = [(64, 64), (50, 90), (200, 41), (7, 7), (128, 96)]
  return [rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in sizes]
