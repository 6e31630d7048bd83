"""The subcommand `ferjax data label`: a classifier labels boxes without an expression."""

import argparse
import collections
import dataclasses
import functools
import pathlib
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ferjax.commands.data_sets import (
  add_set_options,
  open_plan,
  print_counts,
  print_first,
  progress_of,
  run_action,
)
from ferjax.commands.options import add_output, add_step, crop_margin
from ferjax.data.label_columns import CONFIDENCE, PROBABILITY, WEIGHTS
from ferjax.expressions import SEVEN_EXPRESSIONS, UNKNOWN, UNLABELLED, index_of_spelling
from ferjax.output import check_writable
from ferjax.progress import Progress
from ferjax.weights.defaults import DEFAULT_CLASSIFIER

if TYPE_CHECKING:
  from ferjax.data.datasets.entries import Entry
  from ferjax.data.examples import Loaded
  from ferjax.data.preparation.box_table import BoxTable, Row
  from ferjax.data.preparation.plan import Plan
  from ferjax.inference.classification import ExpressionClassifier
  from ferjax.inference.results import Face
  from ferjax.weights.settings import Margin


def add_label(actions: argparse._SubParsersAction) -> None:
  """Adds `label` to the actions of `ferjax data`."""
  command = actions.add_parser(
    "label",
    help="label boxes without an expression with a classifier",
    description="Writes a table for the source csv, with all boxes of a set for detection. Boxes "
    "whose expression nobody labelled get the classifier's, if it is sure enough. All other labels "
    f"stay as they are. The columns {PROBABILITY}CLASS are the probabilities, {CONFIDENCE} is the "
    f"highest one, and {WEIGHTS} names the weights.",
  )
  # The options of `check` and `prepare` that do not apply.
  fixed = {"task": "detection", "rule": "majority", "margin": 0.0}
  no_new_split = {"validation": 0.0, "seed": 0, "val_as_test": False}
  command.set_defaults(run=functools.partial(run_action, _label), **fixed, **no_new_split)
  add = command.add_argument
  add_set_options(add)
  add_output(add, "FILE", "the table, which must not exist")
  add(
    "--weights",
    default=DEFAULT_CLASSIFIER,
    metavar="WEIGHTS",
    help="of a classifier: name of known weights (`ferjax weights` lists them), weights file, "
    "training workdir, or one checkpoint in it (default: %(default)s)",
  )
  add_step(add)
  add(
    "--threshold",
    type=float,
    default=0.6,
    metavar="P",
    help="minimum probability of a label, 0..1; boxes below it stay without one (default: "
    "%(default)s)",
  )
  add(
    "--crop-margin",
    type=crop_margin,
    metavar="M",
    help="margins of the classifier's square crop around a box, relative to the box: one number, "
    "or left,top,right,bottom (default: those of the weights, or 0.1)",
  )
  add(
    "--on-bad-record",
    choices=("error", "skip"),
    default="error",
    help="stop at a bad record, or leave it out of the table (default: %(default)s)",
  )


def _label(arguments: argparse.Namespace) -> int:
  # Imported here so that `ferjax --help` does not load JAX.
  from ferjax.compilation_cache import enable_compilation_cache
  from ferjax.data.preparation.box_table import BoxTable
  from ferjax.inference.classification import ExpressionClassifier
  from ferjax.weights.opening import open_weights
  from ferjax.weights.settings import check_fraction

  check_fraction("--threshold", arguments.threshold)
  out = pathlib.Path(arguments.output)
  _check_new(out)
  opened = open_weights(arguments.weights, step=arguments.step)
  opened.check_task("classification")
  plan = open_plan(arguments)
  print_counts(plan)
  plan.require_no_problems(arguments.on_bad_record)
  _check_plan(plan, tuple(opened.meta["class_names"]))
  enable_compilation_cache()
  classifier = ExpressionClassifier(opened)
  table = BoxTable(plan, pathlib.Path(arguments.source))
  labeller = _Labeller(
    table,
    plan,
    classifier,
    margin=_margin(arguments.crop_margin, classifier),
    threshold=arguments.threshold,
    weights=opened.name,
    skip=arguments.on_bad_record == "skip",
  )
  with progress_of(plan) as progress:
    labeller.run(progress)
  out.parent.mkdir(parents=True, exist_ok=True)
  table.write(out)
  labeller.print_summary()
  _print_use(out, pathlib.Path(arguments.source), plan.options.class_names)
  return 0


def _check_new(path: pathlib.Path) -> None:
  if path.exists():
    raise FileExistsError(
      f"{path} exists, and its labels may have been corrected: choose another --out, or delete it"
    )
  check_writable(path.parent)


def _margin(margin: float | list[float] | None, classifier: "ExpressionClassifier") -> "Margin":
  from ferjax.inference.two_stage import CROP_SCALE, scale_margin
  from ferjax.weights.settings import check_margin

  if margin is not None:
    return check_margin(margin)
  return classifier.crop_margin or scale_margin(CROP_SCALE)


def _check_plan(plan: "Plan", known: tuple[str, ...]) -> None:
  """Raises a ValueError if weights with the classes `known` can label no box of the plan."""
  names = plan.options.class_names
  if any(name.casefold() == UNKNOWN for name in names):
    raise ValueError(
      f"--class-names {','.join(names)} has {UNKNOWN!r}, which in a table is the label of a box "
      "whose expression nobody labelled; give this class another name"
    )
  if not set(_set_names(known, names).values()) - {None}:
    raise ValueError(
      f"the classes of the weights are {', '.join(known)}; none is one of the "
      f"set's: {', '.join(names)}; choose other weights, or name the classes with --class-names"
    )
  entries = [entry for members in plan.entries.values() for entry in members]
  if not any(UNLABELLED in entry.classes for entry in entries):
    boxes = sum(len(entry.classes) for entry in entries)
    raise ValueError(
      f"all {boxes:,} boxes of {plan.data_set.title} have a label, so there is nothing to do; a "
      f"box without one has the label {UNKNOWN}, or the class number {UNLABELLED}"
    )


def _set_names(names: tuple[str, ...], of_set: tuple[str, ...]) -> dict[str, str | None]:
  """Class of the weights -> the set's name of it, or None if the set does not have it."""

  def find(name: str) -> str | None:
    try:
      return of_set[index_of_spelling(name, of_set)]
    except ValueError:
      return None

  return {name: find(name) for name in names}


@dataclasses.dataclass
class _Labeller:
  """Labels the boxes of a plan, and counts."""

  table: "BoxTable"
  plan: "Plan"
  classifier: "ExpressionClassifier"
  margin: "Margin"
  threshold: float
  weights: str
  skip: bool
  given: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
  labelled: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
  outside: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
  unsure: int = 0
  left_out: list[str] = dataclasses.field(default_factory=list)

  def run(self, progress: Progress) -> None:
    """Fills the table.

    Raises:
      RecordError: a bad record, unless they are skipped; or all are bad.
    """
    from ferjax.data.datasets.entries import RecordError

    names = self.classifier.class_names
    new = [CONFIDENCE, WEIGHTS, *(f"{PROBABILITY}{name}" for name in names)]
    self.table.columns += [column for column in new if column not in self.table.columns]
    of_set = _set_names(names, self.plan.options.class_names)
    rows: collections.deque[Row] = collections.deque()  # of the crops that are not classified yet
    for face in self.classifier.classify_crops(self._crops(rows, progress)):
      self._fill(rows.popleft(), face, of_set[face.expression])
    if not self.table:
      raise RecordError(f"no valid records; the first bad one: {self.left_out[0]}")

  def _crops(self, rows: "collections.deque[Row]", progress: Progress) -> Iterator[Any]:
    """Yields the crops of the unlabelled boxes, and appends the row of each to `rows`."""
    from ferjax.data.datasets.entries import RecordError
    from ferjax.data.examples import in_threads, load
    from ferjax.inference.two_stage import square_crop

    def open_image(entry: "Entry") -> "Loaded":
      self.table.check_path(entry)
      return load(entry, overhang=self.plan.data_set.overhang, margin=0.0)

    entries = (entry for members in self.plan.entries.values() for entry in members)
    for entry, loaded in in_threads(open_image, entries):
      progress.update()
      if isinstance(loaded, ValueError):
        if not self.skip:
          raise RecordError(f"{loaded} (--on-bad-record skip leaves such records out)")
        self.left_out.append(str(loaded))
        continue
      boxes = self.table.add(entry, loaded)
      for row, box, label in zip(boxes, loaded.boxes.tolist(), entry.classes, strict=True):
        if label != UNLABELLED:
          self.given[self.plan.options.class_names[label]] += 1
          continue
        rows.append(row)
        yield square_crop(loaded.image, tuple(box), self.margin)

  def _fill(self, row: "Row", face: "Face", name: str | None) -> None:
    if row.get(WEIGHTS):  # of an earlier run, whose weights may have other classes
      row.update({c: "" for c in self.table.columns if c.startswith(PROBABILITY)})
    probabilities = {f"{PROBABILITY}{c}": f"{p:.4f}" for c, p in face.scores.items()}
    row.update({CONFIDENCE: f"{face.score:.4f}", WEIGHTS: self.weights, **probabilities})
    if face.score < self.threshold:
      self.unsure += 1
    elif name is None:
      self.outside[face.expression] += 1
    else:
      row["label"] = name
      self.labelled[name] += 1

  def print_summary(self) -> None:
    """Prints the numbers of given and new labels by class, and of boxes without a label."""
    print(f"{'class':<12} {'before':>9} {'new':>9}")
    for name in self.plan.options.class_names:
      print(f"{name:<12} {self.given[name]:>9,} {self.labelled[name]:>9,}")
    print(f"still without a label: {self.unsure:,} boxes, less probable than {self.threshold:g}")
    for name, count in self.outside.items():
      print(f"still without a label: {count:,} boxes, probably {name}, which is not a class here")
    left_out = [*self.plan.problems, *self.left_out]
    if left_out:
      print(f"{len(left_out):,} bad records were left out:")
      print_first(left_out)


def _print_use(out: pathlib.Path, root: pathlib.Path, class_names: tuple[str, ...]) -> None:
  from ferjax.data.prepared import class_names_flag

  inside = out.resolve().is_relative_to(root.resolve())
  table = out.resolve().relative_to(root.resolve()) if inside else out.resolve()
  flags = [f"--config.data.{name}={value}" for name, value in (("dir", root), ("csv", table))]
  classes = [] if class_names == SEVEN_EXPRESSIONS else [class_names_flag(class_names)]
  print(f"Table in {out}; {WEIGHTS} is empty where a person gave the label")
  print("Train with", " ".join(["--config.data.source=csv", shlex.join(flags), *classes]))
