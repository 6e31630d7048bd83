"""The subcommands of `ferjax data`: list, check, prepare; label and audit have their own files."""

import argparse
import functools
import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ferjax.commands.audit import add_audit
from ferjax.commands.data_sets import (
  add_columns,
  add_labels,
  add_set_options,
  open_plan,
  print_counts,
  print_first,
  progress_of,
  run_action,
)
from ferjax.commands.label import add_label
from ferjax.commands.options import Add, add_host_options, add_json, add_output, join_hosts
from ferjax.expressions import SEVEN_EXPRESSIONS
from ferjax.output import check_writable
from ferjax.progress import Progress

if TYPE_CHECKING:
  from ferjax.data.datasets.base import DataSet
  from ferjax.data.preparation.checks import Finding
  from ferjax.data.preparation.plan import Plan
  from ferjax.data.preparation.prepare import Prepared

_EXAMPLES = (
  "ferjax data list",
  "ferjax data check rafdb --source /data/rafdb",
  "ferjax data prepare ferplus --source /data/fer2013 --out /data/prepared",
  "ferjax data label csv --source /data/photographs --out labelled.csv",
  "ferjax data audit image_folder --source /data/faces --output audit",
)


def add_data(commands: argparse._SubParsersAction) -> None:
  """Adds `data` to the subcommands of a program.

  `arguments.run(arguments)` returns the exit code, or raises a CommandError.
  """
  data = commands.add_parser(
    "data",
    help="list, check, prepare, label and audit data sets",
    examples=_EXAMPLES,
  )
  actions = data.add_subparsers(title="actions", metavar="ACTION", required=True)
  listing = actions.add_parser("list", help="list the data sets, their terms, and how to get them")
  listing.set_defaults(run=functools.partial(run_action, _list))
  add_json(listing.add_argument, "the data sets")
  check = actions.add_parser(
    "check",
    help="open every image of a data set and report errors",
    description="Writes nothing but a list of all findings with --out. Exit code 1: errors found.",
  )
  check.set_defaults(run=functools.partial(run_action, _check))
  add_set_options(check.add_argument)
  _add_preparation_options(check.add_argument)
  add_labels(check.add_argument)
  add_output(check.add_argument, "FILE", "write all findings to this JSON file", required=False)
  add_json(check.add_argument, "the counts and all findings")
  prepare = actions.add_parser(
    "prepare",
    help="convert a data set to ArrayRecord shards",
    description="To resume an interrupted run, give the same command again.",
  )
  prepare.set_defaults(run=functools.partial(run_action, _prepare))
  add_set_options(prepare.add_argument)
  add_columns(prepare.add_argument)
  _add_preparation_options(prepare.add_argument)
  add_labels(prepare.add_argument)
  add_output(prepare.add_argument, "DIR", "folder for prepared data sets")
  add_json(prepare.add_argument, "what was prepared")
  prepare.add_argument(
    "--on-bad-record",
    choices=("error", "skip"),
    default="error",
    help="stop at a bad record, or leave it out and list it in the report (default: %(default)s)",
  )
  _add_duplicate_options(prepare.add_mutually_exclusive_group().add_argument)
  add_host_options(prepare.add_argument_group("several hosts").add_argument)
  add_label(actions)
  add_audit(actions)


def _add_duplicate_options(add: Add) -> None:
  """Adds the options of `prepare` that leave out duplicates; they exclude each other."""
  add(
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
  add(
    "--leak-free",
    action="store_const",
    dest="drop_duplicates",
    const="leak-free",
    default="none",
    help="the same as --drop-duplicates leak-free: for the evaluation of models that were trained "
    "on all of train",
  )


def _add_preparation_options(add: Add) -> None:
  """Adds the options of `check` and `prepare` for labels, crops and the validation split."""
  add("--task", default="", help="classification or detection (default: the set's first)")
  add(
    "--rule",
    default="majority",
    help="FERPlus: the labels of train are one class (majority) or a distribution (probability); "
    "validation and test use the majority class (default: %(default)s)",
  )
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


def _list(arguments: argparse.Namespace) -> int:
  from ferjax.data.datasets.catalog import COMPOSED, DATA_SETS

  if arguments.json:
    print(json.dumps([_described(data_set) for data_set in DATA_SETS.values()], indent=2))
    return 0
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


def _described(data_set: "DataSet") -> dict[str, Any]:
  return {
    "name": data_set.name,
    "title": data_set.title,
    "tasks": list(data_set.tasks),
    "classes": list(data_set.class_counts),
    "releases": [release.name for release in data_set.releases],
    "terms": data_set.terms,
    "get": data_set.request,
  }


def _check(arguments: argparse.Namespace) -> int:
  from ferjax.data.preparation.checks import check_plan, summary

  if arguments.output:
    _check_file(pathlib.Path(arguments.output))
  plan = open_plan(arguments)
  if not arguments.json:
    print_counts(plan)
  with progress_of(plan) as progress:
    findings = check_plan(plan, progress.update)
  counts = summary(findings)
  if arguments.json:
    found = {"summary": counts, "findings": _rows(findings)}
    print(json.dumps(plan.describe() | found, indent=2))
  else:
    for kind, count in counts.items():
      print(f"{kind:<11} {count:>7,}")
      print_first([finding.message for finding in findings if finding.kind == kind])
  if arguments.output:
    _write_findings(arguments.output, findings)
    if not arguments.json:
      print(f"All {len(findings):,} findings in {arguments.output}")
  return 1 if any(finding.is_error for finding in findings) else 0


def _prepare(arguments: argparse.Namespace) -> int:
  from ferjax.data.preparation.prepare import write_share

  hosts = join_hosts(arguments)
  with hosts.together():
    if hosts.index == 0:
      check_writable(arguments.output)
  with hosts.together():
    plan = open_plan(arguments)
    if hosts.index == 0 and not arguments.json:
      print_counts(plan)
    if hosts.count > 1:
      with Progress(None, task=f"host {hosts.index}: writing its share of the shards"):
        write_share(
          plan,
          arguments.output,
          index=hosts.index,
          count=hosts.count,
          wait=hosts.wait,
          on_bad_record=arguments.on_bad_record,
          drop_duplicates=arguments.drop_duplicates,
        )
  with hosts.together():
    if hosts.index == 0:
      _complete(arguments, plan)
  return 0


def _complete(arguments: argparse.Namespace, plan: "Plan") -> None:
  """Writes the shards that are not finished, and the report."""
  from ferjax.data.preparation.prepare import REPORT, prepare

  with progress_of(plan, rounds=1 if arguments.drop_duplicates == "none" else 2) as progress:

    def announce(prepared: "Prepared") -> None:
      progress.close()
      if not arguments.json:
        _print_prepared(plan, prepared)

    prepared = prepare(
      plan,
      arguments.source,
      arguments.output,
      on_bad_record=arguments.on_bad_record,
      drop_duplicates=arguments.drop_duplicates,
      progress=progress.update,
      announce=announce,
    )
  flags = _train_flags(prepared.folder, plan.options.class_names)
  if arguments.json:
    print(json.dumps(plan.describe() | _described_result(prepared, flags), indent=2))
    return
  print(f"Prepared in {prepared.folder}; see {REPORT}/ there")
  print(f"Train with {flags}")


def _described_result(prepared: "Prepared", flags: str) -> dict[str, Any]:
  return {
    "folder": str(prepared.folder),
    "records": dict(prepared.records),
    "left_out": {split: list(lines) for split, lines in prepared.left_out.items()},
    "duplicates": {split: list(lines) for split, lines in prepared.duplicates.items()},
    "train_with": flags,
  }


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
    print_first(duplicates)


def _numbers(by_split: Mapping[str, int]) -> str:
  return ", ".join(f"{split} {count:,}" for split, count in by_split.items())


def _train_flags(folder: str, class_names: tuple[str, ...]) -> str:
  """The training flags for a prepared set, quoted for a shell."""
  from ferjax.data.prepared import class_names_flag

  flags = f"--config.data.source=prepared {shlex.quote(f'--config.data.dir={folder}')}"
  is_default = class_names == SEVEN_EXPRESSIONS
  return flags if is_default else f"{flags} {class_names_flag(class_names)}"


def _check_file(path: pathlib.Path) -> None:
  """As `check_writable`, but also for special files such as /dev/stdout."""
  if path.exists() and not path.is_dir():
    path.open("ab").close()
  else:
    check_writable(path.parent, [path.name])


def _write_findings(file: str, findings: Sequence["Finding"]) -> None:
  path = pathlib.Path(file)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(_rows(findings), indent=2))


def _rows(findings: Sequence["Finding"]) -> list[dict[str, str]]:
  return [{"kind": finding.kind, "message": finding.message} for finding in findings]
