"""The tables and time limits of `benchmarks/accelerator.py`."""

import importlib.util
import pathlib

import pytest


@pytest.fixture(scope="module")
def report():
  path = pathlib.Path(__file__).parents[1] / "benchmarks" / "report.py"
  spec = importlib.util.spec_from_file_location("report", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_rows_become_tables_in_the_order_of_the_titles(report, tmp_path):
  first, second = (report.Section(name, tmp_path, 60, tiny=True) for name in ("a", "b"))
  second.add(batch=8, ms=12345.6)
  second.add(batch=32, error="out|of\nmemory")
  second.note("one was not reached")
  first.add(**{"images/s": 0.012345})
  text = report.tables(report.read(tmp_path), {"a": "First", "b": "Second", "c": "Third"})
  assert text == (
    "## First\n\n| images/s |\n| --- |\n| 0.0123 |\n\n"
    "## Second\n\n| batch | ms | error |\n| --- | --- | --- |\n| 8 | 12,346 |  |\n"
    "| 32 |  | out/of memory |\n\n- one was not reached\n\n"
    "## Third\n\nnot run\n"
  )


def test_a_failed_measurement_becomes_a_row(report, tmp_path):
  section = report.Section("a", tmp_path, 60, tiny=True)

  def fails():
    raise RuntimeError("RESOURCE_EXHAUSTED:\n" + 300 * "x")

  assert not section.attempt({"batch": 256}, fails)
  assert section.attempt({"batch": 64}, lambda: {"ms": 1.0})
  failed, measured = report.read(tmp_path)
  assert failed["batch"] == 256
  assert failed["error"].startswith("RuntimeError: RESOURCE_EXHAUSTED: xxx")
  assert len(failed["error"]) == 200
  assert measured == {"section": "a", "batch": 64, "ms": 1.0}


def test_an_incomplete_line_of_a_killed_process_is_dropped(report, tmp_path):
  section = report.Section("a", tmp_path, 60, tiny=True)
  section.add(ms=1.0)
  with (tmp_path / report.ROWS).open("a") as file:
    file.write('{"section": "a", "ms"')
  assert report.read(tmp_path) == [{"section": "a", "ms": 1.0}]


def test_the_time_of_a_section_ends(report, tmp_path):
  assert report.Section("a", tmp_path, 60, tiny=True).seconds_left() > 0
  assert report.Section("a", tmp_path, -1, tiny=True).seconds_left() < 0
