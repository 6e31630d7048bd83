import json

import jax
import numpy as np
import pytest

from ferjax.commands.main import main
from ferjax.interop.torch_weights import abstract_variables, export_state_dict
from ferjax.models import create_model
from ferjax.weights import open_weights


@pytest.fixture(scope="module")
def entries():
  """A small EmoNeXt in its authors' names."""
  model = create_model("emonext", num_classes=7, size="atto")
  rng = np.random.default_rng(0)
  shapes = abstract_variables(model, 32)
  return export_state_dict(
    model, jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), shapes)
  )


@pytest.fixture
def file(entries, tmp_path):
  np.savez(tmp_path / "w.npz", **{f"module.{name}": x for name, x in entries.items()})
  return str(tmp_path / "w.npz")


def test_the_table(file, tmp_path, capsys):
  folder = tmp_path / "new" / "run"
  assert main(["weights", "import", "emonext", file, "--out", str(folder)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[:4] == [
    f"{file}: 160 entries, in module.*",
    "network: emonext size atto variant released",
    "classes: anger, disgust, fear, happiness, neutral, sadness, surprise "
    "(assumed: those of the released program)",
    "input: 32 pixels, mean 0,0,0, std 1,1,1, grey, resize 0",
  ]
  assert lines[5].split() == ["part", "used", "initialised", "missing"]
  rows = {line.split()[0]: line.split()[1:] for line in lines[6:19]}
  assert rows["stn"] == ["16", "0", "0"]
  assert rows["all"] == ["158", "0", "0"]
  assert lines[19:] == [
    "ignored, a counter of BatchNorm: 2 (localization.1.num_batches_tracked, "
    "localization.5.num_batches_tracked)",
    f"written to {folder / 'checkpoints' / '0'}",
  ]
  assert open_weights(folder).meta["image_size"] == 32


def test_options_reach_the_checkpoint(file, entries, tmp_path, capsys):
  folder = tmp_path / "run"
  options = "--classes a,b,c,d,e,f,g --mean 0.5 --std 0.1,0.2,0.3 --no-grey --resize 40 --bgr"
  more = "--variant corrected --model-options drop_path_rate=0.25"
  arguments = [*options.split(), *more.split()]
  assert main(["weights", "import", "emonext", file, "--out", str(folder), *arguments]) == 0
  assert "assumed" not in capsys.readouterr().out
  opened = open_weights(folder)
  meta = opened.meta
  assert meta["class_names"] == list("abcdefg")
  assert (meta["mean"], meta["std"], meta["grey"]) == ([0.5, 0.5, 0.5], [0.3, 0.2, 0.1], False)
  assert meta["resize"] == 40
  assert (meta["model"]["variant"], meta["model"]["drop_path_rate"]) == ("corrected", 0.25)
  kernel = opened.variables()["params"]["stem"]["conv"]["kernel"]
  stem = entries["downsample_layers.0.0.weight"].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(kernel, stem[:, :, ::-1])


def test_the_table_for_programs(file, tmp_path, capsys):
  command = ["weights", "import", "emonext", file, "--out", str(tmp_path / "run"), "--json"]
  assert main([*command, "--classes", "a,b"]) == 2
  out, error = capsys.readouterr()
  assert error.startswith(f"ferjax: error: {file} lacks 2 of the 158 variables of emonext: head.")
  table = json.loads(out)
  assert table["checkpoint"] is None
  assert table["missing"]["params/head/bias"] == "head.bias: shape (7,), the network needs (2,)"
  assert table["ignored"]["head.bias"] == "another shape"
  assert not (tmp_path / "run").exists()
  assert main([*command, "--classes", "a,b", "--initialise", "head"]) == 0
  out, error = capsys.readouterr()
  assert "warning: head have random values: train the network before you use it" in error
  table = json.loads(out)
  assert table["initialised"].keys() == {"params/head/bias", "params/head/kernel"}
  assert table["used"]["norm.weight"] == "params/norm/scale"
  assert len(table["used"]) == 156
  assert table["missing"] == {}
  assert table["unknown"] == []
  assert table["files"] == {"": {"path": file, "place": "module.*"}}
  assert table["checkpoint"] == str(tmp_path / "run" / "checkpoints" / "0")


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["emonex", "{file}"], "unknown model 'emonex'; known: "),
    (["fermam", "{file}"], "w.npz is a checkpoint of emonext, not of fermam"),
    (["emonext", "none.npz"], "no weights at 'none.npz'"),
    (["emonext", "{file}", "--size", "tiny"], "size is 'tiny', but the shapes are those of 'atto'"),
    (["emonext", "{file}", "--variant", "best"], "unknown variant 'best' of emonext"),
    (["emonext", "{file}", "--initialise", "hed"], "no part 'hed' to initialise"),
    (["emonext", "{file}", "--out", "{file}"], "is a file; expected a folder"),
  ],
)
def test_wrong_input(file, tmp_path, arguments, message, capsys):
  given = [argument.format(file=file) for argument in arguments]
  given += [] if "--out" in given else ["--out", str(tmp_path / "run")]
  assert main(["weights", "import", *given]) == 2
  error = capsys.readouterr().err
  assert error.startswith("ferjax: error: ")
  assert message in error
  assert len(error.splitlines()) == 1
  assert not (tmp_path / "run").exists()


def test_a_folder_with_checkpoints(file, tmp_path, capsys):
  (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
  assert main(["weights", "import", "emonext", file, "--out", str(tmp_path / "run")]) == 2
  out, error = capsys.readouterr()
  assert "has checkpoints already; name another folder" in error
  assert out == ""


def test_a_number_that_is_none(file, tmp_path, capsys):
  with pytest.raises(SystemExit):
    main(["weights", "import", "emonext", file, "--out", str(tmp_path / "run"), "--mean", "a,b"])
  assert "'a,b' is not one number or three, such as 0.5,0.5,0.5" in capsys.readouterr().err
