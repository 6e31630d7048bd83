"""Images per second of the recipes' input pipelines, to compare with what a training step eats."""

import functools
import math
import os
import pathlib
import pickle
import sys
import tempfile

import input_pipeline
import numpy as np
from absl import flags
from report import Section

SECONDS = 3.0
SIZES = {"emonext": 224, "fermam": 224, "fer_yolo_mamba": 320}


def run(section: Section) -> None:
  flags.FLAGS(sys.argv[:1])  # grain's workers need parsed flags
  cores = len(os.sched_getaffinity(0))
  section.note(f"{cores} cores; batches of {input_pipeline.BATCH}, in memory, as JPEG files")
  with tempfile.TemporaryDirectory() as folder:
    for workers in (0,) if section.tiny else (max(cores - 2, 1), 0):
      for index, task in enumerate(input_pipeline.TASKS):
        label = {"recipe": task.recipe, "photographs": task.photographs, "workers": workers}
        if section.seconds_left() < 5 * SECONDS:
          section.note(f"{task.recipe} with {task.photographs} and {workers} workers: not reached")
          continue
        path = pathlib.Path(folder, f"{index}.pickle")
        if not path.exists():
          path.write_bytes(pickle.dumps(input_pipeline.make_source(task)))
        options = {"side": "training", "source": str(path), "task": index, "workers": workers}
        options |= {"size": SIZES[task.recipe], "seconds": 0.1 if section.tiny else SECONDS}
        section.attempt(label, functools.partial(_measured, options))


def _measured(options: dict) -> dict:
  result = input_pipeline.measure(options)
  return {
    "images/s": result["per_second"],
    "images per CPU second": result["per_cpu_second"],
    "kB per image": math.prod(result["shape"]) * np.dtype(result["dtype"]).itemsize / 1e3,
  }
