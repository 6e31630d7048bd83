"""The benchmarks are scripts that import each other from their folder."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[2] / "benchmarks"))
