"""From a folder as released to trained models, by the commands of the README. Minutes: `slow`."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[3]
# Layout -> the data set's name, and the arguments of its commands besides the folders.
FACES = {
  "raf_db": ("raf_db",),
  "affectnet_csv": ("affectnet", "--classes", "8"),
  "affectnet_npy": ("affectnet", "--classes", "8"),
  "fer2013_csv": ("fer2013",),
  "fer2013_folders": ("fer2013",),
  "ferplus": ("ferplus", "--rule", "probability"),
  "ferplus_folders": ("ferplus",),
  "sfew": ("sfew",),
  "expw": ("expw",),
  "image_folder": ("image_folder",),
  "csv": ("csv",),
}
SCENES = {
  "raf_db": ("raf_db", "--task", "detection"),
  "expw": ("expw", "--task", "detection"),
  "voc": ("voc",),
  "coco_json": ("coco_json",),
  "yolo_txt": ("yolo_txt",),
  "annotation_list": ("annotation_list",),
}

FERJAX = ("-c", "import sys; from ferjax.commands.main import main; sys.exit(main())")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Runs a Python program in its own process; compiled programs are cached."""
  cache = str(tmp_path_factory.mktemp("cache"))

  def run(*arguments):
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"FERJAX_COMPILATION_CACHE": cache}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

  return run


@pytest.mark.parametrize(
  ("layout", "arguments", "config"),
  [(layout, rest, "emonext") for layout, rest in FACES.items()]
  + [(layout, rest, "fer_yolo_mamba") for layout, rest in SCENES.items()],
  ids=[*FACES, *(f"{layout}_scenes" for layout in SCENES)],
)
def test_check_prepare_train(run, make_layout, tmp_path, layout, arguments, config):
  name, *options = arguments
  out = tmp_path / "out"
  given = (name, "--source", make_layout(layout), *options)
  run(*FERJAX, "data", "check", *given)
  run(*FERJAX, "data", "prepare", *given, "--out", out)
  (description,) = out.rglob("ferjax.json")
  for plot in ("classes", "sizes", "samples"):
    assert (description.parent / "report" / f"{plot}.png").stat().st_size > 1000
  class_names = tuple(json.loads(description.read_text())["class_names"])
  rule = [f"--config.data.rule={options[1]}"] if "--rule" in options else []
  for source, folder, more in (("prepared", out, []), (name, given[2], rule)):
    workdir = tmp_path / f"run_{source}"
    run(
      "train.py",
      *("--config", f"configs/{config}.py:tiny", "--workdir", workdir),
      f"--config.data.source={source}",
      f"--config.data.dir={folder}",
      f"--config.data.class_names={class_names!r}",
      *more,
    )
    figures = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert figures[-1]["epoch"] == 2
    assert any("eval/loss" in line for line in figures)
