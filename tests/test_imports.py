"""Import rules and file lengths, checked on the source without running it."""

import ast
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest

import ferjax

ROOT = pathlib.Path(ferjax.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = [file.relative_to(ROOT).as_posix() for file in FILES]

# What each package may import of ferjax; the neutral modules are open to all.
NEUTRAL = {
  "typing",
  "config",
  "expressions",
  "hints",
  "hosts",
  "output",
  "progress",
  "trained",
  "_version",
}
ALLOWED = {
  "ops": {"ops"},
  "models": {"models", "ops"},
  "tasks": {"tasks", "models", "ops", "fonts"},
  "data": {"data", "fonts"},
  "training": {
    "training",
    "checkpoint",
    "tasks",
    "ops",
    "models",
    "data",
    "interop",
    "weights",
    "reports",
    "compilation_cache",
    "compiler_options",
  },
  "reports": {"reports", "tasks", "fonts"},
  "interop": {"interop", "models", "checkpoint", "archives"},
  "checkpoint": {"checkpoint"},
  "weights": {"weights", "checkpoint"},
  "inference": {
    "inference",
    "weights",
    "models",
    "ops",
    "tasks",
    "data.image",
    "data.image_files",
    "data.classification.views",
    "compiler_options",
    "fonts",
  },
  "export": {
    "export",
    "archives",
    "inference",
    "weights",
    "interop",
    "models",
    "ops",
    "tasks",
    "data",
    "compiler_options",
  },
  "serving": {"serving", "inference", "data.image"},
  "audit": {"audit", "inference", "models", "data", "compiler_options"},
  "video": {"video", "inference", "tasks.plots", "fonts"},
  "demo": {"demo", "inference", "video", "data.image"},
  "commands": {
    "commands",
    "audit",
    "demo",
    "reports",
    "tasks.classification.plots",
    "export",
    "training",
    "allocator",
    "inference",
    "serving",
    "video",
    "models",
    "interop",
    "weights",
    "data",
    "compilation_cache",
    "fonts",
  },
}
JAX = {"jax", "jaxlib", "flax", "optax", "chex", "orbax"}
FORBIDDEN = {
  "ops": {"flax", "optax", "grain", "PIL", "orbax"},
  "models": {"grain", "PIL", "orbax"},
  "data": JAX,
}
HOMES = {
  "orbax": {"checkpoint/reading.py", "checkpoint/writing.py"},
  "starlette": {"serving/uploads.py", "demo/app.py"},
  "fastapi": {"serving/app.py", "serving/server.py", "serving/uploads.py", "demo/app.py"},
  "uvicorn": {"serving/server.py"},
  "prometheus_client": {"serving/app.py", "serving/metrics.py"},
  "cleanlab": {"audit/issues.py"},
  "sklearn": {"audit/out_of_fold.py"},
  "av": {f"video/{name}.py" for name in ("analysis", "annotated", "reading", "results")},
  "pyarrow": {"video/tables.py", "video/timelines.py"},
}
# The networks, and where they may be named: their modules, released names and importers.
NETWORKS = re.compile("fer_?yolo_?mamba|emonext|fermam", re.IGNORECASE)
OF_NETWORKS = (
  "models/*.py",
  "interop/*_names.py",
  "interop/branches.py",
  "interop/convnext.py",
  "weights/defaults.py",
  # Examples of configs.
  "commands/training.py",
  "commands/train_program.py",
)
ONLY_IN_FUNCTIONS = {"torch", "onnx", "onnxruntime", "gradio", "tensorflow"}


def _imports(tree):
  """(module, is at the top level) of every import, except those for type checkers only."""

  def visit(node, top):
    if isinstance(node, ast.Import):
      yield from ((alias.name, top) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, "imports are absolute"
      for alias in node.names:
        yield f"{node.module}.{alias.name}", top
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
      for child in node.orelse:
        yield from visit(child, top)
    else:
      inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
      for child in ast.iter_child_nodes(node):
        yield from visit(child, top and not inside)

  yield from visit(tree, True)


def _package(name):
  return name.split("/")[0].removesuffix(".py")


def _within(module, allowed):
  return any(module == name or module.startswith(f"{name}.") for name in allowed)


@pytest.fixture(params=NAMES, scope="module")
def source(request):
  text = (ROOT / request.param).read_text(encoding="utf-8")
  return request.param, text, ast.parse(text)


def test_layers(source):
  name, _, tree = source
  own = [
    module.removeprefix("ferjax.") for module, _ in _imports(tree) if _within(module, ["ferjax"])
  ]
  allowed = ALLOWED.get(_package(name), set()) | NEUTRAL
  assert [module for module in own if not _within(module, allowed)] == []


def test_libraries(source):
  name, _, tree = source
  for module, top in _imports(tree):
    library = module.split(".")[0]
    assert library not in FORBIDDEN.get(_package(name), ()), module
    assert name in HOMES.get(library, {name}), f"{module} belongs in {HOMES.get(library)}"
    assert not (top and library in ONLY_IN_FUNCTIONS), f"{module} at the top level"


def _length(function):
  """Lines from `def` to the end, without the docstring."""
  lines = function.end_lineno - function.lineno + 1
  if ast.get_docstring(function) is not None:
    lines -= function.body[0].end_lineno - function.body[0].lineno + 1
  return lines


def test_sizes(source):
  _, text, tree = source
  assert len(text.splitlines()) <= 350
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      assert _length(node) <= 60, node.name


def test_names(source):
  name, _, _ = source
  assert pathlib.PurePath(name).stem not in {"util", "utils", "helper", "helpers", "common", "misc"}


def _words(tree):
  """All names and strings of the code; docstrings may cite a paper."""
  docstrings = {
    node.body[0].value
    for node in ast.walk(tree)
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    and ast.get_docstring(node) is not None
  }
  for node in ast.walk(tree):
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
      yield node.value
    yield from (
      x for _, x in ast.iter_fields(node) if isinstance(x, str) and node not in docstrings
    )


def test_no_other_module_names_a_network(source):
  """Everything about one network is in its module and the registry."""
  name, _, tree = source
  if not any(pathlib.PurePath(name).match(pattern) for pattern in OF_NETWORKS):
    assert [word for word in _words(tree) if NETWORKS.search(word)] == []


def test_imports_are_found_anywhere():
  """Tests `_imports`."""
  text = """
import jax.numpy as jnp
from ferjax.ops import boxes
if TYPE_CHECKING:
  import unseen
try:
  import a
except ImportError:
  from b import c
class K:
  def f(self):
    import torch
"""
  assert list(_imports(ast.parse(text))) == [
    ("jax.numpy", True),
    ("ferjax.ops.boxes", True),
    ("a", True),
    ("b.c", True),
    ("torch", False),
  ]


def test_the_architecture_page_has_these_rules_and_existing_names():
  page = (ROOT.parent / "docs/architecture.md").read_text(encoding="utf-8")
  for package, allowed in ALLOWED.items():
    (row,) = re.findall(rf"^\| `{package}` \| (.*) \|$", page, re.MULTILINE)
    modules = {module.split(".")[0] for module in allowed} - {package}
    assert set(re.findall(r"`(\w+)`", row)) == modules, package
  for name in re.findall(r"`(ferjax\.[\w.]+)`", page):
    assert pkgutil.resolve_name(name)
  for path in re.findall(r"`(ferjax/[\w/]+\.py)`", page):
    assert (ROOT.parent / path).is_file(), path


@pytest.mark.parametrize(
  ("statement", "absent"),
  [
    (
      "import ferjax, ferjax.commands.main",
      "jax jaxlib flax orbax grain tensorflow tensorflow_datasets",
    ),
    # Imported by a program and its workers only to read or write prepared data.
    ("import ferjax.data.loading", "tensorflow tensorflow_datasets imagehash scipy"),
    (
      "import ferjax.data.preparation.prepare, ferjax.data.preparation.checks",
      "jax jaxlib flax orbax grain tensorflow",
    ),
    # grain, in the pipeline, imports jax.
    (
      "import ferjax.data.detection.augment, ferjax.data.loading",
      "jax jaxlib flax orbax grain tensorflow",
    ),
    # A start for one photograph: weights files need no orbax, and only plots need Matplotlib.
    ("import ferjax.inference.loading, ferjax.weights.saving", "orbax grain optax matplotlib"),
    # Options of `ferjax serve`; the extra is not in every installation.
    ("import ferjax.commands.serve", "jax numpy fastapi starlette uvicorn prometheus_client"),
    ("import ferjax.commands.demo", "jax numpy gradio fastapi starlette uvicorn av"),
    ("import ferjax.commands.predict, ferjax.video.source", "jax numpy av pyarrow scipy"),
    ("from ferjax import create_model", "orbax grain tensorflow tensorflow_datasets torch"),
  ],
)
def test_heavy_libraries_are_not_imported(tmp_path, statement, absent):
  code = f"import sys\n{statement}\nprint(sorted(set({absent.split()}) & set(sys.modules)))"
  result = subprocess.run(
    [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
  )
  assert result.stdout.strip() == "[]"
