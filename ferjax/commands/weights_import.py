"""The action `ferjax weights import`: checkpoints of the networks' authors become ours."""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ferjax.commands.errors import CommandError
from ferjax.commands.options import add_output
from ferjax.output import check_writable
from ferjax.progress import Progress

if TYPE_CHECKING:
  from ferjax.interop.importing import Import

_SHOWN = 3  # names in a row of the table


def add_import(actions: argparse._SubParsersAction) -> None:
  """Adds `import` to the actions of `ferjax weights`."""
  command = actions.add_parser(
    "import",
    help="import a checkpoint of the networks' authors",
    description="Writes a checkpoint that predict, eval, export and train take, and prints which "
    "entries of the file are used, which are not and why, and what is missing. Nothing is written "
    "if a required variable is missing. Torch files need the extra ferjax[torch]; no code in "
    "them is executed.",
  )
  command.set_defaults(run=_import)
  add = command.add_argument
  add("model", metavar="MODEL", help="network; `ferjax info` lists them")
  add(
    "files",
    metavar="FILE",
    help="state dict (.safetensors, .npz, .pth, .pt, .pth.tar) of the network or a part of it, or "
    "part=FILE,part=FILE",
  )
  add_output(add, "DIR", "new folder for the checkpoint")
  add("--json", action="store_true", help="print the table as JSON, with all names")
  add(
    "--initialise",
    type=_names,
    default=[],
    metavar="PART,...",
    help="parts, such as head or neck/vss_p4, of which the file may lack variables: these are "
    "initialised at random, and need training",
  )
  add("--seed", type=int, default=0, metavar="N", help="of --initialise (default: %(default)s)")
  add(
    "--ignore",
    action="append",
    default=[],
    metavar="PATTERN",
    help="entries that may be left out, such as 'aux.*'; may be repeated",
  )
  add(
    "--no-averages",
    action="store_false",
    dest="averages",
    help="take the weights from a file that also has their moving averages",
  )
  _add_description(command.add_argument_group("what the file does not say").add_argument)


def _add_description(add) -> None:
  released = "default: as in the released program"
  add("--size", metavar="SIZE", help="of the network (default: by the shapes)")
  add(
    "--variant",
    metavar="NAME",
    help="corrected or released (default: released; with --initialise, corrected)",
  )
  add("--model-options", default="", metavar="FIELD=VALUE,...", help="as config.model.options")
  add(
    "--classes",
    type=_names,
    metavar="NAME,...",
    help=f"in the order of the outputs ({released}, if it has as many)",
  )
  add("--image-size", type=int, metavar="N", help=f"pixels ({released}, or by the shapes)")
  add("--mean", type=_numbers, metavar="R,G,B", help=f"of the channels in 0..1 ({released})")
  add("--std", type=_numbers, metavar="R,G,B", help=f"of the channels in 0..1 ({released})")
  add(
    "--grey",
    action=argparse.BooleanOptionalAction,
    help=f"whether images are converted to grey ({released})",
  )
  add("--resize", type=int, metavar="N", help=f"short side before the central crop ({released})")
  add(
    "--bgr",
    action="store_true",
    help="the program reads images as blue, green, red, also in --mean and --std: the imported "
    "network takes RGB",
  )


def _names(text: str) -> list[str]:
  return [name.strip() for name in text.split(",")]


def _numbers(text: str) -> list[float]:
  """Three numbers, or one for all channels; raises an ArgumentTypeError for other text."""
  try:
    numbers = [float(x) for x in text.split(",")]
  except ValueError:
    numbers = []
  if len(numbers) not in (1, 3):
    raise argparse.ArgumentTypeError(f"{text!r} is not one number or three, such as 0.5,0.5,0.5")
  return numbers * (3 // len(numbers))


_OPTIONS = (
  "size",
  "variant",
  "model_options",
  "image_size",
  "mean",
  "std",
  "grey",
  "resize",
  "bgr",
  "initialise",
  "seed",
  "ignore",
  "averages",
)


def _import(arguments: argparse.Namespace) -> None:
  try:
    check_writable(arguments.output)
    from ferjax.interop.import_options import ImportOptions
    from ferjax.interop.importing import check_new, compare_files

    check_new(arguments.output)
    given = {name: getattr(arguments, name) for name in _OPTIONS}
    options = ImportOptions(class_names=arguments.classes, **given)
    with Progress(None, task="comparing the files with the network"):
      imported = compare_files(arguments.model, arguments.files, options)
    if not arguments.json:
      print("\n".join(_table(imported)), flush=True)
    folder, problem = None, None
    try:
      with Progress(None, task=f"writing {arguments.output}"):
        folder = imported.write(arguments.output).name
    except (ValueError, OSError) as error:
      problem = error
    if arguments.json:
      print(json.dumps(_as_json(imported, folder), indent=2, ensure_ascii=False))
    if problem is not None:
      raise problem
  except (ValueError, OSError, ImportError) as error:
    raise CommandError(error) from error
  if not arguments.json:
    print(f"written to {folder}")
  if modules := imported.initialised():
    print(
      f"ferjax: warning: {', '.join(modules)} have random values: train the network before you use "
      f"it, with --config.train.pretrained={arguments.output}",
      file=sys.stderr,
    )


def _table(imported: "Import") -> Iterable[str]:
  """Lines for people."""
  match, meta = imported.match, imported.description.meta
  for part, file in imported.files.items():
    place = f", in {file.place}" if file.place else ""
    of = f" ({part})" if part else ""
    yield f"{file.path}{of}: {len(file.entries)} entries{place}"
  yield f"network: {' '.join(_words(meta['model']))}"
  assumed = " (assumed: those of the released program)" if imported.description.assumed else ""
  if not imported.description.problem:
    yield f"classes: {', '.join(meta['class_names'])}{assumed}"
  numbers = {name: ",".join(f"{x:g}" for x in meta[name]) for name in ("mean", "std")}
  yield (
    f"input: {meta['image_size']} pixels, mean {numbers['mean']}, std {numbers['std']}, "
    f"{'grey' if meta['grey'] else 'colour'}, resize {meta['resize']}"
  )
  yield ""
  rows = [["part", "used", "initialised", "missing"]]
  for part, counts in match.by_part().items():
    rows.append([part, *(str(counts[kind]) for kind in rows[0][1:])])
  totals = (match.used, match.initialised, match.missing)
  rows.append(["all", *(str(len(x)) for x in totals)])
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for first, *others in rows:
    cells = [x.rjust(width) for x, width in zip(others, widths[1:], strict=True)]
    yield "  ".join([first.ljust(widths[0]), *cells])
  for why, names in _by_reason(imported).items():
    yield f"ignored, {why}: {len(names)} ({_first_few(names)})"
  if match.unknown:
    yield f"without a counterpart: {len(match.unknown)} ({_first_few(match.unknown)})"
  for kind in ("initialised", "missing"):
    reasons = list(getattr(match, kind).values())
    if reasons:
      yield f"{kind}: {len(reasons)} ({_first_few(reasons)})"


def _words(model: Mapping[str, Any]) -> Iterable[str]:
  yield model["name"]
  yield from (f"{field} {model[field]}" for field in ("size", "variant") if field in model)


def _ignored(imported: "Import") -> dict[str, str]:
  """Entry -> why it is not used; with the entries of the files beside the state dicts."""
  others: dict[str, str] = {}
  for file in imported.files.values():
    others |= file.others
  return others | dict(imported.match.ignored)


def _by_reason(imported: "Import") -> dict[str, list[str]]:
  reasons: dict[str, list[str]] = {}
  for name, why in _ignored(imported).items():
    reasons.setdefault(why, []).append(name)
  return reasons


def _as_json(imported: "Import", folder: str | None) -> dict[str, Any]:
  """The table for programs; `checkpoint` is None if nothing was written."""
  match = imported.match
  return {
    "files": {part: {"path": x.path, "place": x.place} for part, x in imported.files.items()},
    **imported.description.meta,
    "class_names_assumed": imported.description.assumed,
    "used": dict(match.used),
    "ignored": _ignored(imported),
    "unknown": list(match.unknown),
    "missing": dict(match.missing),
    "initialised": dict(match.initialised),
    "checkpoint": folder,
  }


def _first_few(names: Iterable[str]) -> str:
  names = list(names)
  more = len(names) - _SHOWN
  return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
