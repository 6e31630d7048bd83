"""The subcommand `ferjax data audit`: records whose label is probably wrong."""

import argparse
import collections
import dataclasses
import functools
import hashlib
import pathlib
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ferjax.commands.data_sets import (
  add_labels,
  add_set_options,
  open_plan,
  print_counts,
  print_first,
  progress_of,
  run_action,
)
from ferjax.commands.extras import require_extra
from ferjax.commands.options import add_output, add_step
from ferjax.data.label_columns import LABEL
from ferjax.expressions import UNKNOWN
from ferjax.output import check_writable
from ferjax.weights.defaults import DEFAULT_CLASSIFIER

if TYPE_CHECKING:
  import numpy as np

  from ferjax.audit.issues import Issues
  from ferjax.data.datasets.entries import Entry
  from ferjax.data.preparation.plan import Plan

TABLE, SHEET = "labels.csv", "labels.png"
_PACKAGES = ("cleanlab", "sklearn")  # of the extra, as they are imported
_MOST_PAIRS = 8  # of classes, in the summary


def add_audit(actions: argparse._SubParsersAction) -> None:
  """Adds `audit` to the actions of `ferjax data`."""
  command = actions.add_parser(
    "audit",
    help="find labels that are probably wrong",
    description="Predicts the label of every face from the others (a logistic regression on the "
    "features of a trained network, in folds), and lists the faces whose label contradicts the "
    "prediction, by confident learning. Writes a contact sheet and a table, whose column "
    f"{LABEL} a person corrects for `ferjax data prepare --labels`.",
  )
  fixed = {"task": "classification", "validation": 0.0, "val_as_test": False}
  command.set_defaults(run=functools.partial(run_action, _audit), **fixed)
  add = command.add_argument
  add_set_options(add)
  add_labels(add)
  add_output(add, "DIR", f"folder for {TABLE} and {SHEET}")
  add("--rule", default="majority", help="of FERPlus, as for `prepare` (default: %(default)s)")
  add(
    "--margin",
    type=float,
    default=0.0,
    metavar="P",
    help="around a cropped face, as for `prepare` (default: %(default)s)",
  )
  predictions = command.add_mutually_exclusive_group()
  predictions.add_argument(
    "--weights",
    default=DEFAULT_CLASSIFIER,
    metavar="WEIGHTS",
    help="of a classifier that was not trained on these labels: name of known weights, weights "
    "file, or training workdir (default: %(default)s)",
  )
  predictions.add_argument(
    "--predictions",
    metavar="FILE",
    help="instead: a table of your own out-of-fold probabilities, with the columns record and "
    "p_CLASS",
  )
  add_step(add)
  add("--folds", type=int, default=5, metavar="N", help="default: %(default)s")
  add("--seed", type=int, default=0, help="of the folds (default: %(default)s)")
  add(
    "--count", type=int, default=60, metavar="N", help="faces on the sheet (default: %(default)s)"
  )
  add(
    "--on-bad-record",
    choices=("error", "skip"),
    default="error",
    help="stop at a bad record, or leave it out (default: %(default)s)",
  )


def _audit(arguments: argparse.Namespace) -> int:
  require_extra("audit", "ferjax data audit", _PACKAGES)
  import numpy as np

  from ferjax.audit.issues import find_issues
  from ferjax.audit.tables import read_predictions, write_issues

  out = pathlib.Path(arguments.output)
  _check_out(out, arguments)
  plan = open_plan(arguments)
  print_counts(plan)
  plan.require_no_problems(arguments.on_bad_record)
  names = plan.options.class_names
  if arguments.predictions is None:
    records, probabilities, source = _cross_validated(plan, arguments)
  else:
    records = [entry for members in plan.entries.values() for entry in members]
    source = arguments.predictions
    probabilities = read_predictions(pathlib.Path(source), records, names)
  labels = np.array([entry.classes[0] for entry in records])
  issues = find_issues(labels, probabilities)
  _print_summary(labels, probabilities, issues, names)
  out.mkdir(parents=True, exist_ok=True)
  write_issues(out / TABLE, records, names, probabilities, issues, source)
  _write_sheet(out / SHEET, plan, records, probabilities, issues, arguments.count)
  _print_use(out)
  return 0


def _check_out(out: pathlib.Path, arguments: argparse.Namespace) -> None:
  if arguments.count < 1:
    raise ValueError(f"--count is {arguments.count}; expected at least 1 face")
  if (out / TABLE).exists():
    raise FileExistsError(
      f"{out / TABLE} exists, and may have been corrected: choose another --output, or delete it"
    )
  check_writable(out, [TABLE, SHEET])


def _cross_validated(
  plan: "Plan", arguments: argparse.Namespace
) -> "tuple[list[Entry], np.ndarray, str]":
  """The records that can be read, their probabilities, and the name of the weights."""
  import numpy as np

  from ferjax.audit.features import network_features, view_of
  from ferjax.audit.out_of_fold import out_of_fold
  from ferjax.compilation_cache import enable_compilation_cache
  from ferjax.weights.opening import open_weights

  weights = open_weights(arguments.weights, step=arguments.step)
  weights.check_task("classification")
  enable_compilation_cache()
  faces = _Faces(plan, view_of(weights), skip=arguments.on_bad_record == "skip")
  with progress_of(plan) as progress:
    features = network_features(weights, faces.views(progress))
  if faces.left_out:
    print(f"{len(faces.left_out):,} bad records were left out:")
    print_first(faces.left_out)
  labels = np.array([entry.classes[0] for entry in faces.records])
  names = plan.options.class_names
  probabilities = out_of_fold(
    features, labels, faces.groups, names, folds=arguments.folds, seed=arguments.seed
  )
  return faces.records, probabilities, weights.name


@dataclasses.dataclass
class _Faces:
  """The faces of a plan; `views` fills the lists.

  A group is a person or clip, or, where these are not known, the image, of which there may be
  copies.
  """

  plan: "Plan"
  view: Any
  skip: bool
  records: "list[Entry]" = dataclasses.field(default_factory=list)
  groups: list[str] = dataclasses.field(default_factory=list)
  left_out: list[str] = dataclasses.field(default_factory=list)

  def views(self, progress: Any) -> "Iterator[np.ndarray]":
    from ferjax.data.datasets.entries import RecordError
    from ferjax.data.examples import in_threads, load

    plan = self.plan

    def open_view(entry: "Entry") -> "np.ndarray":
      loaded = load(entry, overhang=plan.data_set.overhang, margin=plan.options.margin)
      return self.view(loaded.image)

    entries = (entry for members in plan.entries.values() for entry in members)
    for entry, view in in_threads(open_view, entries):
      progress.update()
      if isinstance(view, ValueError):
        if not self.skip:
          raise RecordError(f"{view} (--on-bad-record skip leaves such records out)")
        self.left_out.append(str(view))
        continue
      self.records.append(entry)
      self.groups.append(entry.group or hashlib.sha256(view.tobytes()).hexdigest())
      yield view


def _print_summary(
  labels: "np.ndarray", probabilities: "np.ndarray", issues: "Issues", names: Sequence[str]
) -> None:
  agreed = (probabilities.argmax(axis=1) == labels).mean()
  print(f"the predictions agree with {agreed:.1%} of the labels")
  print(f"{'class':<12} {'records':>9} {'suspected':>9}")
  for i, name in enumerate(names):
    of_class = labels == i
    print(f"{name:<12} {of_class.sum():>9,} {of_class[issues.suspected].sum():>9,}")
  print(f"{'total':<12} {len(labels):>9,} {len(issues.suspected):>9,}")
  pairs = collections.Counter(
    zip(labels[issues.suspected].tolist(), issues.suggested[issues.suspected].tolist(), strict=True)
  )
  for (given, suggested), count in pairs.most_common(_MOST_PAIRS):
    print(f"{count:>6,} labelled {names[given]}, probably {names[suggested]}")


def _write_sheet(
  path: pathlib.Path,
  plan: "Plan",
  records: "Sequence[Entry]",
  probabilities: "np.ndarray",
  issues: "Issues",
  count: int,
) -> None:
  """The first faces of the table, with their label and the most probable class."""
  from ferjax.data.examples import load
  from ferjax.tasks.classification.plots import Captioned, plot_faces

  faces = []
  for i in issues.suspected[:count].tolist():
    loaded = load(records[i], overhang=plan.data_set.overhang, margin=plan.options.margin)
    suggested, probability = int(issues.suggested[i]), f"{probabilities[i].max():.2f}"
    faces.append(Captioned(loaded.image, records[i].classes[0], suggested, probability))
  total = f"{len(issues.suspected):,} of {len(records):,} labels are suspected"
  title = f"{total}; the first {len(faces)} rows of {TABLE}" if faces else total
  plot_faces(faces, plan.options.class_names, title, path, truth="label")


def _print_use(out: pathlib.Path) -> None:
  table = out / TABLE
  print(f"Look at {out / SHEET}. Correct the column {LABEL} of {table}: another class, or")
  print(f"{UNKNOWN} to leave the face out. Then prepare the set with the same options, and")
  print(f"  --labels {shlex.quote(str(table))}")
