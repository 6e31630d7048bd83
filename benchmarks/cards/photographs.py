"""Annotated photographs: scenes with a face, scenes without, groups of people, portraits in pairs.

The folder has `scenes/faces` and `dlib_faces` with a table `boxes.csv` (image, x1, y1, x2, y2),
`scenes/backgrounds`, and `london` with `annotations.txt` and `labels.csv` (image, label, person).
"""

import argparse
import csv
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

LONDON_CREDIT = (
  "Face Research Lab London Set, DeBruine & Jones 2017, doi 10.6084/m9.figshare.5047666, "
  "CC BY 4.0; reduced, boxes and labels added"
)


@dataclasses.dataclass(frozen=True)
class Photograph:
  """An image file and the boxes (xyxy, pixels) of its faces."""

  path: pathlib.Path
  boxes: Float[np.ndarray, "m 4"]


@dataclasses.dataclass(frozen=True)
class Portrait(Photograph):
  """A photograph of one person with a posed expression."""

  label: str
  person: str


def number_range(text: str) -> range:
  """The numbers of "194-260", both ends included.

  Raises:
    ArgumentTypeError: other text, or an empty range.
  """
  first, dash, last = text.partition("-")
  if not (dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
    raise argparse.ArgumentTypeError(f"{text!r} is no range; expected numbers, such as 194-260")
  return range(int(first), int(last) + 1)


def step_of(number: int, limit: int) -> int:
  """The step that leaves at most `limit` of a number of items, evenly spaced; 1 if it is 0."""
  return max(1, -(-number // limit)) if limit else 1


def scenes_with_faces(data: pathlib.Path, numbers: range) -> list[Photograph]:
  """The photographs of `scenes/faces` with these numbers."""
  found = [x for x in _annotated(data / "scenes" / "faces") if int(x.path.stem) in numbers]
  return _not_empty(found, f"{data / 'scenes' / 'faces'}: numbers {numbers[0]}-{numbers[-1]}")


def backgrounds(data: pathlib.Path, numbers: range) -> list[Photograph]:
  """The photographs of `scenes/backgrounds` with these numbers, which have no face."""
  folder = data / "scenes" / "backgrounds"
  paths = (path for path in sorted(folder.glob("*.jpg")) if int(path.stem) in numbers)
  found = [Photograph(path, np.zeros((0, 4))) for path in paths]
  return _not_empty(found, f"{folder}: numbers {numbers[0]}-{numbers[-1]}")


def groups(data: pathlib.Path) -> list[Photograph]:
  """The photographs of `dlib_faces`."""
  return list(_annotated(data / "dlib_faces"))


def london(data: pathlib.Path) -> list[Portrait]:
  """The portraits of `london`, in order of person and label."""
  folder = data / "london"
  boxes = {}
  for line in (folder / "annotations.txt").read_text(encoding="utf-8").splitlines():
    image, box = line.split()
    boxes[image] = np.array([list(map(float, box.split(",")[:4]))])
  portraits = [
    Portrait(folder / row["image"], boxes[row["image"]], row["label"], row["person"])
    for row in _rows(folder / "labels.csv")
  ]
  return sorted(portraits, key=lambda x: (x.person, x.label))


def pairs_of(portraits: Sequence[Portrait], first: str, second: str) -> list[tuple[int, int]]:
  """The indices of each person's portraits with two labels, in order of the persons."""
  by_key = {(x.person, x.label): number for number, x in enumerate(portraits)}
  persons = sorted({x.person for x in portraits})
  return [
    (by_key[person, first], by_key[person, second])
    for person in persons
    if (person, first) in by_key and (person, second) in by_key
  ]


def _annotated(folder: pathlib.Path) -> Iterator[Photograph]:
  boxes: dict[str, list[list[float]]] = {}
  for row in _rows(folder / "boxes.csv"):
    box = [float(row[corner]) for corner in ("x1", "y1", "x2", "y2")]
    boxes.setdefault(row["image"], []).append(box)
  for image, own in boxes.items():
    yield Photograph(folder / image, np.array(own))


def _rows(path: pathlib.Path) -> list[dict[str, str]]:
  with path.open(newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def _not_empty(found: list[Photograph], where: str) -> list[Photograph]:
  if not found:
    raise FileNotFoundError(f"no photographs in {where}")
  return found
