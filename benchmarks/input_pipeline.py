"""Images per second of the recipes' training pipelines, compared with a PyTorch DataLoader.

  pip install -e ".[bench,torch]" torchvision
  python benchmarks/input_pipeline.py [--seconds 6] [--sizes 224,320] [--workers 0,1,2]

Prints a Markdown table for `benchmarks/results/`. Both sides get the same encoded photographs in
memory, decode them at full size, augment with the same ranges and probabilities, and deliver
float32 batches. Each is measured in a separate process, one after the other. `torch_input.py` has
the DataLoader. CPU time is that of the process and its workers, from batch to batch, after the
prefetched batches are used up.
"""

import dataclasses
import datetime
import io
import json
import os
import pathlib
import pickle
import platform
import runpy
import subprocess
import sys
import tempfile
import time

import cv2
import grain
import numpy as np
import PIL
import psutil
from absl import app, flags
from PIL import Image

from ferjax.config import DataConfig
from ferjax.data import pipeline
from ferjax.data.image import decode, normalize

_SECONDS = flags.DEFINE_float("seconds", 6.0, "Minimum duration of a measurement, seconds.")
_SIZES = flags.DEFINE_list("sizes", ["224", "320"], "Sides of the network's input, pixels.")
_WORKERS = flags.DEFINE_list("workers", ["0", "1", "2"], "Numbers of worker processes.")
_TASKS = flags.DEFINE_list("tasks", [], "Indices of the table rows to measure; all if empty.")
_MEASURE = flags.DEFINE_string("measure", "", "Internal: runs one measurement.")

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
BATCH = 32
WARM_UP = 10  # batches that are not timed: more than either side prefetches
CHECKED = 8  # batches whose statistics are compared
LEAST = 16  # batches per measurement, so batches that only partly fall into it matter little
COUNT = 64  # distinct photographs
RECORDS = 12000  # of the set; the photographs repeat


@dataclasses.dataclass(frozen=True)
class Task:
  """A recipe and the kind of its photographs."""

  recipe: str
  photographs: str
  sides: tuple[int, int]  # pixels of the longer side, minimum and maximum
  aspect: float = 1.0  # width / height

  def config(self, size: int, num_workers: int) -> DataConfig:
    data = runpy.run_path(str(CONFIGS / f"{self.recipe}.py"))["get_config"]().data
    resize = round(data.resize * size / data.image_size)
    return dataclasses.replace(data, image_size=size, resize=resize, num_workers=num_workers)


TASKS = (
  Task("fer_yolo_mamba", "640x480", (640, 640), 4 / 3),
  Task("fermam", "100x100", (100, 100)),
  Task("fermam", "256 to 500 pixels", (256, 500)),
  Task("emonext", "100x100", (100, 100)),
  Task("emonext", "256 to 500 pixels", (256, 500)),
)


class Encoded:
  """`RECORDS` JPEG files in memory, as a source for detection or classification."""

  skipped = []

  def __init__(self, encoded: list[bytes], boxes: list[np.ndarray], class_names: tuple[str, ...]):
    self.encoded, self.boxes, self.class_names = encoded, boxes, class_names
    self.task = "detection" if boxes else "classification"
    classes = np.arange(RECORDS) % len(class_names)
    self.labels = np.eye(len(class_names), dtype=np.float32)[classes]
    self.box_labels = [np.full(len(each), 1, np.int32) for each in boxes]

  def __len__(self) -> int:
    return RECORDS

  def __getitem__(self, index: int):
    image = decode(self.encoded[index % COUNT], origin=self.origin(index))
    if not self.boxes:
      return {"image": image, "label": self.labels[index].copy()}
    return {
      "image": image,
      "boxes": self.boxes[index % COUNT],
      "label": self.box_labels[index % COUNT],
    }

  def origin(self, index: int) -> str:
    return f"photograph {index}"


def photograph(rng: np.random.Generator, width: int, height: int) -> bytes:
  """A JPEG of 2 bits per pixel: colour noise with the power spectrum of photographs."""
  frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
  frequency[0, 0] = np.inf
  planes = []
  for _ in range(4):
    spectrum = np.exp(2j * np.pi * rng.random(frequency.shape)) / frequency**1.4
    plane = np.fft.irfft2(spectrum, (height, width))
    planes.append(plane / plane.std())
  pixels = np.stack([planes[0] + 0.3 * plane for plane in planes[1:]], axis=-1)
  buffer = io.BytesIO()
  pixels = np.clip(128 + 50 * pixels, 0, 255).astype(np.uint8)
  Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
  return buffer.getvalue()


def make_source(task: Task) -> Encoded:
  rng = np.random.default_rng(0)
  encoded, boxes = [], []
  for _ in range(COUNT):
    width = int(rng.integers(*task.sides, endpoint=True))
    height = round(width / task.aspect)
    encoded.append(photograph(rng, width, height))
    if task.recipe == "fer_yolo_mamba":
      corners = rng.uniform(0, (width * 0.7, height * 0.7), (int(rng.integers(1, 4)), 2))
      sides = rng.uniform(0.1, 0.3) * height
      boxes.append(np.concatenate([corners, corners + sides], axis=1).astype(np.float32))
  return Encoded(encoded, boxes, task.config(224, 0).class_names)


def normalized(dataset: grain.IterDataset, config: DataConfig) -> grain.IterDataset:
  """With float32 images, like the other side; in training, the device normalises them."""

  def convert(batch):
    return {**batch, "image": normalize(batch["image"], config.mean, config.std)}

  return grain.experimental.ThreadPrefetchIterDataset(dataset.map(convert), prefetch_buffer_size=1)


def batches(side: str, source: Encoded, config: DataConfig):
  """An endless iterator over a side's batches, as dicts of arrays.

  The side "training" is ferjax without the normalisation, which the device does in training.
  """
  if side in ("ferjax", "training"):
    dataset = pipeline.train_dataset(source, config, batch_size=BATCH, seed=0, epochs=10**6)
    return iter(normalized(dataset, config) if side == "ferjax" else dataset)
  import torch
  import torch_input

  # As in a worker: intra-op threads would use more cores without being faster.
  torch.set_num_threads(1)
  if source.task == "detection":
    dataset = torch_input.Photographs(source.encoded, source.boxes, source.box_labels, config)
  else:
    dataset = torch_input.Faces(source.encoded, source.labels, config)
  return iter(torch_input.loader(dataset, BATCH, config.num_workers))


def cpu_seconds() -> float:
  """CPU seconds of this process and its workers."""
  process = psutil.Process()
  times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
  return sum(each.user + each.system for each in times)


def statistics(side: str, rows: list) -> dict:
  images = np.concatenate([np.asarray(batch["image"]) for batch in rows])
  channels = 1 if side == "torch" else 3
  axes = tuple(axis for axis in range(4) if axis != channels)
  boxes = [np.asarray(batch["box_mask"]).sum(1).mean() for batch in rows if "box_mask" in batch]
  return {
    "shape": sorted(images.shape[1:]),
    "dtype": str(images.dtype),
    "mean": images.mean(axes, np.float64).tolist(),
    "deviation": images.std(axes, np.float64).tolist(),
    "boxes": float(np.mean(boxes)) if boxes else 0.0,
  }


def measure(options: dict) -> dict:
  """Measures one side of one row in this process."""
  with open(options["source"], "rb") as file:
    source = pickle.load(file)
  config = TASKS[options["task"]].config(options["size"], options["workers"])
  iterator = batches(options["side"], source, config)
  seen = statistics(options["side"], [next(iterator) for _ in range(CHECKED)])
  for _ in range(WARM_UP):
    next(iterator)
  images, start, cpu = 0, time.perf_counter(), cpu_seconds()
  while images < LEAST * BATCH or time.perf_counter() - start < options["seconds"]:
    next(iterator)
    images += BATCH
  wall = time.perf_counter() - start
  cpu = cpu_seconds() - cpu
  if hasattr(iterator, "close"):
    iterator.close()
  return {"per_second": images / wall, "per_cpu_second": images / cpu, **seen}


def check(ours: dict, theirs: dict) -> None:
  """Asserts that both sides make the same kind of batch."""
  assert ours["shape"] == theirs["shape"], (ours, theirs)
  assert ours["dtype"] == theirs["dtype"] == "float32"
  scale = np.array(theirs["deviation"])
  np.testing.assert_allclose(ours["mean"] / scale, theirs["mean"] / scale, atol=0.15)
  np.testing.assert_allclose(ours["deviation"] / scale, 1, atol=0.15)
  assert abs(ours["boxes"] - theirs["boxes"]) <= 0.2 * theirs["boxes"], (ours, theirs)


def in_a_process(options: dict) -> dict:
  command = [sys.executable, __file__, f"--measure={json.dumps(options)}"]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    raise RuntimeError(f"{options} failed:\n{done.stderr}")
  return json.loads(done.stdout.splitlines()[-1])


def versions() -> str:
  import torch
  import torchvision

  return (
    f"{datetime.date.today()}, Python {platform.python_version()}, grain {grain.__version__}, "
    f"numpy {np.__version__}, opencv {cv2.__version__}, pillow {PIL.__version__}, "
    f"torch {torch.__version__}, torchvision {torchvision.__version__}, "
    f"{os.cpu_count()} cores ({platform.machine()}); batches of {BATCH}"
  )


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments: {argv[1:]}")
  if _MEASURE.value:
    print(json.dumps(measure(json.loads(_MEASURE.value))))
    return
  print(versions() + "\n")
  print(
    "| recipe | photographs | size | workers | images/s: ferjax | PyTorch | ratio | "
    "images per CPU second: ferjax | PyTorch | ratio |"
  )
  print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
  rows = [int(row) for row in _TASKS.value] or range(len(TASKS))
  with tempfile.TemporaryDirectory() as folder:
    for row in rows:
      task = TASKS[row]
      path = os.path.join(folder, f"{row}.pickle")
      with open(path, "wb") as file:
        pickle.dump(make_source(task), file)
      for size in map(int, _SIZES.value):
        for workers in map(int, _WORKERS.value):
          cell = {"task": row, "size": size, "workers": workers, "seconds": _SECONDS.value}
          ours, theirs = (
            in_a_process({"side": side, "source": path, **cell}) for side in ("ferjax", "torch")
          )
          check(ours, theirs)
          print(_line(task, size, workers, ours, theirs), flush=True)


def _line(task: Task, size: int, workers: int, ours: dict, theirs: dict) -> str:
  cells = [task.recipe, task.photographs, f"{size}", f"{workers}"]
  for key in ("per_second", "per_cpu_second"):
    a, b = ours[key], theirs[key]
    cells += [f"{a:.0f}", f"{b:.0f}", f"{a / b:.2f}"]
  return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
  app.run(main)
