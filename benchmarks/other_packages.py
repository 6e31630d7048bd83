"""ferjax beside what users would pick instead, on the same photographs: fer, and face-api in Node.

  python benchmarks/other_packages.py faces --data DATA --out OUT [--fer PYTHON] [--face-api FOLDER]
  python benchmarks/other_packages.py times --data DATA --out OUT ...
  python benchmarks/other_packages.py report --data DATA --out OUT ...

Each package runs in an environment of its own: `--fer` is the Python of one with `pip install fer`,
`--face-api` a folder with `npm install @vladmandic/face-api @tensorflow/tfjs
@tensorflow/tfjs-backend-wasm sharp`, `--ferjax` the Python of ferjax (default: this one), and
`--exports` a folder with detector.onnx and classifier.onnx of `ferjax export`. A side without its
option is left out.

`faces` writes the answers on all photographs to OUT, once for each side. `times` starts the sides
one after the other, and measures the time until the first answer, from the start of the process;
then all answer the same photographs in turns. A side first answers a photograph unmeasured, because
the sides before it have emptied the caches of the CPU. `report` prints Markdown tables.

DATA has the folders `london`, `scenes` and `dlib_faces`; no photograph was used to train ferjax.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from cards import photographs
from cards.detector import Ranges
from report import markdown

from ferjax.tasks.detection.voc import iou_matrix
from ferjax.weights import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR

HERE = pathlib.Path(__file__).parent / "others"
IOU = 0.4  # conventions of boxes differ: from the brows or from the hairline
ROUNDS = 12
PAUSE = 0.2  # seconds, in which the idle threads of the side before stop spinning
TIMES = "times.json"


@dataclasses.dataclass(frozen=True)
class Side:
  """A package with one of its detectors.

  Attributes:
    command: starts its program of `others`.
    installed: bytes of the package and of all that it requires.
    weights: the files of the networks that it uses.
  """

  command: Sequence[str]
  installed: int
  weights: Sequence[pathlib.Path]


class Program:
  """A running side."""

  def __init__(self, side: Side):
    self._process = subprocess.Popen(
      side.command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )

  def ask(self, path: pathlib.Path) -> dict[str, Any]:
    """The answer on a photograph.

    Raises:
      RuntimeError: the program has ended.
    """
    assert self._process.stdin is not None
    assert self._process.stdout is not None
    print(path, file=self._process.stdin, flush=True)
    for line in self._process.stdout:
      if line.startswith("@ "):
        return json.loads(line[2:])
    raise RuntimeError(f"{self._process.args} ended with {self._process.wait()} on {path}")

  def close(self) -> None:
    self._process.kill()
    self._process.communicate()


@contextlib.contextmanager
def running(side: Side) -> Iterator[Program]:
  program = Program(side)
  try:
    yield program
  finally:
    program.close()


def find_sides(arguments: argparse.Namespace) -> dict[str, Side]:
  found: dict[str, Side] = {}
  shipped = pathlib.Path(__file__).parents[1] / "ferjax" / "weights" / "files"
  weights = [shipped / f"{name}.safetensors" for name in (DEFAULT_DETECTOR, DEFAULT_CLASSIFIER)]
  ferjax = str(HERE / "ferjax_faces.py")
  if arguments.ferjax:
    command = [str(arguments.ferjax), ferjax]
    found["ferjax, JAX"] = Side(command, size_of_packages(arguments.ferjax, "ferjax"), weights)
  if arguments.exports:
    files = [arguments.exports / "detector.onnx", arguments.exports / "classifier.onnx"]
    command = [str(arguments.ferjax), ferjax, *map(str, files)]
    installed = size_of_packages(arguments.ferjax, "ferjax[onnx]")
    found["ferjax, onnxruntime"] = Side(command, installed, files)
  if arguments.fer:
    installed = size_of_packages(arguments.fer, "fer")
    packages = packages_of(arguments.fer)
    expressions = packages / "fer" / "data" / "emotion_model_quantized.tflite"
    cascade = packages / "fer" / "data" / "haarcascade_frontalface_default.xml"
    command = [str(arguments.fer), str(HERE / "fer_faces.py")]
    found["fer, Haar cascade"] = Side(command, installed, [cascade, expressions])
    mtcnn = sorted((packages / "facenet_pytorch" / "data").glob("?net.pt"))
    found["fer, MTCNN"] = Side([*command, "mtcnn"], installed, [*mtcnn, expressions])
  if arguments.face_api:
    modules = arguments.face_api / "node_modules"
    models = modules / "@vladmandic" / "face-api" / "model"
    for name, kind, file in (
      ("face-api, SSD MobileNet", "ssd", "ssd_mobilenetv1_model.bin"),
      ("face-api, tiny", "tiny", "tiny_face_detector_model.bin"),
    ):
      command = ["node", str(HERE / "face_api_faces.mjs"), str(arguments.face_api), kind]
      files = [models / file, models / "face_expression_model.bin"]
      found[name] = Side(command, size_of_folder(modules), files)
  return found


def packages_of(python: pathlib.Path) -> pathlib.Path:
  """The folder of the installed packages of an environment."""
  ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
  done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
  return pathlib.Path(done.stdout.strip())


def all_photographs(data: pathlib.Path) -> dict[str, Sequence[photographs.Photograph]]:
  return {
    "portraits": photographs.london(data),
    "scenes": photographs.scenes_with_faces(data, Ranges().faces),
    "groups": photographs.groups(data),
  }


def find_faces(arguments: argparse.Namespace, sides: dict[str, Side]) -> None:
  """Writes the answers of each side on all photographs."""
  for name, side in sides.items():
    file = arguments.out / f"{name}.json"
    if file.exists():
      continue
    with running(side) as program:
      answers = {
        kind: [program.ask(photograph.path)["faces"] for photograph in items]
        for kind, items in all_photographs(arguments.data).items()
      }
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(answers))
    partial.rename(file)
    print(name, {kind: sum(map(len, x)) for kind, x in answers.items()}, flush=True)


def measure_times(arguments: argparse.Namespace, sides: dict[str, Side]) -> None:
  """Writes the time until the first answer, and those of the same photographs in turns."""
  portraits = photographs.london(arguments.data)
  portraits = portraits[:: len(portraits) // ROUNDS][:ROUNDS]
  first: dict[str, float] = {}
  times: dict[str, list[float]] = {name: [] for name in sides}
  with contextlib.ExitStack() as stack:
    programs = {}
    for name, side in sides.items():
      start = time.perf_counter()
      programs[name] = stack.enter_context(running(side))
      programs[name].ask(portraits[0].path)
      first[name] = time.perf_counter() - start
      print(name, f"{first[name]:.2f} s until the first answer", flush=True)
    for photograph in portraits:
      for name, program in programs.items():
        time.sleep(PAUSE)
        program.ask(photograph.path)
        times[name].append(program.ask(photograph.path)["ms"])
  load = os.getloadavg()[0]
  (arguments.out / TIMES).write_text(json.dumps({"first": first, "ms": times, "load": load}))
  print({name: round(statistics.median(x), 1) for name, x in times.items()})


def matches(faces: list[dict[str, Any]], truth: np.ndarray) -> list[int | None]:
  """For each annotated box, the best of the answers that are not taken; None if none fits."""
  boxes = np.array([face["box"] for face in faces], np.float64).reshape(-1, 4)
  overlap = iou_matrix(boxes, truth)
  found: list[int | None] = [None] * len(truth)
  while overlap.size and overlap.max() >= IOU:
    answer, annotated = np.unravel_index(overlap.argmax(), overlap.shape)
    found[annotated] = int(answer)
    overlap[answer], overlap[:, annotated] = -1, -1
  return found


def faces_row(name: str, file: pathlib.Path, data: pathlib.Path) -> dict[str, str]:
  """The faces found, and the order of happiness in the pairs of portraits of a person."""
  answers, row, false = json.loads(file.read_text()), {"": name}, 0
  happiness: dict[str, dict[str, float]] = {}
  for kind, items in all_photographs(data).items():
    found = total = 0
    for photograph, faces in zip(items, answers[kind], strict=True):
      matched = matches(faces, photograph.boxes)
      found += sum(x is not None for x in matched)
      total += len(matched)
      false += len(faces) - sum(x is not None for x in matched)
      if isinstance(photograph, photographs.Portrait) and matched[0] is not None:
        score = faces[matched[0]]["scores"]["happiness"]
        happiness.setdefault(photograph.person, {})[photograph.label] = score
    row[f"{kind}: faces found"] = f"{found} of {total}"
  row["false boxes"] = str(false)
  pairs = [x for x in happiness.values() if len(x) == 2]
  right = sum(x["happiness"] > x["neutral"] for x in pairs)
  persons = len({x.person for x in photographs.london(data)})
  equal = sum(x["happiness"] == x["neutral"] for x in pairs)
  row["happier when smiling"] = f"{right} of {persons}{f', {equal} equal' if equal else ''}"
  return row


def print_report(arguments: argparse.Namespace, sides: dict[str, Side]) -> None:
  times = json.loads((arguments.out / TIMES).read_text())
  reference = times["ms"][next(iter(times["ms"]))]
  rows = []
  for name, side in sides.items():
    own = times["ms"][name]
    ratio = statistics.median(a / b for a, b in zip(own, reference, strict=True))
    rows.append(
      {
        "": name,
        "installed, MB": f"{side.installed / 1e6:,.0f}",
        "weights, MB": f"{sum(x.stat().st_size for x in side.weights) / 1e6:.2f}",
        "until the first answer, s": f"{times['first'][name]:.1f}",
        "a photograph, ms": f"{statistics.median(own):.0f}",
        "range, ms": f"{min(own):.0f} to {max(own):.0f}",
        "times that of the first row": f"{ratio:.2f}",
      }
    )
  today = datetime.date.today()
  print(f"{today}; {len(os.sched_getaffinity(0))} cores; load average {times['load']:.1f}\n")
  print(markdown(rows), end="\n\n")
  print(markdown([faces_row(x, arguments.out / f"{x}.json", arguments.data) for x in sides]))


def size_of_folder(folder: pathlib.Path) -> int:
  """The bytes of its files."""
  files = (x for x in folder.rglob("*") if x.is_file() and not x.is_symlink())
  return sum(x.stat().st_size for x in files)


def size_of_packages(python: pathlib.Path, requirement: str) -> int:
  """The bytes that pip installed for a requirement, by what the packages say about themselves."""
  command = [python, HERE / "installed_size.py", requirement]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  return int(done.stdout)


def main() -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  add = parser.add_argument
  steps = {"faces": find_faces, "times": measure_times, "report": print_report}
  add("step", choices=steps)
  add("--data", type=pathlib.Path, required=True, help="folder with london, scenes, dlib_faces")
  add("--out", type=pathlib.Path, required=True, help="folder of the answers and times")
  add("--ferjax", type=pathlib.Path, default=pathlib.Path(sys.executable), metavar="PYTHON")
  add("--exports", type=pathlib.Path, metavar="FOLDER", help="detector.onnx and classifier.onnx")
  add("--fer", type=pathlib.Path, metavar="PYTHON")
  add("--face-api", type=pathlib.Path, metavar="FOLDER")
  arguments = parser.parse_args()
  arguments.out.mkdir(parents=True, exist_ok=True)
  steps[arguments.step](arguments, find_sides(arguments))


if __name__ == "__main__":
  main()
