import json
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from ferjax.config import Config
from ferjax.models import create_model
from ferjax.models.options import model_arguments
from ferjax.training.command_line import check_overrides, flag_error_message
from ferjax.training.config_checks import validate

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = str(ROOT / "configs" / "fer_yolo_mamba.py")


@pytest.mark.parametrize(
  "arguments",
  [
    [],
    [f"--config={CONFIG}:tiny", "--config.train.epochs=3"],
    ["--config", CONFIG, "-config.data.augment.flip", "0.1"],
  ],
)
def test_overrides_of_known_fields(arguments):
  check_overrides(["train.py", *arguments])


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("--config.train.foo=1", "unknown field config.train.foo; known fields of config.train: seed,"),
    ("--config.speed=1", "known fields of config: model, data, optimizer, train, loss, eval"),
    (
      "--config.train.seed.x=1",
      "unknown field config.train.seed.x; config.train.seed is one value",
    ),
    ("--config.train=1", "config.train is a group of fields: seed, seeds, epochs"),
  ],
)
def test_overrides_of_unknown_fields(argument, message):
  with pytest.raises(ValueError, match=message):
    check_overrides(["train.py", argument])


@pytest.mark.parametrize(
  ("field", "value", "expected"),
  [
    ("train.epochs", "1.0", "a whole number of at most 64 bits"),
    ("optimizer.momentum", "a: b", "a number"),
    ("data.grey", "a", "True or False"),
    ("data.class_names", "(1,", "a tuple of strings, such as ('a', 'b')"),
  ],
)
def test_unparsable_values(field, value, expected):
  argv = ["train.py", f"--config.{field}={value}"]
  values = flags.FlagValues()
  config_flags.DEFINE_config_dataclass("config", Config(), flag_values=values, sys_argv=argv)
  with pytest.raises(flags.IllegalFlagValueError) as error:
    values(argv)
  assert flag_error_message(error.value) == f"flag --config.{field}={value}: expected {expected}"


# How ml_collections imports a config file.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_model_options_flag_reaches_the_network():
  argv = [
    "train.py",
    f"--config={ROOT / 'configs' / 'fermam.py'}:tiny",
    "--config.model.options=mode=conv_only,dropout_rate=0.25",
  ]
  check_overrides(argv)
  values = flags.FlagValues()
  config = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
  values(argv)
  validate(config.value)
  model = create_model(num_classes=7, **model_arguments(config.value.model))
  assert (model.size, model.mode, model.dropout_rate) == ("nano", "conv_only", 0.25)


def test_missing_config_files():
  for arguments in (["--config", "nope.py:tiny"], ["--config=nope.py"]):
    with pytest.raises(
      FileNotFoundError, match=r"no config file 'nope.py'; try a file in configs/"
    ):
      check_overrides(["train.py", *arguments])


def program(name, *arguments, **environment):
  return subprocess.run(
    [sys.executable, str(ROOT / name), *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, **environment},
  )


def test_dashes_in_names_of_flags(tmp_path):
  """`--num-hosts` is `--num_hosts`, which is refused on a single host."""
  done = program(
    "train.py", f"--config={CONFIG}:tiny", f"--workdir={tmp_path / 'run'}", "--num-hosts=2"
  )
  assert done.returncode == 2
  assert "--coordinator, --num-hosts and --host are for runs on several hosts" in done.stderr


def test_user_errors_give_one_message(tmp_path):
  weights = tmp_path / "weights.safetensors"
  weights.write_bytes(b"error page: not found")
  for arguments, message in (
    ([f"--config={CONFIG}:nope"], "error: unknown variant 'nope' of fer_yolo_mamba; known: "),
    ([f"--config={CONFIG}:tiny", f"--config.train.pretrained={weights}"], "cannot be read: "),
  ):
    done = program("train.py", *arguments, "--workdir", tmp_path / "run")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
  done = program("eval.py", "--workdir", tmp_path / "run", FERJAX_TRACEBACK="1")
  assert done.returncode == 1  # of Python
  assert "Traceback" in done.stderr
  assert "no checkpoint in" in done.stderr


def loads(text):
  """JSON, with nan as text, because nan is not equal to nan."""
  return json.loads(text, parse_constant=str)


DISK_FULL = """
import pathlib, runpy, sys
from ferjax.training import evaluation

def fail(*_, **__):
  metrics, folder = {"map50": 0.25}, pathlib.Path("out")
  report = evaluation.Report(metrics, pathlib.Path("中性"), folder, "", content=metrics)
  raise evaluation.ReportError(report, OSError("no space left"))

evaluation.open_evaluation = fail
"""
SCRIPT = """
sys.argv = ["eval.py", "--workdir", "run"]
runpy.run_path(EVAL, run_name="__main__")
"""
COMMAND = """
from ferjax.commands.main import main
main(["evaluate", "--workdir", "run", "--json", "--quiet"])
"""


@pytest.mark.parametrize(
  ("run", "printed"),
  [
    (SCRIPT, "\\u4e2d\\u6027\n  map50      0.2500\n"),
    (COMMAND, '{\n  "map50": 0.25,\n  "folder": "out"\n}\n'),
  ],
)
def test_metrics_are_printed_even_if_they_cannot_be_written(tmp_path, run, printed):
  """The terminal's encoding lacks the characters of the checkpoint's name."""
  code = DISK_FULL + run.replace("EVAL", repr(str(ROOT / "eval.py")))
  done = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=False,
    cwd=tmp_path,
    env={**os.environ, "PYTHONIOENCODING": "ascii"},
  )
  assert done.returncode == 2
  assert done.stdout == printed
  assert "error: the report cannot be written to out: no space left" in done.stderr
  assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
  ("network", "names", "plots", "options"),
  [
    (
      "emonext",
      ("accuracy", "macro_f1", "loss"),
      ("reliability.png", "mistakes.png"),
      ("--robustness_images=0",),  # underscores in the names of flags
    ),
    pytest.param(
      "fer_yolo_mamba",
      ("map50", "map", "loss", "num_boxes"),
      ("precision_recall.png",),
      ("--robustness",),
      marks=pytest.mark.slow,
    ),
  ],
)
def test_training_and_evaluation_from_the_shell(tmp_path, network, names, plots, options):
  """Also that both give the same metrics of the same checkpoint."""
  environment = {
    "FERJAX_COMPILATION_CACHE": str(tmp_path / "cache"),
    # Compiling takes nearly all of the time, and much of it is for random numbers.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
  }
  config = f"--config={ROOT / 'configs' / network}.py:tiny"
  done = program("train.py", config, "--workdir", tmp_path / "run", **environment)
  assert done.returncode == 0, done.stderr
  assert "Traceback" not in done.stderr
  assert list((tmp_path / "cache").iterdir())
  record = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  assert {"train/loss", "train/learning_rate", "train/grad_norm"} <= record[0].keys()

  done = program("eval.py", "--workdir", tmp_path / "run", "--json", *options, **environment)
  assert done.returncode == 0, done.stderr
  folder = tmp_path / "run" / "eval"
  files = {x.stem: loads(x.read_text()) for x in folder.glob("*.json")}
  assert ("groups" in files) == (network == "emonext")  # faces are drawn with attributes
  assert ("robustness" in files) == ("--robustness" in options)
  results = files.pop("eval")
  assert loads(done.stdout) == results | files | {"folder": str(folder)}
  (trained,) = [x for x in record if x["step"] == results["step"] and f"eval/{names[0]}" in x]
  for name in names:
    assert float(results[name]) == pytest.approx(trained[f"eval/{name}"], rel=1e-5)
  for plot in ("confusion.png", *plots):
    assert (folder / plot).read_bytes().startswith(b"\x89PNG")
