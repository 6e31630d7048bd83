"""The Python blocks of each page run, in their order, with small files and networks.

docs/reuse.md, docs/quickstart.md and docs/own_data.md have tests of their own.
"""

import doc_pages
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import ferjax
from ferjax.export import export_network
from ferjax.interop.torch_weights import export_state_dict
from ferjax.weights import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR, save_weights

pytestmark = pytest.mark.usefixtures("cached_programs")

OTHER_TESTS = {"docs/reuse.md", "docs/quickstart.md", "docs/own_data.md"}
# Their networks have the published sizes: they are traced, which shows shapes, but not compiled.
TRACED = {
  "docs/emonext.md": {"faces": (2, 224, 224, 3)},
  "docs/fer_yolo_mamba.md": {"images": (2, 320, 320, 3)},
  "docs/fermam.md": {"faces": (2, 224, 224, 3)},
}
DRAWINGS = "docs/synthetic.md"
PAGES = {
  name: page
  for page in doc_pages.pages()
  if (name := doc_pages.name_of(page)) not in OTHER_TESTS and doc_pages.program(page).strip()
}


@pytest.fixture
def place(tiny_checkpoint, classifier_checkpoint, tmp_path, monkeypatch):
  """The current folder, with the files that the pages name."""
  rng = np.random.default_rng(0)
  for name in ("a.jpg", "b.png", "face.jpg", "photo.jpg"):
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / name)
  (tmp_path / "runs").mkdir()
  for name, checkpoint in (
    ("demo", tiny_checkpoint),
    ("detector", tiny_checkpoint),
    ("classifier", classifier_checkpoint),
  ):
    (tmp_path / "runs" / name).symlink_to(checkpoint)
  (tmp_path / "weights").mkdir()
  for name, checkpoint in (
    (DEFAULT_DETECTOR, tiny_checkpoint),
    (DEFAULT_CLASSIFIER, classifier_checkpoint),
  ):
    save_weights(checkpoint, tmp_path / "weights" / f"{name}.safetensors")
  monkeypatch.setenv("FERJAX_WEIGHTS", str(tmp_path / "weights"))
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture
def exported(place):
  """The programs of docs/export.md."""
  export_network("runs/classifier", "onnx", "faces.onnx")
  export_network("runs/demo", "stablehlo", "detector.stablehlo")


@pytest.fixture
def released(place, random_values):
  """A file with the names of the released EmoNeXt, for three classes."""
  model = ferjax.create_model("emonext", num_classes=3, size="atto")
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
  )
  entries = export_state_dict(model, random_values(shapes))
  save_file({name: np.ascontiguousarray(x) for name, x in entries.items()}, "best.safetensors")


@pytest.fixture
def film(place):
  """Three frames of noise."""
  import av

  rng = np.random.default_rng(0)
  with av.open("film.mp4", "w") as container:
    stream = container.add_stream("mpeg4", rate=5)
    stream.width = stream.height = 64
    for _ in range(3):
      pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    container.mux(stream.encode(None))


FIXTURES = {"docs/export.md": "exported", "docs/import.md": "released", "docs/video.md": "film"}


@pytest.mark.slow  # seconds to half a minute each, most of it compiling
@pytest.mark.parametrize("name", sorted(PAGES.keys() - TRACED.keys() - {DRAWINGS}))
def test_blocks_run(name, place, request, capsys):
  if name in FIXTURES:
    request.getfixturevalue(FIXTURES[name])
  given = {
    "images": jnp.zeros((2, 64, 64, 3)),
    "class_names": [f"class {i}" for i in range(7)],
    "variables": ferjax.load_variables("runs/demo"),
  }
  names = doc_pages.run(PAGES[name], given)
  printed = capsys.readouterr().out.splitlines()
  if name == "docs/prediction.md":
    assert "face.jpg" not in names
    assert any(line.startswith(("happiness", "anger", "surprise")) for line in printed)


@pytest.mark.parametrize("name", TRACED)
def test_blocks_of_large_networks(name):
  names = {}

  def trace(inputs):
    names.update(doc_pages.run(PAGES[name], inputs))
    return names["output"]

  shapes = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in TRACED[name].items()}
  output = jax.eval_shape(trace, shapes)
  if name == "docs/fer_yolo_mamba.md":
    assert names["shapes"] == [(2, n, n, 12) for n in (40, 20, 10)]
    assert [level.shape for level in output.levels] == names["shapes"]
  else:
    features = {"docs/emonext.md": 768, "docs/fermam.md": 512}[name]
    assert (output.logits.shape, output.features.shape) == ((2, 7), (2, features))


def test_blocks_of_drawings():
  record = doc_pages.run(PAGES[DRAWINGS], {})["record"]
  assert record["image"].shape == (320, 320, 3)
  assert record["boxes"].shape == (len(record["label"]), 4)
