"""The subcommand `ferjax compare`: runs side by side."""

import argparse
import json
import pathlib

from ferjax.commands.errors import CommandError
from ferjax.commands.options import add_json
from ferjax.output import check_writable

_EXAMPLES = (
  "ferjax compare runs/a runs/b",
  "ferjax compare runs/a/test runs/b/test runs/c/test --report comparison.html",
)


def add_compare(commands: argparse._SubParsersAction) -> None:
  """Adds `compare` to the subcommands of a program.

  `arguments.run(arguments)` prints and writes, or raises a CommandError.
  """
  command = commands.add_parser(
    "compare",
    help="compare runs: config, metrics, and whether their difference is one",
    description="Compares the best checkpoints of runs, or the results of evaluations, on the same "
    "records: metrics with intervals, the difference of each from the first with the interval of a "
    "paired bootstrap, and the fields of the config that differ.",
    examples=_EXAMPLES,
  )
  command.set_defaults(run=_run)
  add = command.add_argument
  add(
    "runs",
    nargs="+",
    metavar="DIR",
    help="workdir, or folder with the results of `ferjax evaluate`; the others are compared with "
    "the first",
  )
  add("--report", metavar="FILE", help="also write the comparison, with curves, as one HTML file")
  add_json(add, "the comparison")


def _run(arguments: argparse.Namespace) -> None:
  try:
    report = None if arguments.report is None else pathlib.Path(arguments.report)
    if report is not None:
      check_writable(report.absolute().parent, [report.name])
    # Imported here so that `ferjax --help` does not load JAX.
    from ferjax.reports.comparison import compare
    from ferjax.reports.comparison_page import comparison_lines, write_comparison

    comparison = compare(arguments.runs)
    if report is not None:
      write_comparison(report, comparison)
  except (ValueError, OSError) as error:
    raise CommandError(error) from error
  if arguments.json:
    print(json.dumps(comparison.as_json(), indent=2))
    return
  print("\n".join(comparison_lines(comparison)))
  if report is not None:
    print(f"written to {report}")
