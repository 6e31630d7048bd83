"""An on-disk cache of compiled programs: later starts do not compile again."""

import os
import pathlib

import jax

VARIABLE = "FERJAX_COMPILATION_CACHE"


def enable_compilation_cache() -> str | None:
  """Enables JAX's persistent compilation cache; returns its folder, or None if it stays off.

  The folder is `ferjax/jax` below `$XDG_CACHE_HOME` (`~/.cache` if not set). The environment
  variable FERJAX_COMPILATION_CACHE sets another folder, or disables the cache with "off". A folder
  set with JAX's JAX_COMPILATION_CACHE_DIR takes precedence. Call this before the first compilation.

  Raises:
    ValueError: FERJAX_COMPILATION_CACHE is a file.
  """
  given = jax.config.values["jax_compilation_cache_dir"]
  if given is not None:
    return given
  chosen = os.environ.get(VARIABLE, "")
  if chosen.lower() == "off":
    return None
  folder = pathlib.Path(chosen).expanduser() if chosen else _default_folder()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    # Without a home that can be written (as in containers), compile again instead of failing.
    if not chosen:
      return None
    if isinstance(error, FileExistsError | NotADirectoryError):
      raise ValueError(
        f"{VARIABLE}={chosen}: cannot be a folder ({error}); expected a folder, or 'off'"
      ) from error
    raise
  if not chosen and not os.access(folder, os.W_OK):
    return None  # JAX would warn about every program that it cannot save
  jax.config.update("jax_compilation_cache_dir", str(folder))
  return str(folder)


def _default_folder() -> pathlib.Path:
  base = os.environ.get("XDG_CACHE_HOME", "")
  return (pathlib.Path(base) if base else pathlib.Path("~/.cache").expanduser()) / "ferjax" / "jax"
