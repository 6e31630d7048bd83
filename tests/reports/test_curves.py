import numpy as np
import pytest
from PIL import Image

from ferjax.reports import curves
from ferjax.reports.history import History


def history(scale=1.0, metric="accuracy"):
  steps = [{"step": s, "train/loss": scale * 5 / s, "train/learning_rate": 0.1 / s} for s in (1, 2)]
  evaluations = [
    {"step": s, "eval/loss": 6 / s, f"eval/{metric}": x} for s, x in ((1, 0.2), (2, 0.6), (3, 0.4))
  ]
  return History([*steps, *evaluations])


@pytest.fixture
def axes(monkeypatch):
  """The axes of the last plot, instead of a file."""
  figures = []
  monkeypatch.setattr(curves, "save_figure", lambda figure, *_: figures.append(figure))
  return lambda: figures[-1].axes


def lines(axes):
  return {
    line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist())
    for line in axes.get_lines()
    if len(line.get_xdata()) > 1
  }


def test_one_run(axes):
  curves.plot_curves({"": history()}, "unused.png", metric="accuracy")
  loss, score, rate = axes()
  assert lines(loss) == {"training": ([1, 2], [5, 2.5]), "evaluation": ([1, 2, 3], [6, 3, 2])}
  assert lines(score) == {"accuracy": ([1, 2, 3], [0.2, 0.6, 0.4])}
  (best,) = [x for x in score.get_lines() if len(x.get_xdata()) == 1]
  assert (best.get_xdata().tolist(), best.get_ydata().tolist()) == ([2], [0.6])
  assert [x for x, _ in lines(rate).values()] == [[1, 2]]


def test_several_runs_have_one_score_and_their_names(axes):
  curves.plot_curves({"a": history(), "b": history(20.0)}, "unused.png", metric="accuracy")
  loss, score, _ = axes()
  assert set(lines(loss)) == {"a", "a evaluation", "b", "b evaluation"}
  assert set(lines(score)) == {"a", "b"}
  assert score.get_title() == "accuracy"
  assert loss.get_yscale() == "log"  # from 2 to 100
  both = History([*history().lines, *history(metric="macro_f1").lines])
  curves.plot_curves({"a": both}, "unused.png", metric="macro_f1")
  assert axes()[1].get_title() == "macro_f1"
  assert set(lines(axes()[1])) == {"a"}


def test_files(tmp_path):
  path = tmp_path / "curves.png"
  undefined = History([{"step": 1, "eval/map50": np.nan}, {"step": 1, "train/loss": -1.0}])
  for run in (History([]), undefined, history(metric="map50")):
    curves.plot_curves({"": run}, path, metric="map50")
    with Image.open(path) as image:
      assert image.size == (1300, 380)
  named = {name: history() for name in ("$x^", "_a", "中性", "\\frac")}
  curves.plot_curves(named, path, metric="accuracy")
  assert list(tmp_path.iterdir()) == [path]


def test_all_names_are_in_the_legend(axes):
  curves.plot_curves({"_a": history(), "$b$": history()}, "unused.png", metric="accuracy")
  legend = axes()[1].get_legend()
  assert [text.get_text().strip() for text in legend.get_texts()] == ["_a", "$b$"]
