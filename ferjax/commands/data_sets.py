"""Shared by the subcommands of `ferjax data`: the options of a data set, and its plan."""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ferjax.commands.errors import CommandError
from ferjax.commands.options import Add
from ferjax.expressions import EXPRESSIONS
from ferjax.progress import Progress

if TYPE_CHECKING:
  from ferjax.data.preparation.plan import Plan

_MAX_PRINTED = 10  # messages of a kind


def add_set_options(add: Add) -> None:
  """Adds the data set, its folder, its classes, and the names of its splits and its table."""
  add("name", metavar="NAME", help="data set: see `ferjax data list`")
  add("--source", required=True, metavar="DIR", help="folder of the data set, as released")
  add("--classes", type=int, choices=(7, 8), help="number of expressions; 8 includes contempt")
  add("--class-names", metavar="A,B,...", help="classes of your own data, in the order of labels")
  add(
    "--file",
    action="append",
    default=[],
    metavar="SPLIT=FILE",
    help="name of a split of your own data: annotation list or COCO JSON file below the folder, "
    "image set, folder, or value in the table; may be repeated",
  )
  add("--table", default="labels.csv", metavar="FILE", help="table of csv (default: %(default)s)")


def add_columns(add: Add) -> None:
  """Adds the columns of a table that are kept for metrics by group."""
  add(
    "--columns",
    metavar="A,B,...",
    help="further columns of the table of csv, kept for metrics by group, such as gender,age",
  )


def add_labels(add: Add) -> None:
  """Adds the table of corrected labels."""
  add(
    "--labels",
    metavar="FILE",
    help="table of corrected labels, such as the one that `ferjax data audit` writes: the columns "
    "record, given and label; unknown leaves a record out. No record moves to another split",
  )


def run_action(action: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
  """Runs an action; errors that the user can correct become CommandErrors."""
  try:
    return action(arguments)
  except (ValueError, OSError) as error:
    raise CommandError(error) from error


def open_plan(arguments: argparse.Namespace) -> "Plan":
  """The plan of the data set that the options name; errors as for `make_plan`."""
  from ferjax.data.datasets.base import Options
  from ferjax.data.datasets.catalog import find_data_set
  from ferjax.data.preparation.corrections import corrected
  from ferjax.data.preparation.plan import Splitting, make_plan

  names = EXPRESSIONS[: arguments.classes] if arguments.classes else ()
  if arguments.class_names is not None:
    if arguments.classes:
      raise ValueError("--classes and --class-names are mutually exclusive")
    names = _names(arguments.class_names)
  options = Options(
    task=arguments.task,
    class_names=names,
    rule=arguments.rule,
    files=_files(arguments.file),
    table=arguments.table,
    margin=arguments.margin,
    columns=_names(getattr(arguments, "columns", None)),
  )
  splitting = Splitting(arguments.validation, arguments.seed, arguments.val_as_test)
  plan = make_plan(find_data_set(arguments.name), arguments.source, options, splitting)
  labels = getattr(arguments, "labels", None)
  return plan if labels is None else corrected(plan, labels)


def _names(text: str | None) -> tuple[str, ...]:
  return () if text is None else tuple(name.strip() for name in text.split(","))


def _files(values: Sequence[str]) -> dict[str, str]:
  files = {}
  for value in values:
    split, equals, file = value.partition("=")
    if not equals or not file or split not in ("train", "val", "test"):
      raise ValueError(f"--file {value!r}; expected train=FILE, val=FILE or test=FILE")
    files[split] = file
  return files


def progress_of(plan: "Plan", rounds: int = 1) -> Progress:
  """The progress over the images of a plan, opened `rounds` times each."""
  return Progress(rounds * sum(map(len, plan.entries.values())), "image")


def print_counts(plan: "Plan") -> None:
  """Prints the counts next to the official ones, and how validation was taken."""
  from ferjax.data.image_files import describe_ignored

  print(f"{plan.data_set.title}, release {plan.release.name}, for {plan.options.task}")
  print(f"{'split':<6} {'class':<12} {'found':>9} {'official':>9}")
  for count in plan.counts:
    official = "-" if count.official is None else f"{count.official:,}"
    mark = "" if count.official in (None, count.found) else "  differs"
    print(f"{count.split:<6} {count.name:<12} {count.found:>9,} {official:>9}{mark}")
  for reason, number in plan.dropped.items():
    print(f"left out by the set's rules: {number:,} ({reason})")
  if ignored := describe_ignored(plan.ignored):
    print(ignored)
  if plan.problems:
    print(f"bad records: {len(plan.problems):,}, the first: {plan.problems[0]}")
  for note in filter(None, (plan.validation, plan.corrections)):
    print(note)


def print_first(messages: Sequence[str]) -> None:
  """Prints the first messages of many."""
  for message in messages[:_MAX_PRINTED]:
    print(f"  {message}")
  if len(messages) > _MAX_PRINTED:
    print("  ...")
