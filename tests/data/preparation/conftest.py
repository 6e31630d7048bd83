"""Shards of a few records, so that miniatures have several."""

import pytest

from ferjax.data.preparation import builders
from ferjax.data.preparation import prepare as preparation


@pytest.fixture
def small_shards(monkeypatch):
  """Five records in each; no images are rendered."""

  def config(*args, **kwargs):
    return builders.Config(*args, **kwargs, records_per_shard=5)

  monkeypatch.setattr(preparation, "Config", config)
  monkeypatch.setattr(preparation, "write_report", lambda *args: None)
