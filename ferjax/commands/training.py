"""The subcommands `ferjax train` and `ferjax evaluate`: the programs train.py and eval.py."""

import argparse
import importlib
import importlib.resources
import importlib.util
import os
import pathlib
from collections.abc import Iterable, Sequence

from ferjax.commands.errors import CommandError
from ferjax.commands.options import Add, add_json
from ferjax.commands.parser import messages
from ferjax.weights.defaults import DEFAULT_CLASSIFIER

PROGRAMS = {
  "train": "ferjax.commands.train_program",
  "evaluate": "ferjax.commands.eval_program",
}
_CONFIG = (
  "name of a config of this package with its variant, such as emonext:demo, or a file, such as "
  "mine.py:large"
)
_SHORT = {"-q": "--quiet", "-v": "--verbose"}
_COMMON = ("--quiet", "--verbose", "--debug")


def add_train(commands: argparse._SubParsersAction) -> None:
  """Adds the help of `train`; `run_program` runs it."""
  command = commands.add_parser(
    "train",
    help="train a network, or resume a run",
    description="Trains a network; the same command goes on with an interrupted run. Fields of the "
    "config are set by --config.GROUP.FIELD=VALUE; an unknown one lists those that there are.",
    examples=(
      "ferjax train --config emonext:demo --workdir runs/demo",
      "ferjax train --config fermam:folder --workdir runs/mine --config.data.dir=/data/faces",
      "ferjax train --replay runs/demo/incidents/nonfinite_120.json",
    ),
  )
  add = command.add_argument
  add("--config", metavar="NAME:VARIANT", help=_CONFIG)
  add("--workdir", metavar="DIR", help="folder for checkpoints, metrics and logs")
  add("--replay", metavar="FILE", help="compute a step again that went wrong: DIR/incidents/...")
  _add_host_options(add)


def add_evaluate(commands: argparse._SubParsersAction) -> None:
  """Adds the help of `evaluate`; `run_program` runs it."""
  command = commands.add_parser(
    "evaluate",
    help="evaluate weights on a data set",
    description="Prints the metrics of weights on the validation data of their training, or on "
    "those of --config, and writes them with plots.",
    examples=(
      "ferjax evaluate --workdir runs/mine --report mine.html",
      f"ferjax evaluate --checkpoint {DEFAULT_CLASSIFIER} --output results "
      "--config fermam:folder --config.data.dir=/data/faces",
      "ferjax evaluate --workdir runs/mine --robustness --robustness-images 500",
      "ferjax evaluate --workdir runs/mine --json --quiet | jq .accuracy",
    ),
  )
  add = command.add_argument
  add("--workdir", metavar="DIR", help="of a run, whose best checkpoint is evaluated")
  add("--checkpoint", metavar="WEIGHTS", help="checkpoint, weights file or name of known weights")
  add("--step", metavar="N", help="of the checkpoint: a number, best or latest")
  add("--config", metavar="NAME:VARIANT", help=f"of the data: {_CONFIG}")
  add("--split", choices=("val", "test"), help="default: val")
  add("--output", metavar="DIR", help="folder for the results (default: eval/ in the workdir)")
  add("--report", metavar="FILE", help="also write the results and images as one HTML file")
  add("--robustness", action="store_true", help="also evaluate distorted images: 35 or 40 passes")
  add("--robustness-images", type=int, metavar="N", help="size of a sample for it (default: all)")
  add_json(add, "the metrics")
  _add_host_options(add)


def _add_host_options(add: Add) -> None:
  add("--distributed", action="store_true", help="run on several hosts")
  add("--coordinator", metavar="HOST:PORT", help="of host 0, if JAX cannot detect it")
  add("--num-hosts", type=int, metavar="N", help="number of hosts; with --coordinator")
  add("--host", type=int, metavar="I", help="number of this host, from 0; with --coordinator")


def program_of(words: Sequence[str]) -> str:
  """The program that the command line runs; "" if it is another command, or asks for help."""
  name = next((word for word in words if not word.startswith("-")), "")
  return name if name in PROGRAMS and not {"-h", "--help"} & set(words) else ""


def run_program(name: str, words: Sequence[str]) -> None:
  """Runs `train` or `evaluate`, whose flags absl parses; it ends with SystemExit.

  Raises:
    CommandError: the config is neither a file nor a known name.
  """
  given = [_SHORT.get(word, word) for word in words]
  given.remove(name)
  flags = with_config_files(word for word in given if word not in _COMMON)
  common = argparse.Namespace(**{x[2:]: x in given for x in (*_COMMON, "--json")})
  if common.verbose:
    flags.append("--verbosity=0")
  if common.debug:
    os.environ["FERJAX_TRACEBACK"] = "1"
  with messages(common):
    from ferjax.training import command_line

    program = importlib.import_module(PROGRAMS[name])
    command_line.run(program.main, [f"ferjax {name}", *flags])


def with_config_files(flags: Iterable[str]) -> list[str]:
  """The flags, with the file of each config of this package instead of its name.

  Raises:
    CommandError: a config is neither a file nor a known name.
  """
  found, is_value = [], False
  for flag in flags:
    name, equals, value = flag.partition("=")
    if is_value:
      found.append(_config_file(flag))
    elif name in ("--config", "-config") and equals:
      found.append(f"--config={_config_file(value)}")
    else:
      found.append(flag)
    is_value = flag in ("--config", "-config")
  return found


def _config_file(config: str) -> str:
  """`emonext:demo` -> `FOLDER/emonext.py:demo`."""
  name, colon, variant = config.partition(":")
  if name.endswith(".py") or os.path.exists(name):
    return config
  folder = configs_folder()
  known = sorted(file.stem for file in folder.glob("*.py"))
  if name not in known:
    raise CommandError(
      f"no config {name!r}; expected a file NAME.py, or one of this package: {', '.join(known)}"
    )
  return f"{folder / name}.py{colon}{variant}"


def configs_folder() -> pathlib.Path:
  """The configs of this package: the folder `configs` of a checkout."""
  if importlib.util.find_spec("ferjax.configs") is None:
    return pathlib.Path(__file__).parents[2] / "configs"
  return pathlib.Path(
    str(importlib.resources.files("ferjax.configs").joinpath("emonext.py"))
  ).parent
