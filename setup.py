"""The configs at the top of the repository are the package `ferjax.configs` when installed."""

from setuptools import find_namespace_packages, setup

setup(
  packages=[*find_namespace_packages(include=["ferjax*"]), "ferjax.configs"],
  package_dir={"ferjax.configs": "configs"},
)
