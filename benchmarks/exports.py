"""Sizes, times and accuracy of exported files, side by side in one run.

  python benchmarks/exports.py files --tables FER --data DATA --folder OUT
  python benchmarks/exports.py accuracy --tables FER --data DATA --folder OUT [--weights NAME]
  python benchmarks/exports.py times --folder OUT [--weights NAME] [--cache]

`files` exports the weights to the folder; static int8 is calibrated on images of training:
FER2013's, or photographs of `scenes/faces`. `accuracy` measures one image at a time: a
classifier on FER+'s validation part and on `lfw5` with its five classes, a detector at its own
threshold on the photographs 164-193 of `scenes/faces` and on 2400-2499 of `scenes/backgrounds`.
`times` measures the time until the first answer, with the imports done, and the latency of batches
of 1 and 8 prepared images, with all cores; --first and --cache measure only one of these.

FER has the tables fer2013.csv and fer2013new.csv; DATA has the folders `lfw5` and `scenes`.
Each prints a Markdown table.
"""

import argparse
import datetime
import importlib.metadata
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from cards import counting, photographs
from cards.detector import Ranges
from crop_robustness import classify, open_table
from PIL import Image
from report import markdown

import ferjax
from ferjax.compilation_cache import enable_compilation_cache
from ferjax.data.datasets.base import Options
from ferjax.data.datasets.catalog import find_data_set
from ferjax.data.datasets.entries import Entry
from ferjax.data.examples import load
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.data.synthetic.scenes import SyntheticScenes
from ferjax.export import ExportOptions, export_network, load_exported
from ferjax.inference.base import ImagePredictor
from ferjax.tasks.classification.metrics import ClassificationMetrics
from ferjax.trained import TrainedNetwork
from ferjax.typing import Classifications
from ferjax.weights import open_weights

WEIGHTS = ("emonext-atto-ferplus", "fermam-nano-ferplus", "fer-yolo-mamba-nano-scenes")
KINDS = {
  "StableHLO": ("stablehlo", ""),
  "ONNX, float32": ("onnx", ""),
  "ONNX, float16": ("onnx", "float16"),
  "ONNX, int8 dynamic": ("onnx", "dynamic"),
  "ONNX, int8 static": ("onnx", "static"),
}
SHIPPED = pathlib.Path(ferjax.__file__).parent / "weights" / "files"
FIVE = ("neutral", "happiness", "sadness", "surprise", "anger")
CALIBRATION_FACES, CALIBRATION_PHOTOGRAPHS = 200, range(1, 164, 8)
PACKAGES = ("jax", "jaxlib", "onnx", "onnxruntime", "numpy")
SIZES = (1, 8)
SECONDS = 1.0  # of a side and a batch size at most, after three runs


def file_of(folder: pathlib.Path, name: str, kind: str) -> pathlib.Path:
  format, quantize = KINDS[kind]
  return folder / f"{name}-{quantize or 'float32'}.{format}"


def faces_of(tables: pathlib.Path, split: str, class_names: tuple[str, ...]) -> list[Entry]:
  """The faces of a part of FER2013 with FER+'s labels."""
  data_set = find_data_set("ferplus")
  options = Options(class_names=class_names, splits=(split,), rule="probability")
  return data_set.read(tables, data_set.complete(options))[1].entries


def image(entry: Entry) -> np.ndarray:
  return load(entry, overhang=0.0, margin=0.0).image


def write_files(arguments: argparse.Namespace, opened: TrainedNetwork, name: str) -> None:
  folder: pathlib.Path = arguments.folder
  if opened.meta["task"] == "classification":
    calibration = folder / "calibration"
    calibration.mkdir(parents=True, exist_ok=True)
    entries = faces_of(arguments.tables, "train", tuple(opened.meta["class_names"]))
    for i, entry in enumerate(entries[:: len(entries) // CALIBRATION_FACES]):
      Image.fromarray(image(entry)).save(calibration / f"{i:04}.png")
    images = [str(calibration)]
  else:
    scenes = photographs.scenes_with_faces(arguments.data, CALIBRATION_PHOTOGRAPHS)
    images = [str(x.path) for x in scenes]
  for kind, (format, quantize) in KINDS.items():
    if file_of(folder, name, kind).exists():  # of a run that was cut off
      continue
    chosen = ExportOptions(quantize=quantize, images=tuple(images) if quantize else ())
    print(kind, export_network(opened, format, file_of(folder, name, kind), options=chosen))


def predictors(folder: pathlib.Path, name: str) -> dict[str, Callable[[int], ImagePredictor[Any]]]:
  """Side -> batch size -> predictor."""

  def exported(kind: str) -> Callable[[int], ImagePredictor[Any]]:
    return lambda size: load_exported(file_of(folder, name, kind), batch_size=size)

  jax = {"JAX": lambda size: ferjax.load_predictor(name, batch_size=size)}
  return jax | {kind: exported(kind) for kind in KINDS}


def accuracy_of_faces(predictor: Any, arguments: argparse.Namespace) -> dict[str, str]:
  names = predictor.class_names
  entries = faces_of(arguments.tables, "val", names)
  probabilities = classify(predictor, map(image, entries), range(len(names)))
  truth = np.array([entry.classes[0] for entry in entries])
  ferplus = score(probabilities, truth, names)
  source = open_table(arguments.data / "lfw5" / "labels.csv", "", names)
  subset = [names.index(name) for name in FIVE]
  position = {c: i for i, c in enumerate(subset)}
  truth = np.array([position[int(c)] for c in source.labels.argmax(axis=1)])
  images = (source[i]["image"] for i in range(len(source)))
  lfw5 = score(classify(predictor, images, subset), truth, FIVE)
  return {
    "FER+ validation, accuracy": f"{ferplus['accuracy']:.4f}",
    "FER+ validation, balanced accuracy": f"{ferplus['balanced_accuracy']:.4f}",
    "lfw5, balanced accuracy": f"{lfw5['balanced_accuracy']:.4f}",
  }


def score(probabilities: np.ndarray, truth: np.ndarray, names: Any) -> dict[str, float]:
  metrics, count = ClassificationMetrics(names), len(truth)
  found = Classifications(probabilities, probabilities.argmax(axis=1).astype(np.int32))  # pyright: ignore
  label = np.eye(len(names), dtype=np.float32)[truth]
  metrics.add(found, {"label": label, "mask": np.ones(count, bool), "index": np.arange(count)})
  return metrics.compute()


def accuracy_of_boxes(predictor: Any, arguments: argparse.Namespace) -> dict[str, str]:
  ranges = Ranges()
  sets = (
    photographs.scenes_with_faces(arguments.data, ranges.validation_faces),
    photographs.backgrounds(arguments.data, ranges.validation_backgrounds),
  )
  faces, empty = (
    counting.count(
      [
        counting.image_result(prediction, item.boxes)
        for prediction, item in zip(predictor.predict(x.path for x in items), items, strict=True)
      ]
    )
    for items in sets
  )
  return {
    "faces found": f"{faces.found} of {faces.faces}",
    f"false boxes on {faces.images} photographs with faces": str(faces.false_boxes),
    f"false boxes on {empty.images} without": str(empty.false_boxes),
  }


def measure_accuracy(arguments: argparse.Namespace, opened: TrainedNetwork, name: str) -> None:
  is_classifier = opened.meta["task"] == "classification"
  measure = accuracy_of_faces if is_classifier else accuracy_of_boxes
  # JAX and float32 in onnxruntime agree to 1e-4 or better: the export checks it. That StableHLO
  # does too is tested, not measured here.
  sides = {k: x for k, x in predictors(arguments.folder, name).items() if k.startswith("ONNX")}
  rows = []
  for side, make in sides.items():
    rows.append({"": side, **measure(make(1), arguments)})
    print(rows[-1], flush=True)
  print(f"\n## {name}\n\n{markdown(rows)}\n")


def measure_times(arguments: argparse.Namespace, opened: TrainedNetwork, name: str) -> None:
  folder = arguments.folder
  drawings = {"classification": SyntheticFaces, "detection": SyntheticScenes}[opened.meta["task"]]
  side = opened.meta["image_size"]
  images = [x["image"] for x in (drawings(8, image_size=side, seed=0)[i] for i in range(8))]
  rows, ready = {}, {}
  for kind, make in predictors(folder, name).items():
    path = file_of(folder, name, kind) if kind in KINDS else SHIPPED / f"{name}.safetensors"
    rows[kind] = {"": kind, "file, MB": f"{path.stat().st_size / 1e6:.2f}"}
    start = time.perf_counter()
    predictor = make(1)
    predictor.predict(images[:1])
    if not arguments.cache:
      rows[kind]["until the first answer, s"] = f"{time.perf_counter() - start:.2f}"
    ready[kind, 1] = predictor
    if not arguments.first:
      ready[kind, 8] = make(8)
      ready[kind, 8].predict(images)
  for size in () if arguments.first else SIZES:
    for kind, median in medians({k: x for (k, n), x in ready.items() if n == size}, images[:size]):
      rows[kind][f"batch of {size}, ms"] = f"{median * 1e3:.3g}"
  print(f"\n## {name}\n\n{machine()}\n\n{markdown(list(rows.values()))}\n", flush=True)


def medians(sides: dict[str, Any], images: list[np.ndarray]) -> Iterator[tuple[str, float]]:
  times: dict[str, list[float]] = {side: [] for side in sides}
  for side, predictor in sides.items():
    # One after the other: the idle threads of a runtime spin for a while, and slow down the next.
    batch = [predictor.prepare(x) for x in images]
    while len(times[side]) < 3 or sum(times[side]) < SECONDS:
      start = time.perf_counter()
      predictor.predict_batch(batch)
      times[side].append(time.perf_counter() - start)
  yield from ((side, statistics.median(own)) for side, own in times.items())


def machine() -> str:
  cpu = [x for x in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
  kind = cpu[0].split(": ")[1] if cpu else platform.processor()
  versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
  return (
    f"{datetime.date.today()}, Python {platform.python_version()}, {versions}; "
    f"{len(os.sched_getaffinity(0))} cores of {kind}; load average {os.getloadavg()[0]:.1f}"
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  add = parser.add_argument
  steps = {"files": write_files, "accuracy": measure_accuracy, "times": measure_times}
  add("step", choices=steps)
  add("--folder", type=pathlib.Path, required=True, help="of the exported files")
  add("--tables", type=pathlib.Path, help="folder with fer2013.csv and fer2013new.csv")
  add("--data", type=pathlib.Path, help="folder with lfw5 and scenes")
  add("--weights", choices=WEIGHTS, help="only these")
  add("--cache", action="store_true", help="times: with cached programs, only latencies")
  add("--first", action="store_true", help="times: only until the first answer")
  arguments = parser.parse_args()
  if arguments.step != "times" and not (arguments.tables and arguments.data):
    parser.error(f"{arguments.step} needs --tables and --data")
  if arguments.cache or arguments.step == "accuracy":
    enable_compilation_cache()
  for name in [arguments.weights] if arguments.weights else WEIGHTS:
    steps[arguments.step](arguments, open_weights(name), name)


if __name__ == "__main__":
  main()
