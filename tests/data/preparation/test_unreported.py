"""A preparation that was stopped while it wrote its report."""

import pytest

from ferjax.data.preparation import prepare as preparation
from ferjax.data.preparation import report, unreported
from ferjax.data.preparation.prepare import prepare
from ferjax.data.prepared import find_prepared


def test_a_report_that_was_not_finished_is_written_by_the_same_command(
  make_layout, plan_of, tmp_path, monkeypatch
):
  root = make_layout("csv")
  (root / "images/12.png").write_bytes(b"no image")
  plan = plan_of("csv", root)
  options = {"on_bad_record": "skip"}
  whole = prepare(plan, root, tmp_path / "whole", **options)

  def killed(plan, path):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(report, "plot_classes", killed)
    with pytest.raises(KeyboardInterrupt):
      prepare(plan, root, tmp_path / "out", **options)
  folder = find_prepared(tmp_path / "out")
  assert not (folder / "report/samples.png").exists()
  shards = {file: file.stat().mtime for file in folder.glob("*array_record*")}
  announced = []
  again = prepare(plan, root, tmp_path / "out", announce=announced.append, **options)
  assert announced == [again]
  assert (again.records, again.left_out) == (whole.records, whole.left_out)
  assert {file: file.stat().mtime for file in folder.glob("*array_record*")} == shards
  for name in ("report.json", "classes.png", "sizes.png", "samples.png"):
    expected = (find_prepared(tmp_path / "whole") / "report" / name).read_bytes()
    assert (folder / "report" / name).read_bytes() == expected
  assert not (folder / unreported.FILE).exists()
  with pytest.raises(ValueError, match="is already prepared"):
    prepare(plan, root, tmp_path / "out", **options)


@pytest.mark.usefixtures("small_shards")
def test_the_report_of_another_source_is_not_written(make_layout, plan_of, tmp_path, monkeypatch):
  root = make_layout("csv")

  def killed(*arguments):
    raise KeyboardInterrupt

  monkeypatch.setattr(preparation, "write_report", killed)
  with pytest.raises(KeyboardInterrupt):
    prepare(plan_of("csv", root), root, tmp_path / "out")
  (root / "images/12.png").write_bytes(b"another image")
  with pytest.raises(ValueError, match="is already prepared"):
    prepare(plan_of("csv", root), root, tmp_path / "out")
