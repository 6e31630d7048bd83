"""Attributes survive the preparation."""

import pickle

import pytest

from ferjax.config import DataConfig
from ferjax.data.loading import load_source
from ferjax.data.preparation.prepare import prepare
from ferjax.data.prepared import attributes_file, open_prepared
from ferjax.data.sources import attributes_of


@pytest.mark.usefixtures("small_shards")
def test_attributes_of_a_table_survive_the_preparation(make_layout, plan_of, tmp_path):
  root = make_layout("csv")
  plan = plan_of("csv", root, columns=("person",))
  prepared = prepare(plan, root, tmp_path / "out")
  for split, entries in plan.entries.items():
    source = open_prepared(prepared.folder, split, plan.options.class_names)
    assert source.attributes == {"person": [entry.group for entry in entries]}
    assert pickle.loads(pickle.dumps(source)).attributes == source.attributes
  # As from the released set, whose validation split has the same records.
  config = DataConfig(source="csv", dir=str(root), group_columns=("person",))
  released = load_source(config, "val")
  loaded = load_source(DataConfig(source="prepared", dir=prepared.folder), "val")
  assert attributes_of(loaded) == attributes_of(released)


def test_a_set_prepared_without_attributes_has_none(make_layout, plan_of, tmp_path):
  root = make_layout("csv")
  prepared = prepare(plan_of("csv", root), root, tmp_path / "out")
  source = open_prepared(prepared.folder, "test")
  assert not (tmp_path / "out" / prepared.folder / attributes_file("test")).exists()
  assert attributes_of(source) == {}
  with pytest.raises(ValueError, match="names 'age', but the records have no attributes; a table"):
    attributes_of(source, ("age",))
