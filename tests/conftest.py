"""Two fake CPU devices and strict modes for all tests, and the recorded values."""

import contextlib
import ctypes
import functools
import gc
import importlib.util
import math
import os
import pathlib

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Most programs run once: LLVM's optimisations take longer than they save. XLA's own stay on.
# In the environment too, for the programs that tests start.
if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
  os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
  jax.config.update("jax_disable_most_optimizations", True)
  # The older emitters compile in half the time. A version of XLA without this flag would not start.
  if jax.__version_info__ < (0, 11):
    os.environ["XLA_FLAGS"] = f"{os.getenv('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"

_GOLDEN = pathlib.Path(__file__).parent / "golden"


# Files that take minutes, the longest first.
_LONG = (
  "training/test_command_line.py",
  "models/test_fer_yolo_mamba_parity.py",
  "models/test_fer_yolo_mamba.py",
  "models/test_fermam_parity.py",
  "models/test_fermam_modules_parity.py",
  "models/test_emonext_parity.py",
  "commands/test_predict.py",
  "models/test_fermam.py",
  "models/test_emonext.py",
  "models/test_export.py",
  "commands/test_explain.py",
  "training/test_loop_interruption.py",
)


def pytest_configure(config):
  # `--dist loadfile` starts files with many tests first, but ours with few tests take longest.
  config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
  """Starts the longest files first, so that no worker waits for one at the end."""
  rank = {str(pathlib.Path(__file__).parent / name): i for i, name in enumerate(_LONG)}
  items.sort(key=lambda item: rank.get(str(item.path), len(rank)))


@pytest.fixture(scope="session")
def golden_rules():
  """The reader of the recorded values; it rebuilds weights and inputs from rules."""
  spec = importlib.util.spec_from_file_location("golden_rules", _GOLDEN / "golden_rules.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope="session")
def golden(golden_rules):
  """Recorded values of the released FER-YOLO-Mamba program."""
  return golden_rules.Golden(str(_GOLDEN / "fer_yolo_mamba"))


@pytest.fixture(scope="session")
def emonext_golden(golden_rules):
  """Recorded values of the released EmoNeXt program."""
  return golden_rules.Golden(str(_GOLDEN / "emonext"))


@pytest.fixture(scope="session")
def fermam_golden(golden_rules):
  """Recorded values of the released FERMam program."""
  return golden_rules.Golden(str(_GOLDEN / "fermam"))


@pytest.fixture(scope="session", autouse=True)
def cached_programs(tmp_path_factory):
  """Shares compiled programs, even small ones, between the tests of a process."""
  jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  # JAX decides at its first compilation, and only then, whether to use a cache.
  compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def trim_memory():
  """Returns freed memory to the system: glibc keeps it, and compiling a network leaves 0.6 GB."""

  def trim():
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
      ctypes.CDLL("libc.so.6").malloc_trim(0)

  return trim


@pytest.fixture(scope="module", autouse=True)
def freed_programs(trim_memory):
  """Frees the programs of finished files if they take much memory; the cache on disk has them."""
  # Not after each file: collecting garbage takes 0.1 s, and most files share many small programs.
  yield
  if _resident_memory() > _MEMORY_LIMIT:
    jax.clear_caches()
    trim_memory()


_MEMORY_LIMIT = 1.2e9  # bytes


def _resident_memory() -> float:
  """Bytes that the process has in memory; infinite where this is unknown."""
  try:
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
  except OSError:
    return math.inf
  return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="session")
def quick_options():
  """XLA options for networks that run once: they compile fastest, but run slowly."""
  options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
  faster = options | {"xla_cpu_use_fusion_emitters": False}
  try:
    jax.jit(lambda: 0, compiler_options=faster)()
  except jax.errors.JaxRuntimeError:
    return options
  return faster


@pytest.fixture(scope="session")
def jit_quickly(quick_options):
  """`jax.jit` with `quick_options`."""
  return functools.partial(jax.jit, compiler_options=quick_options)


@pytest.fixture(scope="session")
def jit_fully(quick_options):
  """`jax.jit` with all optimisations, for programs of large maps."""
  options = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
  if "xla_cpu_use_fusion_emitters" in quick_options:
    options["xla_cpu_use_fusion_emitters"] = True
  return functools.partial(jax.jit, compiler_options=options)


@pytest.fixture(scope="session")
def check_same():
  """Compares a network's outputs from two compiled programs, which add up in different orders.

  float32 has a relative error of u = 6e-8. A sum of 1000 products, with errors of random sign, is
  off by 30 u, and 100 layers of such sums by 300 u = 2e-5 of the largest output. The released
  programs differ by as much between kernels (tests/golden/README.md). 5 times that is allowed.
  """
  import numpy as np

  def check(a, b):
    b = np.asarray(b)
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max())

  return check


# By `check_same`, outputs of two programs differ by 2e-5. For logits below 20 this is 1e-4 after a
# sigmoid or softmax, whose slope is at most 1/4; for boxes of a few hundred pixels, a hundredth of
# a pixel.
SCORE_TOLERANCE, PIXELS = 1e-4, 1e-2


@pytest.fixture(scope="session")
def check_same_face():
  """Compares a face with the expected one, and its box if there is one."""

  def check(face, other):
    if other.box is not None:
      assert face.box == pytest.approx(other.box, abs=PIXELS)
    assert face.scores == pytest.approx(other.scores, abs=SCORE_TOLERANCE)
    # Another class may have the same highest score.
    assert other.scores[face.expression] == pytest.approx(other.score, abs=SCORE_TOLERANCE)

  return check


@pytest.fixture(scope="session")
def nearest():
  """Finds the most similar face."""

  def find(face, others):
    import numpy as np

    def distance(other):
      scores = np.subtract(list(face.scores.values()), list(other.scores.values()))
      return np.abs(np.subtract(face.box, other.box)).max() + np.abs(scores).max()

    return min(others, key=distance)

  return find


@pytest.fixture(scope="session")
def check_same_faces(nearest, check_same_face):
  """Each face of an image is in both lists, unless its score is at the threshold."""

  def check(faces, others, score_threshold):
    for some, rest in ((faces, others), (others, faces)):
      for face in some:
        if face.score > score_threshold + SCORE_TOLERANCE:
          check_same_face(face, nearest(face, rest))

  return check


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
  """The workdir of a nano detector for 64 pixels, saved after step 3."""
  from ferjax.data.image import IMAGENET_MEAN, IMAGENET_STD
  from ferjax.expressions import SEVEN_EXPRESSIONS

  meta = {
    "model": {"name": "fer_yolo_mamba", "size": "nano", "variant": "corrected", "dtype": "float32"},
    "task": "detection",
    "class_names": SEVEN_EXPRESSIONS,
    "image_size": 64,
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "step": 3,
  }
  return _save_checkpoint(tmp_path_factory.mktemp("tiny") / "workdir", meta, metric="map50")


@pytest.fixture(scope="session")
def classifier_checkpoint(tmp_path_factory):
  """The workdir of a nano classifier of three expressions for 32 pixels, saved after step 5."""
  meta = {
    "model": {"name": "fermam", "size": "nano", "variant": "corrected", "dtype": "float32"},
    "task": "classification",
    "class_names": ("happiness", "anger", "surprise"),
    "image_size": 32,
    "mean": (0.5, 0.4, 0.3),
    "std": (0.25, 0.3, 0.2),
    "grey": False,
    "resize": 40,
    "step": 5,
  }
  return _save_checkpoint(
    tmp_path_factory.mktemp("classifier") / "workdir", meta, metric="accuracy"
  )


@pytest.fixture(scope="session")
def simple_networks():
  """Classes of a detector and a classifier that can be computed by hand.

  A bright cell of 8 pixels is a face of its channel's class. The logit of a class is the sum of
  squares of its channel over cells of 4 pixels.
  """
  import flax.linen as nn
  import jax.numpy as jnp

  from ferjax.typing import ClassifierOutput, DetectorOutput

  class Cells(nn.Module):
    side: int

    def __call__(self, image):
      return nn.avg_pool(image, (self.side, self.side), (self.side, self.side))

  class Detector(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
      cells = Cells(8, name="neck")(image)
      objectness = 16 * (cells.max(-1, keepdims=True) - 0.7)
      box = jnp.zeros_like(cells[..., :2])
      level = [box + 0.5, box, objectness, 20 * (cells - 0.5)]
      return DetectorOutput((jnp.concatenate(level, axis=-1),))

  class Classifier(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
      logits = (Cells(4, name="map")(image) ** 2).sum((1, 2))
      return ClassifierOutput(logits, logits)

  return Detector, Classifier


# Fields of the run in a checkpoint's `meta`, which inference does not read.
_RUN_META = {"config": {}, "num_examples": 4, "num_hosts": 1, "epoch": 1.0, "data_start": 0}
_RUN_META |= {"versions": {"ferjax": "0.1.0"}}


def _random_values(shapes):
  """Random values for a network's variables, large enough that outputs differ."""
  import jax.numpy as jnp
  import numpy as np

  rng = np.random.default_rng(0)

  def fill(path, leaf):
    name = path[-1].key
    if name in ("scale", "var", "D"):
      return jnp.ones(leaf.shape)
    if name in ("bias", "mean", "A_log"):
      return jnp.zeros(leaf.shape)
    fan_in = np.prod(leaf.shape[:-1])
    return jnp.asarray(rng.standard_normal(leaf.shape) * np.sqrt(2 / fan_in), jnp.float32)

  return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(scope="session")
def random_values():
  """Fills shapes of variables with NumPy; compiling the initialisers takes long."""
  return _random_values


def _save_checkpoint(workdir, meta, *, metric):
  """Saves a checkpoint with random weights."""
  # Imported here so that tests of the data package run without these.
  import grain

  from ferjax.checkpoint import Checkpoints
  from ferjax.models import create_model
  from ferjax.training.state import init_variables

  model = create_model(num_classes=len(meta["class_names"]), **meta["model"])
  shapes = jax.eval_shape(
    lambda key: init_variables(model, key, meta["image_size"]), jax.random.key(0)
  )
  variables = _random_values(shapes)
  checkpoints = Checkpoints(workdir, keep=1, metric=metric)
  iterator = iter(grain.MapDataset.range(4).to_iter_dataset())
  checkpoints.save(
    meta["step"],
    variables=variables,
    train={"params": variables["params"]},
    iterator=iterator,
    meta=_RUN_META | meta,
    metrics=None,
  )
  checkpoints.close()
  iterator.close()
  return workdir
