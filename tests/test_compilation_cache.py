import os

import jax
import pytest

from ferjax.compilation_cache import enable_compilation_cache


@pytest.fixture(autouse=True)
def unset(monkeypatch):
  """No folder is set before or after the test."""
  before = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", None)
  monkeypatch.delenv("FERJAX_COMPILATION_CACHE", raising=False)
  yield
  jax.config.update("jax_compilation_cache_dir", before)


def test_the_default_folder(monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  folder = enable_compilation_cache()
  assert folder == str(tmp_path / "ferjax" / "jax")
  assert jax.config.jax_compilation_cache_dir == folder
  assert os.path.isdir(folder)


def test_without_xdg_it_is_below_home(monkeypatch, tmp_path):
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setenv("HOME", str(tmp_path))
  assert enable_compilation_cache() == str(tmp_path / ".cache" / "ferjax" / "jax")


def test_a_user_defined_folder(monkeypatch, tmp_path):
  monkeypatch.setenv("FERJAX_COMPILATION_CACHE", str(tmp_path / "own"))
  assert enable_compilation_cache() == str(tmp_path / "own")


def test_off(monkeypatch):
  monkeypatch.setenv("FERJAX_COMPILATION_CACHE", "off")
  assert enable_compilation_cache() is None
  assert jax.config.jax_compilation_cache_dir is None


def test_the_folder_given_to_jax_stays(monkeypatch, tmp_path):
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "jax"))
  monkeypatch.setenv("FERJAX_COMPILATION_CACHE", str(tmp_path / "own"))
  assert enable_compilation_cache() == str(tmp_path / "jax")
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jax")


def test_a_file_is_an_error(monkeypatch, tmp_path):
  (tmp_path / "file").touch()
  monkeypatch.setenv("FERJAX_COMPILATION_CACHE", str(tmp_path / "file"))
  with pytest.raises(ValueError, match=r"FERJAX_COMPILATION_CACHE=.*expected a folder, or 'off'"):
    enable_compilation_cache()


def test_a_read_only_home_is_not_an_error(monkeypatch, tmp_path):
  def refuse(*_, **__):
    raise PermissionError("read-only")

  monkeypatch.setattr("pathlib.Path.mkdir", refuse)
  assert enable_compilation_cache() is None


def test_no_home_is_not_an_error(monkeypatch):
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setenv("HOME", "/dev/null")
  assert enable_compilation_cache() is None
  assert jax.config.jax_compilation_cache_dir is None


def test_an_existing_read_only_folder_is_not_used(monkeypatch, tmp_path):
  """JAX would warn about every program that it cannot save."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr("os.access", lambda *_: False)
  assert enable_compilation_cache() is None
  assert jax.config.jax_compilation_cache_dir is None
