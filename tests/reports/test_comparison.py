import json

import pytest

from ferjax.config import Config
from ferjax.reports.comparison import compare
from ferjax.reports.comparison_page import comparison_lines, write_comparison
from ferjax.reports.predictions import FILE
from ferjax.tasks.classification.resampling import differences
from ferjax.training.config_checks import to_dict


@pytest.fixture
def workdir(made, tmp_path):
  """Writes a run."""

  def write(name, metrics, *, epochs=300, source=None, **values):
    folder = tmp_path / name
    folder.mkdir(parents=True)
    count = len(metrics.arrays()["index"])
    made.evaluation(metrics, source or made.Images(count), **values).write(folder / FILE)
    config = Config()
    config.train.epochs = epochs
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    (folder / "metrics.jsonl").write_text('{"step": 1, "eval/accuracy": 0.5, "train/loss": 2}\n')
    return folder

  return write


def test_classifiers(made, workdir, read_page, tmp_path):
  metrics = [made.classifier(seed, count=200) for seed in range(3)]
  folders = [workdir(f"<{i}>", x, epochs=100 + 100 * (i == 1)) for i, x in enumerate(metrics)]
  found = compare(folders)
  assert [run.name for run in found.runs] == ["<0>", "<1>", "<2>"]
  assert found.config == {"train.epochs": [100, 200, 100]}
  for run, one in zip(found.runs, metrics, strict=True):
    values = one.compute()
    assert run.estimates["macro_f1"] == tuple(values[f"macro_f1{x}"] for x in ("", "_low", "_high"))
  assert found.differences[1] == differences(metrics[0], metrics[2])

  content = json.loads(json.dumps(found.as_json()))
  assert (content["task"], content["records"], content["split"]) == ("classification", 200, "val")
  accuracy = content["differences"][0]["metrics"]["accuracy"]
  assert accuracy["value"] == metrics[1].compute()["accuracy"] - metrics[0].compute()["accuracy"]
  assert accuracy["excludes_zero"] == found.differences[0]["accuracy"].excludes_zero

  lines = [line.split() for line in comparison_lines(found)]
  difference = found.differences[0]["accuracy"]
  numbers = [f"{difference.value:+.4f}", f"{difference.low:+.4f}", "to", f"{difference.high:+.4f}"]
  assert ["<1>", "accuracy", *numbers] in [line[:6] for line in lines]
  assert ["train.epochs", "100", "200", "100"] in lines
  write_comparison(tmp_path / "page.html", found)
  page = read_page((tmp_path / "page.html").read_text(encoding="utf-8"))
  assert page.headings == ["Comparison of 3 runs", "Metrics", "Differences", "Curves", "Config"]
  row = page.tables["Differences"][0][1]
  assert row[:3] == ["<1>", "accuracy", f"{difference.value:+.4f}"]
  assert len(page.sources) == 1
  assert page.sources[0].startswith("data:image/png")


def test_what_is_a_difference(made, workdir):
  """A classifier that is always right is better; one that errs on the same records is not."""
  names = made.names
  some = made.classifier(count=200)
  right = {**some.arrays(), "predicted": some.arrays()["truth"]}
  best = type(some).from_arrays(names, right)
  folders = [workdir(name, x) for name, x in (("a", some), ("b", some), ("c", best))]

  def verdicts(folders):
    lines = [line for line in comparison_lines(compare(folders)) if "  accuracy  " in line]
    return [line.split("  ")[-1].strip() for line in lines[1:]]  # after the header

  assert verdicts(folders) == ["no difference shown", "better"]
  assert verdicts(folders[::-1]) == ["worse", "worse"]


def test_detectors(made, workdir):
  found = compare([workdir(f"{i}", made.detector(i)) for i in range(2)])
  values = [run.predictions.metrics.compute() for run in found.runs]
  for name in ("map50", "face_ap50", "expression_accuracy"):
    difference = found.differences[0][name]
    assert difference.value == pytest.approx(values[1][name] - values[0][name], abs=1e-12)
    assert difference.low <= difference.value <= difference.high
  assert "12 images of the validation split" in next(comparison_lines(found))


def test_results_of_evaluations(made, workdir, tmp_path):
  """Folders of a workdir have its config; those elsewhere have none."""
  for name, epochs in (("a", 1), ("b", 2)):
    folder = workdir(name, made.classifier(), epochs=epochs)
    (folder / "eval").mkdir()
    (folder / FILE).rename(folder / "eval" / FILE)
  found = compare([tmp_path / "a" / "eval", tmp_path / "b" / "eval"])
  assert [run.name for run in found.runs] == ["a/eval", "b/eval"]
  assert found.config == {"train.epochs": [1, 2]}
  (tmp_path / "b" / "config.json").unlink()
  found = compare([tmp_path / "a" / "eval", tmp_path / "b" / "eval"])
  assert found.config == {}


def test_runs_that_cannot_be_compared(made, workdir, tmp_path):
  one = workdir("one", made.classifier())
  with pytest.raises(ValueError, match="1 run is given; expected two or more"):
    compare([one])
  with pytest.raises(ValueError, match="is given twice; expected different runs"):
    compare([one, one])
  with pytest.raises(ValueError, match="none: no such folder; expected a workdir or the results"):
    compare([one, tmp_path / "none"])
  other = workdir("other", made.classifier(), source=made.Images(40, folder="b"))
  with pytest.raises(
    ValueError, match=r"one was evaluated on 40 records and other on 40, of which 0 are the same; e"
  ):
    compare([one, other])
  more = workdir("more", made.classifier(count=50))
  with pytest.raises(ValueError, match=r"on 40 records and more on 50, of which 40 are the same"):
    compare([one, more])
  with pytest.raises(ValueError, match="one and boxes have different tasks: classification, and d"):
    compare([one, workdir("boxes", made.detector())])
  with pytest.raises(ValueError, match=r"have different classes: .*; compare runs with the"):
    compare([one, workdir("classes", made.classifier(names=("a", "b", "c")))])
  (tmp_path / "empty").mkdir()
  with pytest.raises(ValueError, match=r"empty has no predictions.npz.*evaluate --workdir .*empty"):
    compare([one, tmp_path / "empty"])
  workdir("seeds/seed_3", made.classifier())
  with pytest.raises(
    ValueError, match=r"seeds has a run for each of several seeds; .*seed_3 in it"
  ):
    compare([one, tmp_path / "seeds"])
