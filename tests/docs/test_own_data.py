"""docs/own_data.md from its own blocks: fewer drawings, fewer steps and smaller pictures."""

import doc_pages
import pytest
from doc_commands import config_of

from ferjax.commands.main import main
from ferjax.training.evaluation import eval_checkpoint
from ferjax.training.run import load_split, train

# How ml_collections imports a config file.
pytestmark = [
  pytest.mark.usefixtures("cached_programs"),
  pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]

PAGE = doc_pages.ROOT / "docs" / "own_data.md"
FEWER = {'"train", 240': '"train", 12', '"val", 60': '"val", 6', "(200,": "(4,", "(40,": "(2,"}
KINDS = ("folder", "table", "yolo", "coco", "voc")
COUNTS = {"folder": (12, 6), "table": (12, 6)}  # of the others: (4, 2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder with the drawings of the page, in all forms."""
  folder = tmp_path_factory.mktemp("own")
  program = doc_pages.program(PAGE)
  for many, few in FEWER.items():
    assert program.count(many) == 1
    program = program.replace(many, few)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    exec(compile(program, str(PAGE), "exec"), {"__name__": "own_data"})
  return folder


@pytest.fixture(scope="module")
def commands():
  """Kind of data -> the words of check, train, evaluate and predict, without the program."""
  words = [c.words for c in doc_pages.commands(PAGE)]
  assert {word[0] for word in words} == {"ferjax"}
  parts = [[word[1:] for word in words[start : start + 4]] for start in range(0, len(words), 4)]
  for check, *rest in parts:
    assert [check[:2], *(part[0] for part in rest)] == [
      ["data", "check"],
      "train",
      "evaluate",
      "predict",
    ]
  return dict(zip(KINDS, parts, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_data_are_right_and_found(kind, place, commands, monkeypatch, capsys):
  monkeypatch.chdir(place)
  check, training, *_ = commands[kind]
  assert main(check) == 0
  assert "annotation        0" in capsys.readouterr().out
  config = config_of(training)
  assert config.data.class_names == ("neutral", "happiness", "surprise")
  sizes = tuple(len(load_split(config, split)) for split in ("train", "val"))
  assert sizes == COUNTS.get(kind, (4, 2))


@pytest.mark.slow  # a minute each, most of it compiling; the kinds share programs
@pytest.mark.parametrize("kind", KINDS)
def test_from_zero_to_prediction(kind, place, commands, monkeypatch, capsys):
  monkeypatch.chdir(place)
  _, training, evaluation, prediction = commands[kind]
  config = config_of(training)
  config.data.image_size = 32 if kind in COUNTS else 64
  config.data.num_workers = 0
  config.train.epochs = 1
  config.train.batch_size = config.train.freeze_batch_size = config.eval.batch_size = 2
  config.train.eval_every = config.train.checkpoint_every = 1
  workdir = f"runs/{kind}"
  assert training[training.index("--workdir") + 1] == workdir
  train(config, workdir)
  assert config_of(evaluation) is None
  assert evaluation == ["evaluate", "--workdir", workdir]
  report = eval_checkpoint(workdir)
  assert report.metrics["num_images"] == COUNTS.get(kind, (4, 2))[1]
  assert main(prediction) == 0
  assert f"Results in results/{kind}" in capsys.readouterr().out
  assert (place / "results" / kind / "predictions.csv").is_file()
