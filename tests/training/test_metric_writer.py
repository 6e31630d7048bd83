import json
import os

import pytest

from ferjax.training.metric_writer import MetricWriter, format_table


def write(folder, step, entries):
  writer = MetricWriter(folder, step=step)
  for entry in entries:
    writer.write(*entry)
  writer.close()


def test_lines_and_events(tmp_path):
  write(tmp_path, 0, [(2, 0.5, {"train/loss": 1.5}), (4, 1.0, {"eval/map50": 0.25})])
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert lines == [
    {"step": 2, "epoch": 0.5, "train/loss": 1.5},
    {"step": 4, "epoch": 1.0, "eval/map50": 0.25},
  ]
  assert list((tmp_path / "tensorboard").glob("events*"))


def test_resumed_run_deletes_lines_after_its_checkpoint(tmp_path):
  write(tmp_path, 0, [(step, step / 4, {"x": float(step)}) for step in (2, 4, 6)])
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 8, "ep')  # killed while writing
  write(tmp_path, 4, [(6, 1.5, {"x": -6.0})])
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert [(line["step"], line["x"]) for line in lines] == [(2, 2), (4, 4), (6, -6)]


def test_an_evaluation_that_will_be_repeated_is_deleted(tmp_path):
  """Its program was killed after it had written the line and before it saved."""
  write(tmp_path, 0, [(4, 1.0, {"train/x": 1.0}), (4, 1.0, {"eval/x": 2.0}), (5, 1.2, {"x": 3.0})])
  writer = MetricWriter(tmp_path, step=4, evaluated=False)
  writer.close()
  assert writer.last_step == 5
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert lines == [{"step": 4, "epoch": 1.0, "train/x": 1.0}]


def test_an_error_names_the_file(tmp_path):
  writer = MetricWriter(tmp_path, step=0)
  (tmp_path / "metrics.jsonl").unlink()
  (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
  with pytest.raises(OSError, match=r"metrics\.jsonl and the files .*No space left.*run again"):
    writer.write(1, 0.5, {"x": 1.0})
  writer.close()


@pytest.mark.parametrize("line", ["\0\0\0", '{"epoch": 1}', "[1]", '{"step": "x"}'])
def test_a_damaged_line_is_named_and_nothing_is_changed(tmp_path, line):
  content = f'{{"step": 2}}\n{line}\n{{"step": 4}}\n'
  (tmp_path / "metrics.jsonl").write_text(content)
  with pytest.raises(ValueError, match=r"metrics\.jsonl:2 is damaged: .*delete this line"):
    MetricWriter(tmp_path, step=4)
  assert (tmp_path / "metrics.jsonl").read_text() == content


def test_log_survives_a_kill_while_it_is_shortened(tmp_path, monkeypatch):
  write(tmp_path, 0, [(2, 0.5, {"x": 1.0}), (4, 1.0, {"x": 2.0})])
  before = (tmp_path / "metrics.jsonl").read_text()

  def killed(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, "replace", killed)
  with pytest.raises(KeyboardInterrupt):
    MetricWriter(tmp_path, step=2)
  assert (tmp_path / "metrics.jsonl").read_text() == before


def test_table():
  assert format_table({"map": 0.5, "map50": 1.0}) == "  map        0.5000\n  map50      1.0000"
  assert format_table({}) == ""


def test_table_of_a_classifier():
  """A row for each class; a class without examples has only the count."""
  metrics = {
    "accuracy": 0.5,
    "accuracy_low": 0.25,
    "accuracy_high": 0.75,
    "count/fear": 12.0,
    "precision/fear": 0.125,
    "recall/fear": 1.0,
    "recall_low/fear": 0.9,
    "recall_high/fear": 1.0,
    "f1/fear": 0.2,
    "count/anger": 0.0,
    "num_images": 12.0,
  }
  expected = """
  accuracy        0.5000  0.2500..0.7500
  num_images          12
         precision     recall         f1      count
  fear      0.1250     1.0000     0.2000         12
  anger          -          -          -          0"""
  assert format_table(metrics) == expected.removeprefix("\n")
