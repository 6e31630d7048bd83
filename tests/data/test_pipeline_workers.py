"""Input pipelines with worker processes."""

import subprocess
import sys

WORKERS = """
import multiprocessing
import os
import signal
import numpy as np
from absl import app
from ferjax.config import DataConfig, FaceAugmentConfig
from ferjax.data import image, pipeline
from ferjax.data.loading import load_source

class Damaged:
  task, class_names, skipped = "detection", ("a",), []

  def __len__(self):
    return 4

  def __getitem__(self, index):
    raise image.ImageError(f"list.txt:{index + 1}: damaged")

  def origin(self, index):
    return ""

def batches(name, workers):
  config = DataConfig(
    source=name,
    image_size=32,
    train_examples=9,
    num_workers=workers,
    balance=name == "synthetic_faces",
    grey=name == "synthetic_faces",
    face_augment=FaceAugmentConfig(mixup=0.5),
  )
  source = load_source(config, "train", seed=1)
  iterator = iter(pipeline.train_dataset(source, config, batch_size=2, seed=0, epochs=2))
  first = [next(iterator) for _ in range(3)]
  processes = multiprocessing.active_children()
  assert len(processes) == workers
  for process in processes:
    os.kill(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
  state = iterator.get_state()
  rest = [next(iterator) for _ in range(2)]
  iterator.set_state(state)
  again = [next(iterator) for _ in range(2)]
  pipeline.close(iterator, config)
  return [{**batch.pop("mixing", {}), **batch} for batch in first + rest + again]

kept = []  # until the program ends

def train():
  for name in ("synthetic", "synthetic_faces"):
    threads, workers = batches(name, 0), batches(name, 2)
    kept.append(workers)
    for a, b in zip(threads, workers, strict=True):
      for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    for key in workers[3]:
      np.testing.assert_array_equal(workers[3][key], workers[5][key])
      np.testing.assert_array_equal(workers[4][key], workers[6][key])
  print("equal")

def evaluate():
  config = DataConfig(image_size=32, num_workers=1)
  iterator = iter(pipeline.eval_dataset(Damaged(), config, batch_size=2))
  try:
    next(iterator)
  except image.ImageError as error:
    print(error)
  pipeline.close(iterator, config)
  config = DataConfig(source="synthetic_faces", image_size=32, val_examples=3, num_workers=1)
  source = load_source(config, "val", seed=1)
  iterator = iter(pipeline.eval_dataset(source, config, batch_size=2))
  kept.extend(iterator)
  pipeline.close(iterator, config)

if __name__ == "__main__":
  app.run(lambda argv: {"train": train, "evaluate": evaluate}[argv[1]]())
"""


def run_workers(what):
  """In a separate program, because grain's workers need parsed absl flags."""
  return subprocess.run(
    [sys.executable, "-c", WORKERS, what], capture_output=True, text=True, timeout=120, check=False
  )


def test_workers_give_the_same_batches_despite_an_interrupt():
  done = run_workers("train")
  assert done.stdout.strip() == "equal", done.stderr


def test_workers_report_errors_and_release_their_memory():
  """At the end of the data; grain may stop a worker that is still handing over a batch."""
  done = run_workers("evaluate")
  assert done.stdout.strip() == "list.txt:1: damaged", done.stderr
  assert "leaked" not in done.stderr, done.stderr
