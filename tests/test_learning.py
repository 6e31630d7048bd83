"""Target metrics of whole runs with the README's commands. Takes minutes: `pytest -m slow`."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ferjax.data.synthetic.scenes import SyntheticScenes

ROOT = pathlib.Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def train(workdir, variant, *overrides):
  """The final metrics of a run in a separate process."""
  command = [sys.executable, "train.py", "--config", f"configs/fer_yolo_mamba.py:{variant}"]
  environment = os.environ | {"FERJAX_COMPILATION_CACHE": str(workdir / "cache")}
  subprocess.run(
    [*command, "--workdir", str(workdir), *overrides], cwd=ROOT, env=environment, check=True
  )
  records = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [x for x in records if "eval/map50" in x][-1]


def test_the_demo_learns_unseen_scenes(tmp_path):
  assert train(tmp_path, "demo")["eval/map50"] >= 0.60


def test_a_few_annotated_images_are_memorised(tmp_path):
  """From files and an annotation list to boxes: no step shifts a box or changes a label."""
  from PIL import Image

  scenes = SyntheticScenes(16, image_size=200, seed=7, max_faces=2, scale=(0.3, 0.8))
  lines = []
  for i in range(len(scenes)):
    scene = scenes[i]
    Image.fromarray(scene["image"]).save(tmp_path / f"{i}.png")
    boxes = [
      ",".join(str(round(float(x), 2)) for x in box) + f",{label}"
      for box, label in zip(scene["boxes"], scene["label"], strict=True)
    ]
    lines.append(" ".join([f"{i}.png", *boxes]))
  (tmp_path / "list.txt").write_text("\n".join(lines * 4) + "\n")
  metrics = train(
    tmp_path / "run",
    "demo",
    "--config.data.source=annotation_list",
    f"--config.data.dir={tmp_path}",
    "--config.data.train=list.txt",
    "--config.data.val=list.txt",
    "--config.train.epochs=60",
    "--config.train.eval_every=60",
    "--config.train.checkpoint_every=60",
  )
  assert metrics["eval/map50"] > 0.95
