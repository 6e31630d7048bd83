"""What a run leaves for those who watch it: each file agrees with its evaluations."""

import json
import re

import jax
import pytest

from ferjax.checkpoint import load_meta
from ferjax.config import Config, DataConfig, EvalConfig, ModelConfig, OptimizerConfig, TrainConfig
from ferjax.reports.comparison import compare
from ferjax.reports.files import REPORT
from ferjax.reports.predictions import FILE, read_predictions
from ferjax.tasks.classification.metrics import ClassificationMetrics
from ferjax.training import evaluation, run
from ferjax.training.evaluation import eval_checkpoint


def config(**train):
  defaults = {"epochs": 3, "batch_size": 8, "freeze": "none", "log_every": 1, "ema_decay": 0.0}
  return Config(
    model=ModelConfig(name="emonext", size="tiny"),
    data=DataConfig(
      source="synthetic_faces",
      class_names=("neutral", "surprise"),
      image_size=32,
      train_examples=16,
      val_examples=6,
    ),
    optimizer=OptimizerConfig(name="adamw", learning_rate=3e-2, scale_by_batch=False),
    train=TrainConfig(**{**defaults, **train}),
    eval=EvalConfig(batch_size=4),
  )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, classifier):
  """Of a run whose later evaluations are worse, by its metrics."""
  folder, scores = tmp_path_factory.mktemp("run"), iter([0.5, 0.8, 0.1])
  compute = ClassificationMetrics.compute

  with pytest.MonkeyPatch.context() as patch:
    for module in (run, evaluation):
      patch.setattr(module, "create_model", lambda *_, **__: classifier(num_classes=2))
    patch.setattr(
      ClassificationMetrics,
      "compute",
      lambda self: {**compute(self), **({"accuracy": next(scores)} if len(self) == 6 else {})},
    )
    patch.setattr(run, "write_training_report", lambda *_, **__: None)
    run.train(config(), folder)
  return folder


def test_predictions_are_those_of_the_best_checkpoint(workdir, classifier, monkeypatch, tmp_path):
  predictions = read_predictions(workdir / FILE)
  assert predictions.step == load_meta(workdir, step="best")["step"] == 4
  assert predictions.checkpoint == str(workdir / "checkpoints" / "4")
  assert (predictions.epoch, predictions.split, predictions.selection) == (2.0, "val", "")
  monkeypatch.setattr(evaluation, "create_model", lambda *_, **__: classifier(num_classes=2))
  page = tmp_path / "page.html"
  done = eval_checkpoint(workdir, output=tmp_path / "results", report=page)
  again = read_predictions(tmp_path / "results" / FILE)
  assert again.metrics.compute() == pytest.approx(predictions.metrics.compute(), rel=1e-5)
  assert again.records.tolist() == predictions.records.tolist()
  assert f"{done.metrics['balanced_accuracy']:.4f}" in page.read_text()
  assert "Curves" in page.read_text()
  # So the evaluation can be compared with the run.
  (difference,) = compare([workdir, tmp_path / "results"]).differences
  assert difference["macro_f1"] == (0, 0, 0)


def test_a_report_that_cannot_be_written_is_refused_first(workdir, tmp_path, monkeypatch):
  (tmp_path / "file").touch()
  monkeypatch.setattr(evaluation, "load_source", lambda *_, **__: pytest.fail("evaluated"))
  with pytest.raises(OSError, match="file: is a file; expected a folder"):
    eval_checkpoint(workdir, output=tmp_path, report=tmp_path / "file" / "page.html")


def test_the_curves_are_drawn(workdir):
  assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
  assert not list(workdir.glob("*.partial"))


def test_the_summary_is_written(workdir):
  summary = json.loads((workdir / "summary.json").read_text())
  assert summary["data"]["training"] == {
    "records": 16,
    "classes": {"neutral": 8, "surprise": 8},
    "counted": "records",
  }
  assert (summary["steps"], summary["devices"]) == (6, jax.device_count())


def test_of_equal_scores_the_last_checkpoint_is_the_best(tiny_run, tmp_path):
  """Like `open_checkpoint`; but an evaluation without a checkpoint is never the best."""
  tiny_run(tmp_path / "all", [0.5, 0.5, 0.5], epochs=3)
  assert read_predictions(tmp_path / "all" / FILE).step == 6
  assert load_meta(tmp_path / "all", step="best")["step"] == 6
  tiny_run(tmp_path / "some", [0.5, 0.5, 0.4], epochs=3, checkpoint_every=3)
  assert read_predictions(tmp_path / "some" / FILE).step == 2
  assert load_meta(tmp_path / "some", step="best")["step"] == 2


@pytest.fixture
def tiny_run(classifier, monkeypatch):
  """Trains a classifier whose evaluations have the given scores."""

  def train(workdir, scores, **options):
    left = iter(scores)
    monkeypatch.setattr(
      ClassificationMetrics, "compute", lambda self: {"accuracy": next(left), "loss": 0.0}
    )
    monkeypatch.setattr(run, "create_model", lambda *_, **__: classifier(num_classes=2))
    monkeypatch.setattr(run, "write_training_report", lambda *_, **__: None)
    run.train(config(curves=False, **options), workdir)

  return train


def test_the_report_is_written_at_the_end(classifier, monkeypatch, tmp_path, capsys):
  """Also after a run that was killed before it wrote its report, by the same command."""
  for module in (run, evaluation):
    monkeypatch.setattr(module, "create_model", lambda *_, **__: classifier(num_classes=2))
  short = config(epochs=2, curves=False)
  short.data.test_examples = 4
  metrics = run.train(short, tmp_path)
  shown = capsys.readouterr().err
  assert shown.startswith("Training\n  network     emonext")
  assert "\n  training    16 records; classes: neutral 8, surprise 8\n" in shown
  assert len(re.findall(r"^estimated time: 0:0.* images/s\)$", shown, re.MULTILINE)) == 1
  text = (tmp_path / REPORT).read_text()
  for heading in ("Training", "Curves", "Classes", "Worst mistakes", "Test split", "Config"):
    assert f"<h2>{heading}</h2>" in text
  assert f"{metrics['test/accuracy']:.4f}" in text
  (tmp_path / REPORT).unlink()
  run.train(short, tmp_path)
  again = (tmp_path / REPORT).read_text()
  assert again.partition("<h2>")[2] == text.partition("<h2>")[2]  # the date is before
