"""The release script's check of versions."""

import importlib.util
import pathlib
import sys

import pytest

import ferjax

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def release():
  spec = importlib.util.spec_from_file_location("release_script", ROOT / "scripts" / "release.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_versions_of_the_repository_agree(release):
  assert release.agreed_version(ROOT) == ferjax.__version__


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (("CITATION.cff", "version: 1.2.3", "version: 1.2.2"), "the versions differ: .*1.2.2"),
    (("CHANGELOG.md", "2026-01-02", "unreleased"), "CHANGELOG.md: no version"),
  ],
)
def test_versions_that_differ(release, tmp_path, change, message):
  (tmp_path / "ferjax").mkdir()
  (tmp_path / "ferjax" / "_version.py").write_text('__version__ = "1.2.3"\n')
  (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.3] - 2026-01-02\n")
  (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.3\n")
  assert release.agreed_version(tmp_path) == "1.2.3"
  name, old, new = change
  text = (tmp_path / name).read_text()
  assert old in text
  (tmp_path / name).write_text(text.replace(old, new))
  with pytest.raises(release.ReleaseError, match=message):
    release.agreed_version(tmp_path)


def test_a_failed_command_is_named_with_its_output(release, tmp_path):
  command = [sys.executable, "-c", "print('reason'); raise SystemExit(3)"]
  with pytest.raises(release.ReleaseError, match=r"exit code 3:\nreason"):
    release.run(command, tmp_path)
  assert release.run([sys.executable, "-c", "print(7)"], tmp_path) == "7\n"
