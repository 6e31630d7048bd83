"""The documentation as a site. From the root of the repository, whose Markdown files are its pages:

  sphinx-build -W --keep-going -n -b html -c docs . docs/_build
  sphinx-build -b linkcheck -c docs . docs/_build/linkcheck

The source folder is the root, so that relative links to README.md or benchmarks/ are those of the
plain files. Links to files that are no pages, such as programs, download a copy.
"""

import importlib.util
import pathlib

_ROOT = pathlib.Path(__file__).parents[1]


def _version() -> str:
  path = _ROOT / "ferjax" / "_version.py"
  spec = importlib.util.spec_from_file_location("version", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.__version__


project = "ferjax"
author = "the ferjax developers"
version = release = _version()

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = [
  "*.md",
  "docs/**.md",
  "benchmarks/results/*.md",
  "examples/web/README.md",
  "examples/notebooks/README.md",
  "fuzz/README.md",
  "tests/golden/README.md",
  "tests/photographs/CREDITS.md",
]
exclude_patterns = ["docs/_build", "**/node_modules", ".*", "build", "dist", "runs"]

myst_heading_anchors = 4
highlight_language = "none"  # of blocks without a language: commands, tables, folders

html_theme = "furo"
html_title = f"ferjax {release}"
html_extra_path = ["redirect"]
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_show_copyright = False
html_copy_source = False
