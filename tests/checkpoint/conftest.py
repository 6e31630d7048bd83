"""Checkpoints of a few values: the package does not depend on the content of the trees."""

import grain
import jax.numpy as jnp
import pytest

from ferjax.checkpoint import Checkpoints

META = {
  "model": {"name": "emonext", "size": "atto"},
  "task": "classification",
  "class_names": ["a", "b"],
  "image_size": 32,
  "mean": [0.5, 0.5, 0.5],
  "std": [0.25, 0.25, 0.25],
  "config": {"train": {"epochs": 3}},
  "num_examples": 16,
  "num_hosts": 1,
  "versions": {"ferjax": "0.0.9"},
  "step": 1,
  "epoch": 0.25,
  "data_start": 0,
}


def make_trees(step, *, width=3):
  """The items `variables` and `train` of a step."""
  params = {"head": {"kernel": jnp.full((width, 1), step, jnp.float32)}}
  averages = {"params": {"head": {"kernel": jnp.full((width, 1), step + 0.5, jnp.float32)}}}
  return averages, {"step": jnp.int32(step), "params": params, "ema": averages}


class Saved:
  """Checkpoints of a workdir, and the values to save."""

  meta = META
  trees = staticmethod(make_trees)

  def __init__(self, workdir, *, keep=2):
    self.checkpoints = Checkpoints(workdir, keep=keep, metric="map50")
    self.folder = self.checkpoints.folder

  @staticmethod
  def numbers():
    return iter(grain.MapDataset.range(100).to_iter_dataset())

  def save(self, step, score=None, *, iterator=None, trees=None):
    """Saves a step with a score, or unevaluated."""
    variables, train = make_trees(step) if trees is None else trees
    self.checkpoints.save(
      step,
      variables=variables,
      train=train,
      iterator=self.numbers() if iterator is None else iterator,
      meta={**META, "step": step},
      metrics=None if score is None else {"map50": score, "loss": 1.0},
    )
    self.checkpoints.wait()

  def save_all(self, scores):
    """Saves steps 1, 2, ..., one for each score."""
    for step, score in enumerate(scores, 1):
      self.save(step, score)

  def steps(self):
    return sorted(int(folder.name) for folder in self.folder.iterdir())


@pytest.fixture
def saved(tmp_path):
  saved = Saved(tmp_path)
  yield saved
  saved.checkpoints.close()


@pytest.fixture
def saved_in():
  """Opens workdirs; closes them after the test."""
  opened = []

  def open_workdir(workdir, **options):
    opened.append(Saved(workdir, **options))
    return opened[-1]

  yield open_workdir
  for one in opened:
    one.checkpoints.close()
