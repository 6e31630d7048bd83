"""From the authors' files to checkpoints of ferjax."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import ferjax
from ferjax.checkpoint import open_checkpoint
from ferjax.interop.import_options import ImportOptions
from ferjax.interop.importing import compare_files
from ferjax.interop.torch_weights import import_state_dict
from ferjax.models import create_model
from ferjax.weights import save_weights

# Embeddings, and the fourth stage of an IR-50.
UNUSED = ("ir_back.output_layer.", "ir_back.body.21.", "face_landback.output_layer.")
REST = ("image_proj", "conv_ssm", "fusion", "gate", "head")


def saved(path, entries):
  save_file({name: np.ascontiguousarray(x) for name, x in entries.items()}, path)
  return str(path)


@pytest.fixture
def emonext_file(tmp_path, emonext_atto):
  parallel = {f"module.{name}": x for name, x in emonext_atto.items()}
  return saved(tmp_path / "w.safetensors", parallel)


def test_a_whole_network_becomes_a_checkpoint(tmp_path, emonext_file, emonext_atto):
  imported = compare_files("emonext", emonext_file)
  checkpoint = imported.write(tmp_path / "run")
  model = create_model("emonext", num_classes=7, size="atto", variant="released")
  assert imported.model == model
  assert checkpoint.build_model(create_model) == model
  assert checkpoint.step == 0
  assert checkpoint.meta["config"] == {}
  assert "initialised" not in checkpoint.meta
  ours = ferjax.load_variables(tmp_path / "run", step="latest")
  jax.tree.map(np.testing.assert_array_equal, ours, import_state_dict(model, emonext_atto))
  assert open_checkpoint(tmp_path / "run" / "checkpoints" / "0").meta == checkpoint.meta
  with pytest.raises(FileExistsError, match="run has checkpoints already; name another folder"):
    imported.write(tmp_path / "run")


def test_a_part_of_a_network(tmp_path, ir50_nano, mobilefacenet_nano):
  """Which part a file has is found out; the others must be named to be initialised."""
  image = saved(tmp_path / "image.safetensors", ir50_nano)
  landmark = saved(tmp_path / "landmark.safetensors", mobilefacenet_nano)
  alone = compare_files("fermam", image)
  assert list(alone.files) == ["image"]
  message = (
    r"image.safetensors lacks 202 of the 262 variables of fermam: conv_ssm, fusion, gate, head, "
    r"image_proj, landmark\. .*--config.train.pretrained=image=\S*image.safetensors, .*"
    r"--initialise conv_ssm,fusion,gate,head,image_proj,landmark$"
  )
  with pytest.raises(ValueError, match=message):
    alone.check()
  options = ImportOptions(initialise=REST, class_names=("a", "b"))
  both = compare_files("fermam", f"image={image},landmark={landmark}", options)
  both.check()
  assert both.initialised() == sorted(REST)
  assert both.description.meta["model"]["variant"] == "corrected"
  unused = {x: why for x, why in both.match.ignored.items() if "counter" not in why}
  assert set(unused.values()) == {"a layer whose output is not used"}
  assert unused.keys() == {
    x for x in both.entries if x.startswith(UNUSED) and not x.endswith("num_batches_tracked")
  }
  entry = "face_landback.conv_34.conv.conv.weight"
  assert both.match.used[entry] == "params/landmark/down1/expand/conv/kernel"
  assert both.entries[entry] is both.files["landmark"].entries["conv_34.conv.conv.weight"]


def test_a_head_for_other_classes(tmp_path, emonext_file, emonext_atto):
  """It must be initialised, and the checkpoint says that it is."""
  other = compare_files("emonext", emonext_file, ImportOptions(class_names=("a", "b")))
  message = r"head.bias: shape \(7,\), the network needs \(2,\).* Its head is for 7 classes, not 2"
  with pytest.raises(ValueError, match=message):
    other.write(tmp_path / "run")
  assert not (tmp_path / "run").exists()
  options = ImportOptions(class_names=("a", "b"), initialise=("head",))
  checkpoint = compare_files("emonext", emonext_file, options).write(tmp_path / "run")
  assert checkpoint.meta["initialised"] == ["head"]
  assert checkpoint.meta["model"]["variant"] == "corrected"
  params = checkpoint.variables()["params"]
  assert params["head"]["kernel"].shape == (320, 2)
  np.testing.assert_array_equal(params["norm"]["scale"], emonext_atto["norm.weight"])
  with pytest.warns(UserWarning, match=r"run.* was imported from a part .*, and head have random"):
    ferjax.load_predictor(tmp_path / "run")
  weights = save_weights(checkpoint, tmp_path / "w.safetensors")
  assert weights.meta["initialised"] == ["head"]


def test_layers_of_another_network(tmp_path, emonext_atto):
  file = saved(tmp_path / "w.safetensors", emonext_atto | {"aux.weight": np.zeros(1)})
  message = r"has 1 entries of layers that emonext does not have: aux.weight\. .* --ignore PATTERN"
  with pytest.raises(ValueError, match=message):
    compare_files("emonext", file).check()
  compare_files("emonext", file, ImportOptions(ignore=("aux.*",))).check()


def test_files_of_other_networks(tmp_path, emonext_file, mobilefacenet_nano):
  with pytest.raises(ValueError, match="checkpoint of emonext, not of fermam; import it with"):
    compare_files("fermam", emonext_file)
  landmark = saved(tmp_path / "landmark.safetensors", mobilefacenet_nano)
  with pytest.raises(
    ValueError, match="is not a checkpoint of fermam, part image: its 142 entries"
  ):
    compare_files("fermam", f"image={landmark}")
  with pytest.raises(ValueError, match="emonext has no file for the part 'image'; expected FILE"):
    compare_files("emonext", f"image={emonext_file}")
  file = saved(tmp_path / "resnet.safetensors", {"fc.weight": np.zeros(3, np.float32)})
  with pytest.raises(ValueError, match=r"not a checkpoint of emonext: its 1 .* such as fc\.weight"):
    compare_files("emonext", file)
  own = saved(tmp_path / "own.safetensors", {"params/head/kernel": np.zeros(3, np.float32)})
  with pytest.raises(ValueError, match="the variables of ferjax itself, and needs no import"):
    compare_files("emonext", own)
  with pytest.raises(ValueError, match="no file is named"):
    compare_files("emonext", "")
