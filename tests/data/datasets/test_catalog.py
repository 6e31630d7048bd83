"""A new data set is one description and one line that registers it: listed, checked, prepared, and
trained on as released and as prepared."""

import dataclasses
import functools

import numpy as np
import pytest
from PIL import Image

from ferjax.commands.main import main
from ferjax.config import Config, DataConfig, FaceAugmentConfig, ModelConfig, TrainConfig
from ferjax.data.datasets.base import DataSet, Reading, Release
from ferjax.data.datasets.catalog import DATA_SETS, find_data_set, register_data_set
from ferjax.data.datasets.entries import Entry, RecordError
from ferjax.data.datasets.parsing import check_image_file, read_lines, relative_key, whole_number
from ferjax.data.image import normalize
from ferjax.data.loading import load_source
from ferjax.data.pipeline import eval_dataset, train_dataset
from ferjax.expressions import index_of
from ferjax.training.config_checks import validate

CODES = {1: "happiness", 2: "sadness", 3: "neutral"}
LIST = "list.txt"


# The content of a new set's file: a reader of its records, and a `DataSet` that describes it.
def _read(root, options):
  reading = Reading(wanted=options.splits)
  parse = functools.partial(_entry, root=root, options=options)
  reading.add_all(
    read_lines(root / LIST),
    parse,
    split=lambda line: "test" if line[1].startswith("test") else "train",
    where=root / LIST,
    expected="expected lines `train_1.png 2`",
  )
  return reading


def _entry(line, *, root, options):
  number, text = line
  name, _, code = text.partition(" ")
  origin = f"{LIST}:{number} ({name})"
  if whole_number(code) not in CODES:
    raise RecordError(f"{origin}: code {code!r}; expected one of {', '.join(map(str, CODES))}")
  path = root / "faces" / name
  check_image_file(path, origin)
  label = index_of(CODES[int(code)], options.class_names)
  split = "test" if name.startswith("test") else "train"
  return Entry(origin, relative_key(path, root), str(path), split, label)


TOY = DataSet(
  name="toy_faces",
  title="Toy faces",
  terms="none",
  request=f"Draw faces/*.png, and write {LIST}",
  releases=(
    Release("list", lambda root, options: {LIST: "names and codes", "faces": "the images"}, _read),
  ),
)


@pytest.fixture
def toy(tmp_path, monkeypatch):
  """Registers the set; returns its folder as released."""
  monkeypatch.delitem(DATA_SETS, TOY.name, raising=False)  # also restores this state afterwards
  register_data_set(TOY)
  (tmp_path / "toy [1]" / "faces").mkdir(parents=True)
  lines = []
  for split, count in (("train", 30), ("test", 3)):
    for i in range(count):
      pattern = np.random.default_rng(i % 3).integers(0, 192, (40, 40), np.uint8)
      noise = np.random.default_rng((i, count)).integers(0, 64, (40, 40), np.uint8)
      Image.fromarray(pattern + noise).save(tmp_path / "toy [1]" / "faces" / f"{split}_{i}.png")
      lines.append(f"{split}_{i}.png {i % 3 + 1}\n")
  (tmp_path / "toy [1]" / LIST).write_text("".join(lines))
  yield tmp_path / "toy [1]"
  del DATA_SETS[TOY.name]


def test_a_new_set_is_listed_checked_and_prepared(toy, tmp_path, capsys):
  assert main(["data", "list"]) == 0
  assert "toy_faces: Toy faces\n" in capsys.readouterr().out
  assert main(["data", "check", "toy_faces", "--source", str(toy)]) == 0
  out = tmp_path / "out [2]"
  assert main(["data", "prepare", "toy_faces", "--source", str(toy), "--out", str(out)]) == 0
  assert "train 27, val 3, test 3 records" in capsys.readouterr().out
  with open(toy / LIST, "a") as lines:
    lines.write("train_0.png 9\n")
  assert main(["data", "check", "toy_faces", "--source", str(toy)]) == 1
  assert "list.txt:34 (train_0.png): code '9'; expected one of 1, 2, 3" in capsys.readouterr().out


def _train(config):
  """The losses of a linear model on grey images from the training pipeline."""
  source = load_source(config, "train", task="classification")
  assert len(source) == 27
  batches = iter(train_dataset(source, config, batch_size=9, seed=0, epochs=4))
  weights = np.zeros((config.image_size**2, len(config.class_names)), np.float32)
  losses = []
  for _ in range(12):
    batch = next(batches)
    pixels = normalize(batch["image"], config.mean, config.std).mean(-1).reshape(9, -1)
    logits = pixels @ weights
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    losses.append(-(batch["label"] * logits).sum(1).mean())
    weights -= 1e-3 * pixels.T @ (np.exp(logits) - batch["label"]) / 9
  batches.close()
  return losses


def test_a_new_set_is_trained_on_as_released_and_as_prepared(toy, tmp_path):
  out = tmp_path / "out [2]"
  assert main(["data", "prepare", "toy_faces", "--source", str(toy), "--out", str(out)]) == 0
  still = FaceAugmentConfig(rotation=0.0)
  config = DataConfig(image_size=32, resize=32, grey=True, face_augment=still)
  losses = []
  for name, folder in (("toy_faces", toy), ("toy_faces", out), ("prepared", out)):
    data = dataclasses.replace(config, source=name, dir=str(folder))
    model, settings = ModelConfig(name="emonext", size="tiny"), TrainConfig(freeze="none")
    validate(Config(model=model, data=data, train=settings))
    losses.append(_train(data))
    val = load_source(data, "val", task="classification")
    (batch,) = eval_dataset(val, data, batch_size=4)
    assert batch["mask"].tolist() == [True, True, True, False]
  assert losses[0] == losses[1] == losses[2]
  assert np.mean(losses[0][-3:]) < 0.85 * losses[0][0]


def test_names_are_unique():
  for name in ("raf_db", "prepared", "synthetic"):
    with pytest.raises(ValueError, match=f"the name '{name}' of Toy faces is taken"):
      register_data_set(dataclasses.replace(TOY, name=name))
  register_data_set(DATA_SETS["raf_db"])  # registering the same set again is allowed
  with pytest.raises(ValueError, match="unknown data set 'toy_faces'; known: raf_db, affectnet"):
    find_data_set("toy_faces")
