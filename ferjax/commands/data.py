"""The subcommands of `ferjax data`: list, check, prepare."""

import argparse
import functools
import json
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ferjax.commands.errors import CommandError
from ferjax.expressions import EXPRESSIONS, SEVEN_EXPRESSIONS
from ferjax.output import check_writable

if TYPE_CHECKING:
  from tqdm import tqdm

  from ferjax.data.preparation.checks import Finding
  from ferjax.data.preparation.plan import Plan
  from ferjax.data.preparation.prepare import Prepared

_MAX_PRINTED = 10  # findings per kind


def add_data(commands: argparse._SubParsersAction) -> None:
  """Adds `data` to the subcommands of a program.

  `arguments.run(arguments)` returns the exit code, or raises a CommandError.
  """
  data = commands.add_parser("data", help="list, check and prepare data sets")
  actions = data.add_subparsers(title="actions", metavar="ACTION", required=True)
  listing = actions.add_parser("list", help="list the data sets, their terms, and how to get them")
  listing.set_defaults(run=functools.partial(_run, _list))
  check = actions.add_parser(
    "check",
    help="open every image of a data set and report errors",
    description="Writes nothing but a list of all findings with --out. Exit code 1: errors found.",
  )
  check.set_defaults(run=functools.partial(_run, _check))
  _add_data_set_options(check)
  check.add_argument("--out", metavar="FILE", help="write all findings to this JSON file")
  prepare = actions.add_parser(
    "prepare",
    help="convert a data set to ArrayRecord shards",
    description="To resume an interrupted run, give the same command again.",
  )
  prepare.set_defaults(run=functools.partial(_run, _prepare))
  _add_data_set_options(prepare)
  prepare.add_argument("--out", required=True, metavar="DIR", help="folder for prepared data sets")
  prepare.add_argument(
    "--on-bad-record",
    choices=("error", "skip"),
    default="error",
    help="stop at a bad record, or leave it out and list it in the report (default: %(default)s)",
  )
  duplicates = prepare.add_mutually_exclusive_group()
  duplicates.add_argument(
    "--drop-duplicates",
    choices=("none", "across-splits", "conflicting", "all", "leak-free"),
    default="none",
    help="an image that is in several splits stays in the first of test, val and train that "
    "contains it. across-splits: drops images from later splits that are the same as an image of "
    "an earlier split, or look like it (as `check` reports). conflicting: of the same images with "
    "different labels, drops those in later splits, and those of val or train if labels differ "
    "within that split; test keeps its own. all: both, and keeps only the first of images within "
    "one split that are the same or look alike. leak-free: keeps train as released, and drops from "
    "val and test the images that are the same as an image of train, or look like it. The report "
    "lists the dropped images (default: %(default)s)",
  )
  duplicates.add_argument(
    "--leak-free",
    action="store_const",
    dest="drop_duplicates",
    const="leak-free",
    default="none",
    help="the same as --drop-duplicates leak-free: for the evaluation of models that were trained "
    "on all of train",
  )


def _add_data_set_options(command: argparse.ArgumentParser) -> None:
  add = command.add_argument
  add("name", metavar="NAME", help="data set: see `ferjax data list`")
  add("--source", required=True, metavar="DIR", help="folder of the data set, as released")
  add("--task", default="", help="classification or detection (default: the set's first)")
  add("--classes", type=int, choices=(7, 8), help="number of expressions; 8 includes contempt")
  add("--class-names", metavar="A,B,...", help="classes of your own data, in the order of labels")
  add(
    "--rule",
    default="majority",
    help="FERPlus: the labels of train are one class (majority) or a distribution (probability); "
    "validation and test use the majority class (default: %(default)s)",
  )
  add(
    "--file",
    action="append",
    default=[],
    metavar="SPLIT=FILE",
    help="name of a split of your own data: annotation list or COCO JSON file below the folder, "
    "image set, folder, or value in the table; may be repeated",
  )
  add("--table", default="labels.csv", metavar="FILE", help="table of csv (default: %(default)s)")
  add(
    "--margin",
    type=float,
    default=0.0,
    metavar="P",
    help="margin added on each side of a face box before cropping, as a fraction of the box's side "
    "(AffectNet csv, ExpW; default: %(default)s)",
  )
  add(
    "--validation",
    type=float,
    default=0.1,
    metavar="P",
    help="fraction of train used for validation if the set has no validation split; 0: none "
    "(default: %(default)s)",
  )
  add("--seed", type=int, default=0, help="seed of the validation split (default: %(default)s)")
  add(
    "--val-as-test",
    action="store_true",
    help="use the released validation split as the test split, and take a new validation split "
    "from train",
  )


def _run(action: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
  try:
    return action(arguments)
  except (ValueError, OSError) as error:
    raise CommandError(error) from error


def _list(arguments: argparse.Namespace) -> int:
  del arguments
  from ferjax.data.datasets.catalog import COMPOSED, DATA_SETS

  for data_set in DATA_SETS.values():
    forms = ", ".join(release.name for release in data_set.releases)
    classes = " or ".join(map(str, data_set.class_counts)) or "any (--class-names, default: 7)"
    print(f"{data_set.name}: {data_set.title}")
    print(f"  for      {', '.join(data_set.tasks)}; classes: {classes}; releases: {forms}")
    print(f"  terms    {data_set.terms}")
    print(f"  get it   {data_set.request}")
  print(f"{COMPOSED}: faces of a set for classification, pasted into photographs without faces")
  print("  for      detection; classes: those of the faces; for training only, not for `prepare`")
  print("  terms    those of the faces and of the photographs")
  print("  get it   Pass the set as data.compose.faces, its folder as data.dir, and a folder of")
  print("           photographs without faces as data.compose.backgrounds; see docs/composed.md")
  return 0


def _check(arguments: argparse.Namespace) -> int:
  from ferjax.data.preparation.checks import check_plan, summary

  if arguments.out:
    _check_file(pathlib.Path(arguments.out))
  plan = _plan(arguments)
  _print_counts(plan)
  with _progress(plan) as progress:
    findings = check_plan(plan, progress.update)
  for kind, count in summary(findings).items():
    print(f"{kind:<11} {count:>7,}")
    _print_first([finding.message for finding in findings if finding.kind == kind])
  if arguments.out:
    _write_findings(arguments.out, findings)
  return 1 if any(finding.is_error for finding in findings) else 0


def _prepare(arguments: argparse.Namespace) -> int:
  from ferjax.data.preparation.prepare import REPORT, prepare

  check_writable(arguments.out)
  plan = _plan(arguments)
  _print_counts(plan)
  with _progress(plan, rounds=1 if arguments.drop_duplicates == "none" else 2) as progress:

    def announce(prepared: "Prepared") -> None:
      progress.close()
      _print_prepared(plan, prepared)

    prepared = prepare(
      plan,
      arguments.source,
      arguments.out,
      on_bad_record=arguments.on_bad_record,
      drop_duplicates=arguments.drop_duplicates,
      progress=progress.update,
      announce=announce,
    )
  print(f"Prepared in {prepared.folder}; see {REPORT}/ there")
  print(f"Train with {_train_flags(prepared.folder, plan.options.class_names)}")
  return 0


def _print_prepared(plan: "Plan", prepared: "Prepared") -> None:
  """Prints how many records were written, left out and dropped."""
  from ferjax.data.preparation.prepare import REPORT
  from ferjax.data.preparation.report import DUPLICATES

  left_out = sum(map(len, prepared.left_out.values())) + len(plan.problems)
  print(_numbers(prepared.records), "records")
  if left_out:
    print(f"{left_out:,} bad records were left out; {REPORT}/report.json lists them")
  duplicates = [line for lines in prepared.duplicates.values() for line in lines]
  if duplicates:
    by_split = {split: len(lines) for split, lines in prepared.duplicates.items() if lines}
    print(f"duplicates dropped: {_numbers(by_split)}; {REPORT}/{DUPLICATES} lists them")
    _print_first(duplicates)


def _numbers(by_split: Mapping[str, int]) -> str:
  return ", ".join(f"{split} {count:,}" for split, count in by_split.items())


def _print_first(messages: Sequence[str]) -> None:
  for message in messages[:_MAX_PRINTED]:
    print(f"  {message}")
  if len(messages) > _MAX_PRINTED:
    print("  ...")


def _train_flags(folder: str, class_names: tuple[str, ...]) -> str:
  """The training flags for a prepared set, quoted for a shell."""
  from ferjax.data.prepared import class_names_flag

  flags = f"--config.data.source=prepared {shlex.quote(f'--config.data.dir={folder}')}"
  is_default = class_names == SEVEN_EXPRESSIONS
  return flags if is_default else f"{flags} {class_names_flag(class_names)}"


def _plan(arguments: argparse.Namespace) -> "Plan":
  from ferjax.data.datasets.base import Options
  from ferjax.data.datasets.catalog import find_data_set
  from ferjax.data.preparation.plan import Splitting, make_plan

  names = EXPRESSIONS[: arguments.classes] if arguments.classes else ()
  if arguments.class_names is not None:
    if arguments.classes:
      raise ValueError("--classes and --class-names are mutually exclusive")
    names = tuple(name.strip() for name in arguments.class_names.split(","))
  options = Options(
    task=arguments.task,
    class_names=names,
    rule=arguments.rule,
    files=_files(arguments.file),
    table=arguments.table,
    margin=arguments.margin,
  )
  splitting = Splitting(arguments.validation, arguments.seed, arguments.val_as_test)
  return make_plan(find_data_set(arguments.name), arguments.source, options, splitting)


def _files(values: Sequence[str]) -> dict[str, str]:
  files = {}
  for value in values:
    split, equals, file = value.partition("=")
    if not equals or not file or split not in ("train", "val", "test"):
      raise ValueError(f"--file {value!r}; expected train=FILE, val=FILE or test=FILE")
    files[split] = file
  return files


def _progress(plan: "Plan", rounds: int = 1) -> "tqdm":
  from tqdm import tqdm

  total = rounds * sum(map(len, plan.entries.values()))
  return tqdm(total=total, unit=" images", disable=None, file=sys.stderr)


def _print_counts(plan: "Plan") -> None:
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
  if plan.validation:
    print(plan.validation)


def _check_file(path: pathlib.Path) -> None:
  """As `check_writable`, but also for special files such as /dev/stdout."""
  if path.exists() and not path.is_dir():
    path.open("ab").close()
  else:
    check_writable(path.parent, [path.name])


def _write_findings(file: str, findings: Sequence["Finding"]) -> None:
  rows = [{"kind": finding.kind, "message": finding.message} for finding in findings]
  path = pathlib.Path(file)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(rows, indent=2))
  print(f"All {len(rows):,} findings in {path}")
