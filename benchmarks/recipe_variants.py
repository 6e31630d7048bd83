"""Short runs that each change one thing of a recipe, and the table of their validation metrics.

The recipe is `configs/fermam.py:ferplus_nano`, at 64 pixels, with fewer epochs. Variants that
help in a short run need not help in a long one: what keeps a network from memorising the faces has
its effect late. The last step of each run is evaluated, so nothing is selected on the validation
faces. A run that was interrupted goes on, and one that has ended is not repeated.

  python benchmarks/recipe_variants.py --data DATA --runs runs/variants [--epochs 3]

DATA has the tables fer2013.csv and fer2013new.csv as released.
"""

import argparse
import csv
import pathlib
import subprocess
import sys

import cv2
import numpy as np
from cards import tables
from crop_robustness import classify, collect

from ferjax.compilation_cache import enable_compilation_cache
from ferjax.data.datasets.base import Options
from ferjax.data.datasets.catalog import find_data_set
from ferjax.data.examples import load
from ferjax.expressions import EXPRESSIONS
from ferjax.inference.classification import ExpressionClassifier
from ferjax.tasks.classification.metrics import NUM_RESAMPLES
from ferjax.weights import open_weights

ROOT = pathlib.Path(__file__).parents[1]
ROTATIONS = ("0", "90", "180", "270")
PRETEXT = "rotation pretext"
_CUT = ("data.face_augment.mix_probability=0.5",)

# Name -> what it changes.
VARIANTS: dict[str, tuple[str, ...]] = {
  "the recipe": (),
  "the recipe, another seed": ("train.seed=1",),
  "majority labels": ("data.rule=majority",),
  "32 pixels": ("data.image_size=32", "data.resize=35"),
  "CutMix": ("data.face_augment.cutmix=1.0", *_CUT),
  "mixup": ("data.face_augment.mixup=0.2", *_CUT),
  "no erasing": ("data.face_augment.erasing=0.0",),
  "no moving average": ("train.ema_decay=0.0",),
  "balanced sampling": ("data.balance=True",),
  "half balanced sampling": ("data.balance=True", "data.balance_power=0.5"),
  "logit adjustment in the loss": ("loss.logit_adjustment=1.0",),
  "wider crops": (
    "data.face_augment.shift=0.08",
    "data.face_augment.border=repeat",
    "data.face_augment.scale=(0.85,1.2)",
  ),
  "sharpness-aware minimisation": ("optimizer.sam_rho=0.05",),
  "pretrained on rotations": ("train.pretrained={pretext}",),
  "96 pixels": ("data.image_size=96", "data.resize=105"),
}
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "ece")


def train(
  workdir: pathlib.Path, data: pathlib.Path, epochs: int, overrides: tuple[str, ...]
) -> None:
  """Trains one run, in its own process."""
  settings = (
    f"data.dir={data}",
    "data.on_device=True",
    f"train.epochs={epochs}",
    f"train.eval_every={epochs}",
    "optimizer.warmup_steps=150",
    *overrides,
  )
  command = [
    sys.executable,
    "train.py",
    "--config=configs/fermam.py:ferplus_nano",
    f"--workdir={workdir}",
    *(f"--config.{setting}" for setting in settings),
  ]
  with workdir.with_suffix(".log").open("a") as log:
    subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=True)


def write_rotated(data: pathlib.Path, folder: pathlib.Path) -> None:
  """Writes every face once, turned by a random multiple of 90 degrees, and a table of the turns."""
  data_set = find_data_set("ferplus")
  options = Options(class_names=EXPRESSIONS, splits=("train", "val"), rule="probability")
  _, reading = data_set.read(data, data_set.complete(options))
  rng = np.random.default_rng(0)
  (folder / "images").mkdir(parents=True, exist_ok=True)
  rows = []
  for number, entry in enumerate(reading.entries):
    turns = int(rng.integers(len(ROTATIONS)))
    name = f"images/{number:05d}.png"
    image = np.rot90(load(entry, overhang=0.0, margin=0.0).image, turns)
    cv2.imwrite(str(folder / name), np.ascontiguousarray(image[..., 0]))
    rows.append((name, ROTATIONS[turns], entry.split))
  with (folder / "labels.csv").open("w", newline="") as file:
    csv.writer(file).writerows([("image", "label", "split"), *rows])


def train_pretext(runs: pathlib.Path, data: pathlib.Path, epochs: int) -> pathlib.Path:
  """Trains the network to tell how a face was turned, which needs no label of a person."""
  folder, workdir = runs / "rotated", runs / PRETEXT.replace(" ", "_")
  if has_ended(workdir):
    return workdir
  if not (folder / "labels.csv").exists():
    write_rotated(data, folder)
  overrides = ("data.source=csv", f"data.class_names={ROTATIONS}", "data.rule=majority")
  train(workdir, folder, epochs, overrides)
  return workdir


def has_ended(workdir: pathlib.Path) -> bool:
  """Whether the run was evaluated, which is after its last step."""
  path = workdir / "metrics.jsonl"
  return path.exists() and '"eval/accuracy"' in path.read_text()


def validation_faces(data: pathlib.Path) -> tuple[list[np.ndarray], np.ndarray]:
  """The validation faces, and the most voted class of each, for all variants the same."""
  data_set = find_data_set("ferplus")
  options = Options(class_names=EXPRESSIONS, splits=("val",), rule="probability")
  _, reading = data_set.read(data, data_set.complete(options))
  images = [load(entry, overhang=0.0, margin=0.0).image for entry in reading.entries]
  return images, np.array([entry.classes[0] for entry in reading.entries])


def evaluate(workdir: pathlib.Path, faces: list[np.ndarray]) -> np.ndarray:
  """The probabilities of all classes for each face, at the last step; kept in the folder."""
  path = workdir / "probabilities.npy"
  if not path.exists():
    classifier = ExpressionClassifier(workdir, step="latest", batch_size=64)
    np.save(path, classify(classifier, faces, range(len(EXPRESSIONS))))
  return np.load(path)


def with_adjustments(found: dict[str, np.ndarray], prior: np.ndarray) -> dict[str, np.ndarray]:
  """Adds rows for logit adjustment after the training of the first variant."""
  name, base = next(iter(found.items()))
  for strength in (0.3, 1.0):
    adjusted = base / prior**strength
    label = f"{name}, logits adjusted afterwards by {strength}"
    found[label] = adjusted / adjusted.sum(axis=1, keepdims=True)
  return found


def report(found: dict[str, np.ndarray], truth: np.ndarray) -> str:
  """The table, in Markdown, with the paired differences from the first row."""
  rows = []
  base_hits = next(iter(found.values())).argmax(axis=1) == truth
  draws = np.random.default_rng(0).integers(len(truth), size=(NUM_RESAMPLES, len(truth)))
  for name, probabilities in found.items():
    metrics = collect(probabilities, truth, EXPRESSIONS).compute()
    gain = (probabilities.argmax(axis=1) == truth) - base_hits.astype(float)
    low, high = np.percentile(gain[draws].mean(axis=1), (2.5, 97.5))
    difference = f"{gain.mean():+.3f} ({low:+.3f} to {high:+.3f})" if rows else "-"
    shown = [f"{metrics[metric]:.3f}" for metric in METRICS]
    rows.append([name, shown[0], difference, *shown[1:]])
  header = [
    "variant",
    "accuracy",
    "difference",
    "balanced accuracy",
    "macro F1",
    "calibration error",
  ]
  return tables.table(header, rows)


def main() -> None:
  """Trains what is left to train, and prints the table of what has ended."""
  parser = argparse.ArgumentParser(description="Compares variants of a recipe in short runs.")
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--runs", type=pathlib.Path, required=True)
  parser.add_argument("--epochs", type=int, default=3)
  parser.add_argument("--only", default="", metavar="A;B", help="train only these variants")
  arguments = parser.parse_args()
  data, runs = arguments.data.resolve(), arguments.runs.resolve()
  names = arguments.only.split(";") if arguments.only else list(VARIANTS)
  if unknown := [name for name in names if name not in VARIANTS]:
    parser.error(f"unknown variant {unknown[0]!r}; known: {', '.join(VARIANTS)}")
  runs.mkdir(parents=True, exist_ok=True)
  workdirs = {name: runs / name.replace(",", "").replace(" ", "_") for name in VARIANTS}
  for number, name in enumerate(names, 1):
    if not has_ended(workdirs[name]):
      print(f"{number} of {len(names)}: {name}", flush=True)
      overrides = VARIANTS[name]
      if any("{pretext}" in setting for setting in overrides):
        pretext = train_pretext(runs, data, arguments.epochs)
        overrides = tuple(setting.format(pretext=pretext) for setting in overrides)
      train(workdirs[name], data, arguments.epochs, overrides)
  enable_compilation_cache()
  faces, truth = validation_faces(data)
  ended = {name: folder for name, folder in workdirs.items() if has_ended(folder)}
  found = {name: evaluate(folder, faces) for name, folder in ended.items()}
  prior = open_weights(next(iter(ended.values())), step="latest").meta["class_prior"]
  print(f"\n{len(truth)} faces\n\n{report(with_adjustments(found, np.array(prior)), truth)}")


if __name__ == "__main__":
  main()
