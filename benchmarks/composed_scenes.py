"""Images per second of composed scenes, compared with the mosaic of photographs, in one run.

  python benchmarks/composed_scenes.py [--size 320] [--images 200] [--rounds 3]

Both sides give training rows of the same size with the recipe's colour augmentation on one thread:
a mosaic combines four photographs of 640x480 pixels, a composed scene pastes grey crops of 48x48
pixels into photographs of 640x480 pixels. Prints a Markdown table of images per CPU second.
"""

import dataclasses
import os
import tempfile
import time

import cv2
import grain
import input_pipeline
import numpy as np
from absl import app, flags

from ferjax.config import AugmentConfig, ComposeConfig, DataConfig
from ferjax.data.composed.scenes import ComposedScenes
from ferjax.data.datasets.entries import Entry, Pixels
from ferjax.data.detection.rows import NUM_STREAMS, TrainRow
from ferjax.data.samplers import shuffled
from ferjax.data.sources import ReleasedFaces, Source

_SIZE = flags.DEFINE_integer("size", 320, "Side of the network's input, pixels.")
_IMAGES = flags.DEFINE_integer("images", 200, "Images per measurement.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Measurements of each side, in turn.")

FACES = 500


def faces() -> ReleasedFaces:
  """Grey crops of 48x48 pixels, as in FER2013's table."""
  rng = np.random.default_rng(0)
  entries = []
  for number in range(FACES):
    coarse = rng.integers(0, 256, (6, 6)).astype(np.uint8)
    values = cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC).tobytes()
    entries.append(Entry(f"row {number}", f"{number}", Pixels(values, 48, 48), "train", number % 7))
  return ReleasedFaces(entries, DataConfig().class_names)


def composed(folder: str, photographs: input_pipeline.Encoded) -> ComposedScenes:
  """Scenes on the photographs, which are written to a folder."""
  paths = []
  for number, encoded in enumerate(photographs.encoded):
    paths.append(os.path.join(folder, f"{number}.jpg"))
    with open(paths[-1], "wb") as file:
      file.write(encoded)
  return ComposedScenes(
    faces(), paths, 10_000, image_size=_SIZE.value, seed=0, config=ComposeConfig()
  )


def rows(source: Source, augment: AugmentConfig) -> TrainRow:
  config = DataConfig(image_size=_SIZE.value, augment=augment)
  orders = [shuffled(len(source), 0, stream) for stream in range(NUM_STREAMS)]
  order = grain.experimental.ZipMapDataset(orders)
  return TrainRow(source, config, order=order, seed=0, mosaic_examples=10**9)


def per_cpu_second(row: TrainRow, first: int) -> float:
  start = time.process_time()
  for number in range(first, first + _IMAGES.value):
    row.map(number)
  return _IMAGES.value / (time.process_time() - start)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments: {argv[1:]}")
  cv2.setNumThreads(0)
  photographs = input_pipeline.make_source(input_pipeline.TASKS[0])
  recipe = AugmentConfig()
  with tempfile.TemporaryDirectory() as folder:
    scenes = composed(folder, photographs)
    sides = {
      "mosaic of photographs": rows(
        photographs, dataclasses.replace(recipe, mosaic=1.0, mixup=0.0)
      ),
      "composed scenes": rows(scenes, dataclasses.replace(recipe, mosaic=0.0)),
      "the published recipe on photographs": rows(photographs, recipe),
    }
    for row in sides.values():
      row.map(0)
    measured = {name: [] for name in sides}
    for number in range(_ROUNDS.value):
      for name, row in sides.items():
        measured[name].append(per_cpu_second(row, number * _IMAGES.value))
  base = np.median(measured["mosaic of photographs"])
  print(f"{_SIZE.value} pixels, {_ROUNDS.value} x {_IMAGES.value} images\n")
  print("| training images | images per CPU second: median | lowest | highest | ratio |")
  print("| --- | ---: | ---: | ---: | ---: |")
  for name, values in measured.items():
    median = np.median(values)
    cells = [f"{x:.0f}" for x in (median, min(values), max(values))]
    print("| " + " | ".join([name, *cells, f"{median / base:.2f}"]) + " |")


if __name__ == "__main__":
  app.run(main)
