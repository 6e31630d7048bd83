"""Figures in a report are those of the metrics, whatever classes and files are called."""

import json

import numpy as np
import pytest

from ferjax.config import Config
from ferjax.expressions import UNLABELLED
from ferjax.reports.files import REPORT, ROBUSTNESS
from ferjax.reports.report import write_report
from ferjax.tasks.detection.resampling import intervals


def cells(page, heading, place=0):
  """First cell of a row -> the others."""
  return {row[0]: row[1:] for row in page.tables[heading][place][1:]}


def report(read_page, folder, predictions, source, **options):
  write_report(folder / REPORT, predictions, source, **options)
  page = read_page((folder / REPORT).read_text(encoding="utf-8"))
  assert page.sources
  assert all(x.startswith("data:image/") for x in page.sources)
  assert not {"script", "link", "b"} & set(page.tags)
  return page


def test_a_classifier(made, read_page, tmp_path):
  metrics, source = made.classifier(), made.Images(40)
  page = report(read_page, tmp_path, made.evaluation(metrics, source), source)
  values = metrics.compute()
  shown = cells(page, "Metrics")
  for name in ("accuracy", "balanced_accuracy", "macro_f1"):
    low, high = values[f"{name}_low"], values[f"{name}_high"]
    assert shown[name] == [f"{values[name]:.4f}", f"{low:.3f} to {high:.3f}"]
  assert shown["ece"][0] == f"{values['ece']:.4f}"
  assert shown["records"][0] == "40"
  classes = cells(page, "Classes")
  assert list(classes) == list(made.names)
  for name, row in classes.items():
    numbers = [f"{values[f'{x}/{name}']:.3f}" for x in ("precision", "recall", "f1")]
    low, high = (values[f"recall_{end}/{name}"] for end in ("low", "high"))
    assert row == [f"{values[f'count/{name}']:.0f}", *numbers, f"{low:.3f} to {high:.3f}"]
  wrong = metrics.mistakes(24)
  assert page.with_class("wrong")[-len(wrong) :] == [
    f"{made.names[x.predicted]} {x.probability:.2f}" for x in wrong
  ]
  # Two plots, twelve samples, and the mistakes.
  assert len(page.sources) == 2 + 12 + len(wrong)
  assert page.with_class("origin")[-1].startswith("<script>train</script>\\x1b[31m/é\\udce9")


def test_a_detector(made, read_page, tmp_path):
  metrics, source = made.detector(), made.Images(12)
  page = report(read_page, tmp_path, made.evaluation(metrics, source), source)
  values, estimates = metrics.compute(), intervals(metrics)
  shown = cells(page, "Metrics")
  for name in ("map50", "face_ap50", "expression_accuracy"):
    _, low, high = estimates[name]
    assert shown[name] == [f"{values[name]:.4f}", f"{low:.3f} to {high:.3f}"]
  assert (shown["map"][0], shown["images"][0]) == (f"{values['map']:.4f}", "12")
  for name, row in cells(page, "Classes").items():
    assert row[1] == f"{values[f'ap50/{name}']:.3f}"
  missed = sum(len(x.truth_labels) for x in metrics.images) - sum(
    np.any(x.select(x.scores >= 0.5).match() >= 0) for x in metrics.images
  )
  worst = page.headings.index("Worst misses")
  assert worst > page.headings.index("Sample detections")
  texts = [text for _, text in page.texts]
  start = texts.index("Worst misses")
  # Missed faces are worse than wrong detections, so all of them are shown, and come first.
  assert sum(text.startswith("missed: ") for text in texts[start:]) == missed
  assert texts[start + 2].startswith(("1: ", "missed: "))
  assert any(", true: no face" in text for text in page.with_class("wrong"))


def test_wrong_detections_are_described(made, read_page, tmp_path):
  metrics, source = made.detector(count=1), made.Images(1)
  image = metrics.images[0]
  truth, other = int(image.truth_labels[0]), (int(image.truth_labels[0]) + 1) % 3
  box = image.truth_boxes
  metrics.images[0] = type(image)(box, np.array([0.75]), np.array([other]), box, image.truth_labels)
  page = report(read_page, tmp_path, made.evaluation(metrics, source), source)
  expected = f"1: {made.names[other]} 0.75, true: {made.names[truth]}"
  assert page.with_class("wrong") == [expected, expected]  # as a sample and as a miss


def test_metrics_that_are_not_defined_are_left_out(made, read_page, tmp_path):
  """No face has a label."""
  metrics, source = made.detector(count=4), made.Images(4)
  for image in metrics.images:
    image.truth_labels[:] = UNLABELLED
  page = report(read_page, tmp_path, made.evaluation(metrics, source), source)
  shown = cells(page, "Metrics")
  assert "map50" not in shown
  assert shown["face_ap50"][0] == f"{metrics.compute()['face_ap50']:.4f}"
  assert all(row == ["0", "", ""] for row in cells(page, "Classes").values())


def run_folder(folder):
  config = Config()
  config.train.epochs = 7
  config.model.options = "<i>"
  from ferjax.training.config_checks import to_dict

  (folder / "config.json").write_text(json.dumps(to_dict(config)))
  (folder / "environment.json").write_text(json.dumps({"ferjax": "9.9", "device": "<gpu>"}))
  (folder / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
  counts = {"records": 5, "classes": {"a": 2, "b": 3}, "counted": "records"}
  phase = {"epochs": [0, 7], "batch_size": 2, "steps_per_epoch": 2, "frozen": "none"}
  summary = {
    "model": {"name": "net"},
    "parameters": 1234,
    "frozen_parameters": 0,
    "devices": 2,
    "device_kind": "cpu",
    "hosts": 1,
    "data": {"training": counts, "validation": {"records": 4}},
    "steps": 14,
    "phases": [phase],
  }
  (folder / "summary.json").write_text(json.dumps(summary))


def test_a_run(made, read_page, tmp_path):
  """Without predictions: config, curves, environment, and what to do."""
  run_folder(tmp_path)
  test = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "recall/a": 0.1}
  test |= {"loss": 1.5, "num_images": 1200.0}
  page = report(read_page, tmp_path, None, None, workdir=tmp_path, test=test)
  assert page.headings[0] == f"Report of {tmp_path.name}"
  assert "ferjax evaluate --workdir DIR --report FILE" in page.with_class("warning")[0]
  changed = cells(page, "Config")
  assert changed["train.epochs"] == ["7"]
  assert changed["model.options"] == ["<i>"]
  assert "data.dir" not in changed
  assert cells(page, "Config", 1)["data.dir"] == ["''"]
  assert cells(page, "Environment") == {"ferjax": ["9.9"], "device": ["<gpu>"]}
  assert cells(page, "Training") == {"training": ["5", "2", "3"], "validation": ["4", "", ""]}
  assert any("1,234 parameters; 14 steps on 2 x cpu" in text for _, text in page.texts)
  assert cells(page, "Test split") == {
    "accuracy": ["0.5000", "0.400 to 0.600"],
    "loss": ["1.5000", ""],
    "num_images": ["1,200", ""],
  }
  assert len(page.sources) == 1  # the curves


def test_robustness(made, read_page, tmp_path):
  metrics, source = made.classifier(), made.Images(40)
  rows = [
    {"distortion": name, "strength": s, "metrics": {"accuracy": 0.5 - s / 100}}
    for name, s in (("<blur>", 1), ("<blur>", 5), ("noise", 2))
  ]
  content = {"clean": {"accuracy": 0.75}, "rows": rows}
  (tmp_path / ROBUSTNESS).write_text(json.dumps(content))
  predictions = made.evaluation(metrics, source, selection="On the test split: <why>")
  page = report(read_page, tmp_path, predictions, source, results=tmp_path)
  assert cells(page, "Robustness") == {
    "<blur>": ["0.750", "0.490", "", "", "", "0.450"],
    "noise": ["0.750", "", "0.480", "", "", ""],
  }
  assert "On the test split: <why>" in page.with_class("warning")
  for wrong in ({"clean": {}}, {"clean": {"accuracy": 1}, "rows": [{}]}, {"rows": []}):
    (tmp_path / ROBUSTNESS).write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match=r"robustness.json does not have the expected form"):
      write_report(tmp_path / REPORT, predictions, source, results=tmp_path)
  (tmp_path / ROBUSTNESS).write_text("{")
  with pytest.raises(ValueError, match=r"robustness.json is damaged"):
    write_report(tmp_path / REPORT, predictions, source, results=tmp_path)


def test_images_that_are_gone_are_named(made, read_page, tmp_path):
  class Gone(made.Images):
    def __getitem__(self, index):
      raise OSError(f"{index}.jpg: no such file")

  metrics = made.classifier(count=3)
  page = report(read_page, tmp_path, made.evaluation(metrics, Gone(3)), Gone(3))
  assert {"0.jpg: no such file", "1.jpg: no such file"} < set(page.with_class("warning"))
