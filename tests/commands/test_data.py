"""`ferjax data` on the command line."""

import json
import pathlib
import re
import shlex
import subprocess

import pytest
from absl import flags
from ml_collections import config_flags
from PIL import Image

from ferjax.commands.data import add_data
from ferjax.commands.errors import CommandError
from ferjax.commands.main import main
from ferjax.commands.parser import CommandParser
from ferjax.config import Config
from ferjax.data.datasets.catalog import DATA_SETS
from ferjax.data.preparation import prepare as preparation
from ferjax.data.preparation.duplicates import DROP_DUPLICATES
from ferjax.data.prepared import open_prepared
from ferjax.expressions import SEVEN_EXPRESSIONS


@pytest.fixture
def run(capsys):
  """Arguments -> (exit code, printed text)."""

  def call(*arguments):
    parser = CommandParser()
    add_data(parser.add_subparsers(required=True))
    parsed = parser.parse_args(["data", *map(str, arguments)])
    return parsed.run(parsed), capsys.readouterr().out

  return call


@pytest.fixture
def folder(tmp_path):
  """A table of 70 images, two of which are equal."""
  (tmp_path / "faces").mkdir()
  rows = ["image,label,split,person"]
  for i in range(70):
    level = 2 * (i if i < 69 else 0)
    Image.linear_gradient("L").rotate(level).resize((40, 40)).save(tmp_path / f"faces/{i}.png")
    rows.append(f"faces/{i}.png,{SEVEN_EXPRESSIONS[i % 7]},train,p{i // 2}")
  (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
  return tmp_path


def test_list_names_all_sets_with_terms_and_request(run):
  code, text = run("list")
  assert code == 0
  for data_set in DATA_SETS.values():
    assert f"{data_set.name}: {data_set.title}\n" in text
    assert data_set.terms in text
    assert data_set.request in text
  assert "composed_scenes: faces of a set for classification, pasted" in text


def test_prepare_reports_the_result(run, folder):
  code, text = run(
    "prepare", "csv", "--source", folder, "--out", folder / "out", "--validation", 0.2
  )
  assert code == 0
  lines = [line.split() for line in text.splitlines()]
  assert ["train", "happiness", "10", "-"] in lines
  assert ["train", "total", "70", "-"] in lines
  assert "14 of 70 train records are the validation split: 20%, stratified, seed 0, grouped" in text
  assert "train 56, val 14 records" in text
  assert text.endswith(f" --config.data.dir={folder}/out/csv/classification_7/1.0.0\n")
  assert len(open_prepared(folder / "out", "val", SEVEN_EXPRESSIONS)) == 14


def test_other_files_are_counted(run, tmp_path):
  for i in range(20):
    path = tmp_path / "train" / ("fear", "anger")[i % 2] / f"{i}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").rotate(9 * i).resize((40, 40)).save(path)
  for name in ("notes.pdf", "more.pdf", "Thumbs.db", "._0.png"):
    (tmp_path / "train/fear" / name).write_bytes(b"x")
  code, text = run("check", "image_folder", "--source", tmp_path)
  assert code == 0
  assert "2 files ignored: 2 .pdf\n" in text


def test_check_counts_findings_and_exits_with_1(run, folder):
  code, text = run("check", "csv", "--source", folder, "--out", folder / "findings.json")
  assert code == 1
  assert "duplicate         1\n" in text
  findings = json.loads((folder / "findings.json").read_text())
  (duplicate,) = [f["message"] for f in findings if f["kind"] == "duplicate"]
  assert "labels.csv:71 (faces/69.png) is the same image as" in duplicate
  (folder / "labels.csv").write_text(
    "\n".join((folder / "labels.csv").read_text().splitlines()[:-1]) + "\n"
  )
  code, text = run("check", "csv", "--source", folder)
  assert code == 0
  assert "duplicate         0\n" in text


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("nothing",), "unknown data set 'nothing'; known: raf_db, affectnet"),
    (("csv", "--file", "train"), "--file 'train'; expected train=FILE"),
    (("csv", "--classes", "7", "--class-names", "a,b"), "are mutually exclusive"),
    (("csv", "--validation", "2"), r"validation fraction \(2.0\) must be between 0 and 1"),
    (
      ("csv", "--class-names", "happy,,sad"),
      "--class-names happy,,sad; expected unique, non-empty",
    ),
    (("csv", "--class-names", "a,b,a"), "--class-names a,b,a; expected unique, non-empty names"),
    (
      ("csv", "--rule", "probability"),
      r"--rule is given \('probability'\), but does not apply to CSV",
    ),
    (("raf_db", "--table", "x.csv"), r"--table is given \('x.csv'\), but does not apply to RAF-DB"),
    (("raf_db", "--file", "train=x"), r"--file is given .* but does not apply to RAF-DB"),
    (("csv", "--margin", "-1"), "--margin -1.0; expected 0 or more"),
    (
      ("csv", "--margin", "0.2"),
      "--margin 0.2 is for faces that are cropped from photographs; CSV",
    ),
    (("csv", "--seed", "-1"), r"seed \(-1\) of the validation split must not be negative"),
    (
      ("raf_db",),
      r"does not have the layout of RAF-DB:\n  missing .*\n  missing .*\nRequest it from",
    ),
  ],
)
def test_wrong_arguments(run, folder, arguments, message):
  with pytest.raises(CommandError, match=message):
    run("check", *arguments, "--source", folder)


def test_remote_source_is_refused(run, folder):
  with pytest.raises(CommandError, match=r"labels.csv is a file; expected the folder"):
    run("check", "csv", "--source", folder / "labels.csv")
  with pytest.raises(CommandError, match=r"gs://bucket/faces is not a local path; copy the data"):
    run("check", "csv", "--source", "gs://bucket/faces")
  with pytest.raises(
    CommandError, match=r"--out gs://bucket/out: shards are written to local files"
  ):
    run("prepare", "csv", "--source", folder, "--out", "gs://bucket/out")


@pytest.mark.parametrize(
  "others", [("boredom",), ("l'ennui", 'a "b" \\c', "$HOME", "d&e; f", "$1 \\foo$", "ennui é")]
)
def test_the_printed_flags_work_in_a_shell_and_in_training(run, folder, others):
  """Names and folders with special characters of shells."""
  names, out = (*SEVEN_EXPRESSIONS, *others), folder / 'o\'ut [1] $HOME "x"'
  code, text = run(
    *("prepare", "csv", "--source", folder, "--out", out, "--class-names", ",".join(names)),
  )
  assert code == 0
  line = text.splitlines()[-1]
  assert line.startswith("Train with --config.data.source=prepared ")
  shell = ["sh", "-c", f"printf '%s\\0' {line.removeprefix('Train with ')}"]
  arguments = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
  arguments = arguments.split("\0")[:-1]
  assert shlex.split(line)[2:] == arguments
  values, argv = flags.FlagValues(), ["train.py", *arguments]
  config_flags.DEFINE_config_dataclass("config", Config(), flag_values=values, sys_argv=argv)
  values(argv)
  data = values.config.data
  assert (data.source, data.class_names) == ("prepared", names)
  assert len(open_prepared(data.dir, "val", names)) == 6


def test_prepare_lists_dropped_duplicates(run, folder):
  """The last image is the first, with another label and another person."""
  given = ("prepare", "csv", "--source", folder, "--out", folder / "out", "--validation", 0)
  code, text = run(*given, "--drop-duplicates", "conflicting")
  assert code == 0
  first, last = ("train: labels.csv:2 (faces/0.png)", "train: labels.csv:71 (faces/69.png)")
  at = text.splitlines().index("train 68 records")
  assert text.splitlines()[at + 1 : at + 4] == [
    "duplicates dropped: train 2; report/duplicates.txt lists them",
    f"  {first} is the same image as {last}, with another label: none is kept",
    f"  {last} is the same image as {first}, with another label: none is kept",
  ]
  with pytest.raises(SystemExit):
    run(*given, "--drop-duplicates", "some")
  with pytest.raises(SystemExit):
    run(*given, "--drop-duplicates", "all", "--leak-free")


def test_leak_free_is_a_mode_to_drop_duplicates(run, folder, monkeypatch):
  modes = []

  def prepare(plan, source, out, *, drop_duplicates, **rest):
    modes.append(drop_duplicates)
    raise ValueError("nothing is written")

  monkeypatch.setattr("ferjax.data.preparation.prepare.prepare", prepare)
  for option in ("--leak-free", "--drop-duplicates=leak-free", "--validation=0"):
    with pytest.raises(CommandError, match="nothing is written"):
      run("prepare", "csv", "--source", folder, "--out", folder / "out", option)
  assert modes == ["leak-free", "leak-free", "none"]


def test_every_mode_to_drop_duplicates_is_a_choice(capsys):
  with pytest.raises(SystemExit):
    main(["data", "prepare", "--help"])
  assert f"--drop-duplicates {{{','.join(DROP_DUPLICATES)}}}" in capsys.readouterr().out


def test_outputs_are_checked_before_anything_is_read(run, folder):
  """The source does not exist either, but that is not reported."""
  given = ("csv", "--source", folder / "nowhere")
  table = folder / "labels.csv"
  for command, out, message in (
    ("check", folder, f"{folder}: is a folder; expected to write a file there"),
    ("check", table / "findings.json", f"{table}: is a file; expected a folder for the results"),
    ("prepare", table, f"{table}: is a file; expected a folder for the results"),
    ("prepare", table / "out", f"{table / 'out'}: results cannot be written there (Not a direct"),
  ):
    with pytest.raises(CommandError, match=re.escape(message)):
      run(command, *given, "--out", out)
  for out in (folder / "new" / "deep" / "findings.json", folder / "new" / "out"):
    with pytest.raises(CommandError, match=r"folder not found: .*nowhere"):
      run("check" if out.suffix else "prepare", *given, "--out", out)
  assert not (folder / "new").exists()


def test_findings_are_printed_even_if_they_cannot_be_written(run, folder, capsys):
  with pytest.raises(CommandError, match="No space left on device"):
    run("check", "csv", "--source", folder, "--out", "/dev/full")
  assert "duplicate         1\n" in capsys.readouterr().out


def test_records_are_counted_even_if_the_report_cannot_be_written(run, folder, capsys, monkeypatch):
  def full(*arguments):
    raise OSError("no space left")

  monkeypatch.setattr(preparation, "write_report", full)
  with pytest.raises(CommandError, match="no space left"):
    run("prepare", "csv", "--source", folder, "--out", folder / "out", "--validation", 0.2)
  assert "train 56, val 14 records" in capsys.readouterr().out


def test_json_for_programs(run, folder):
  options = ("csv", "--source", folder, "--validation", 0.2, "--json")
  code, text = run("check", *options)
  checked = json.loads(text)
  assert code == 1  # equal images with two labels
  assert (checked["data_set"], checked["task"]) == ("csv", "classification")
  assert checked["summary"]["duplicate"] == 1
  assert sum(checked["summary"].values()) == len(checked["findings"])
  assert {"split": "train", "name": "neutral", "found": 10, "official": None} in checked["counts"]
  _, text = run("prepare", *options, "--out", folder / "out")
  prepared = json.loads(text)
  assert prepared["records"] == {"train": 56, "val": 14}
  assert pathlib.Path(prepared["folder"]).is_relative_to(folder / "out")
  assert prepared["train_with"].startswith("--config.data.source=prepared --config.data.dir=")


def test_exit_codes_of_the_program(folder, capsys):
  assert main(["data", "check", "raf_db", "--source", str(folder)]) == 2
  assert (
    f"ferjax: error: {folder} does not have the layout of RAF-DB:\n  missing"
    in capsys.readouterr().err
  )
  assert main(["data", "check", "csv", "--source", str(folder)]) == 1
  assert main(["data", "list"]) == 0
