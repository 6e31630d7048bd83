import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ferjax.interop.pretrained import import_pretrained, read_pretrained
from ferjax.interop.torch_weights import export_state_dict
from ferjax.models import create_model


@pytest.fixture(scope="module")
def emonext():
  """The smallest network, its variables as zeros, and a random released checkpoint."""
  model = create_model("emonext", num_classes=7, size="atto")
  shapes = jax.eval_shape(
    lambda key: model.init(key, jnp.zeros((1, 32, 32, 3)), train=False), jax.random.key(0)
  )
  variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  rng = np.random.default_rng(0)
  released = {
    name: rng.standard_normal(x.shape).astype(np.float32)
    for name, x in export_state_dict(model, variables).items()
  }
  return model, variables, released


def test_files_by_part(tmp_path):
  for name, value in (("a", 1.0), ("b", 2.0)):
    np.savez(tmp_path / f"{name}.npz", x=np.float32(value))
  a, b = tmp_path / "a.npz", tmp_path / "b.npz"
  assert read_pretrained("") == {}
  assert read_pretrained(str(a))[""]["x"] == 1
  both = read_pretrained(f"image={a},landmark={b}")
  assert {part: float(found["x"]) for part, found in both.items()} == {"image": 1, "landmark": 2}
  for files in (f"{a},{b}", f"image={a},image={b}", f"image={a},{b}"):
    with pytest.raises(ValueError, match="expected one file, or part=FILE"):
      read_pretrained(files)


def test_a_checkpoint_of_the_whole_network(emonext):
  model, variables, released = emonext
  found, (line,) = import_pretrained(model, {"": released}, variables, ("backbone",))
  back = export_state_dict(model, found)
  for name in ("head.weight", "fc_loc.0.weight", "stages.2.1.dwconv.weight"):
    np.testing.assert_array_equal(back[name], released[name])
  assert "all entries" in line


def test_imagenet_weights_of_the_trunk(emonext):
  model, variables, released = emonext
  trunk = {
    name: x
    for name, x in released.items()
    if name.startswith(("stages.", "norm."))
    or (name.startswith("downsample_layers.") and name.split(".")[2] in "01")
  }
  trunk |= {"head.weight": np.ones((1000, 320), np.float32), "head.bias": np.ones(1000, np.float32)}
  found, (line,) = import_pretrained(model, {"": trunk}, variables, ("backbone",))
  back = export_state_dict(model, found)
  np.testing.assert_array_equal(
    back["stages.0.1.pwconv1.weight"], trunk["stages.0.1.pwconv1.weight"]
  )
  assert not back["head.weight"].any()
  assert "ignored: head.weight, head.bias" in line


def test_a_part_that_the_network_cannot_import(emonext):
  model, variables, released = emonext
  message = "names the part 'image', which EmoNeXt cannot import; expected: FILE$"
  with pytest.raises(ValueError, match=message):
    import_pretrained(model, {"image": released}, variables, ())
