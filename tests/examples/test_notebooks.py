"""All cells of the notebooks run, in their order."""

import ast
import json
import pathlib

import matplotlib.pyplot as plt
import pytest

pytestmark = pytest.mark.usefixtures("cached_programs")

FOLDER = pathlib.Path(__file__).parents[2] / "examples" / "notebooks"


def cells(name):
  return json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]


@pytest.fixture
def run(monkeypatch):
  """Runs a notebook from its folder; returns the names that it defines."""
  monkeypatch.chdir(FOLDER)

  def run(name):
    namespace = {"__name__": "notebook"}
    for number, cell in enumerate(cells(name)):
      if cell["cell_type"] == "code":
        code = compile("".join(cell["source"]), f"{name}, cell {number}", "exec")
        exec(code, namespace)
    return namespace

  yield run
  plt.close("all")


def test_the_scan(run):
  names = run("selective_scan.ipynb")
  assert names["errors"][-1] < 0.1 * names["errors"][0]
  assert len(plt.get_fignums()) == 1


@pytest.mark.slow  # the shipped networks: a minute, most of it compiling
def test_prediction_and_fine_tuning(run, capsys):
  names = run("predict_and_finetune.ipynb")
  faces = sorted(names["prediction"].faces, key=lambda face: face.box[0])
  assert [face.expression for face in faces] == ["happiness", "neutral", "happiness"]
  assert names["losses"][-1] < 0.5 * names["losses"][0]
  assert names["accuracy"] >= 0.5
  assert len(plt.get_fignums()) == 3


def test_they_are_stored_without_results_and_parse():
  names = [path.name for path in FOLDER.glob("*.ipynb")]
  assert len(names) == 2
  for name in names:
    for cell in cells(name):
      if cell["cell_type"] == "code":
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        ast.parse("".join(cell["source"]))
