import json
import re

import numpy as np
import pytest

from ferjax.checkpoint import load_meta
from ferjax.config import (
  Config,
  DataConfig,
  EvalConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)
from ferjax.data.loading import load_source
from ferjax.training import evaluation, run


@pytest.fixture
def small(monkeypatch, classifier):
  """A config of synthetic faces for a classifier with a few parameters."""
  for module in (run, evaluation):
    monkeypatch.setattr(module, "create_model", lambda *_, **__: classifier(num_classes=2))
  return Config(
    model=ModelConfig(name="emonext", size="tiny"),
    data=DataConfig(
      source="synthetic_faces",
      class_names=("neutral", "surprise"),
      image_size=32,
      train_examples=16,
      val_examples=6,
    ),
    optimizer=OptimizerConfig(name="adamw", learning_rate=1e-2, scale_by_batch=False),
    train=TrainConfig(epochs=2, batch_size=8, freeze="none", log_every=1, curves=False),
    eval=EvalConfig(batch_size=4),
  )


def test_validation_split_without_boxes_is_refused(tiny, tmp_path, monkeypatch):
  def load_source(config, split, **options):
    source = tiny.Source(16)
    source.max_boxes = 0 if split == "val" else 1
    return source

  monkeypatch.setattr(run, "load_source", load_source)
  with pytest.raises(ValueError, match=r"none of the 16 records of the validation split has a box"):
    run.train(tiny.config(), tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_validation_on_unlabelled_boxes_needs_a_metric_of_faces(tiny, tmp_path, monkeypatch):
  def load_source(config, split, **options):
    source = tiny.Source(16)
    source.labelled_boxes = 0 if split == "val" else 1
    return source

  monkeypatch.setattr(run, "load_source", load_source)
  with pytest.raises(ValueError, match=r"no box .* map50 is not defined;.*select_by=face_ap50"):
    run.train(tiny.config(), tmp_path)


def test_best_checkpoint_is_tested(small, tmp_path):
  small.data.test_examples = 10
  small.eval.ten_crop = True
  small.data.resize = 40
  small.loss.logit_adjustment = 1.0
  metrics = run.train(small, tmp_path)
  report = json.loads((tmp_path / "test" / "eval.json").read_text())
  meta = load_meta(tmp_path, step="best")
  assert report["step"] == meta["step"]
  labels = load_source(small.data, "train").labels
  assert small.loss.class_prior == ()  # the caller's config stays as it is
  assert meta["class_prior"] == pytest.approx(labels.mean(axis=0))
  assert (report["split"], report["ten_crop"], report["num_images"]) == ("test", True, 10)
  assert metrics["test/accuracy"] == report["accuracy"]
  assert (metrics["num_images"], metrics["test/num_images"]) == (6, 10)
  for name in ("confusion", "reliability", "mistakes"):
    assert (tmp_path / "test" / f"{name}.png").stat().st_size > 1000


def test_one_run_per_seed(small, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path.parent))
  small.train.seeds = (0, 5)
  means = run.train(small, f"~/{tmp_path.name}")
  summary = json.loads((tmp_path / run.SUMMARY).read_text())
  assert summary["seeds"] == [0, 5]
  best = [load_meta(tmp_path / f"seed_{seed}", step="best")["metrics"] for seed in (0, 5)]
  assert best[0]["loss"] != best[1]["loss"]
  losses = [one["loss"] for one in best]
  assert means["loss"] == pytest.approx(np.mean(losses))
  assert summary["std"]["loss"] == pytest.approx(np.std(losses, ddof=1))
  alone = small.train
  alone.seeds, alone.seed = (), 5
  assert run.train(small, tmp_path / "alone")["loss"] == pytest.approx(best[1]["loss"], rel=1e-6)


def test_selection_on_test_data_is_reported_everywhere(small, tmp_path, capsys):
  small.data.test_examples = 10
  small.train.select_on = "test"
  with pytest.raises(ValueError, match="has no test score"):
    run.train(small, tmp_path)
  assert list(tmp_path.iterdir()) == []
  small.train.select_on_test_reason = "the published protocol does"
  small.train.seeds = (3,)
  assert run.train(small, tmp_path)["num_images"] == 10
  note = "Selected on the test split, so its score on it is optimistic: the published protocol does"
  printed = capsys.readouterr()
  assert printed.out.count(f"warning: {note}\n") == 1
  assert printed.err.count(f"Test metrics:\n  {note}\n  accuracy ") == 1
  tables = re.findall(rf"(.*):\n  {note}\n  accuracy ", printed.out)
  assert [table.split()[0] for table in tables] == ["Test", "1"]
  assert "alidation" not in printed.err
  folder = tmp_path / "seed_3"
  assert load_meta(folder)["selection"] == note
  for file in (tmp_path / run.SUMMARY, folder / "test" / "eval.json"):
    assert json.loads(file.read_text())["selection"] == note
  lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  assert [line.get("selection") for line in lines if "eval/loss" in line] == [note] * 2
  assert not any("selection" in line for line in lines if "train/loss" in line)


def test_records_for_another_task_are_refused(small, tiny, tmp_path, monkeypatch):
  monkeypatch.setattr(run, "load_source", lambda *_, **__: tiny.Source(16))
  with pytest.raises(ValueError, match="has records for detection, but the model emonext is for"):
    run.train(small, tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_summary_by_hand():
  summary = run.summarize([{"a": 1.0, "b": 2.0}, {"a": 4.0}, {"a": 7.0, "b": 1.0}])
  assert summary["mean"] == {"a": 4.0}
  assert summary["std"] == {"a": 3.0}
  assert run.summarize([{"a": 1.0}])["std"] == {"a": 0.0}


def test_bad_test_data_are_reported_before_training(small, tmp_path):
  small.data.source, small.data.dir, small.data.test = "image_folder", str(tmp_path / "no"), "test"
  with pytest.raises((ValueError, OSError), match="no"):
    run.train(small, tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_workdir_that_cannot_be_written_is_told_of_first(small, tmp_path, place):
  (tmp_path / "file").touch()
  small.data.source, small.data.dir = "image_folder", str(tmp_path / "no data")
  with pytest.raises(OSError, match=rf"{place}: .*(expected a folder|name another folder)"):
    run.train(small, tmp_path / place)


def evaluated(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [record["step"] for record in map(json.loads, lines) if "eval/map50" in record]


def test_patience_ends_a_run(tiny, tmp_path, monkeypatch, capsys):
  """After two evaluations without a better score; resuming needs a longer patience."""
  scores = iter([0.5, 0.7, 0.6, 0.65, 0.1])
  monkeypatch.setattr(tiny.Metrics, "compute", lambda self: {"map50": next(scores)})
  config = tiny.config(epochs=6, patience=2, checkpoint_every=6)
  tiny.train(tmp_path, config)
  assert evaluated(tmp_path) == [4, 8, 12, 16]
  assert load_meta(tmp_path, step="latest")["step"] == 16
  assert load_meta(tmp_path, step="best")["step"] == 8
  capsys.readouterr()
  assert tiny.train(tmp_path, config)["map50"] == 0.65
  printed = capsys.readouterr().err
  assert "nothing was done. Raise train.patience to continue" in printed
  assert "no better map50 in 2 evaluations (train.patience)" in printed
  assert evaluated(tmp_path) == [4, 8, 12, 16]
  config.train.patience = 3
  tiny.train(tmp_path, config)
  assert evaluated(tmp_path) == [4, 8, 12, 16, 20]
