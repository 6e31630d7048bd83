"""The targets are in the folder `fuzz`, which is no part of the installed package."""

import contextlib
import importlib
import pathlib
import sys

import pytest
from hypothesis import HealthCheck, settings

sys.path.append(str(pathlib.Path(__file__).parents[2]))

# The same examples in every run: `python -m fuzz.run` looks for new ones.
settings.register_profile(
  "ferjax",
  derandomize=True,
  database=None,
  deadline=None,
  suppress_health_check=list(HealthCheck),
)
settings.load_profile("ferjax")


@pytest.fixture(scope="session")
def libraries():
  """Loads what is loaded on first use, and takes more memory than any input."""
  with contextlib.suppress(ImportError):
    importlib.import_module("torch")


@pytest.fixture(autouse=True)
def little_memory(libraries, request):
  """No test needs much memory."""
  from fuzz.checks import memory_below
  from fuzz.targets import MEMORY, PROGRAM_MEMORY

  is_program = "stablehlo_program" in request.node.name
  with memory_below(PROGRAM_MEMORY if is_program else MEMORY):
    yield
