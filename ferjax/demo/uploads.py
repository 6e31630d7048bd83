"""Files that visitors upload: where they lie, how many there may be, and when they are removed."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

# Gradio reads them while it runs.
_FOLDER, _ANALYTICS = "GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"


class UploadError(ValueError):
  """An upload is not there, or is none."""


class Uploads:
  """The folder that Gradio writes uploads to."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder

  def count(self) -> int:
    """The number of files that have arrived, or are arriving, and have no answer yet."""
    return sum(len(files) for _, _, files in os.walk(self._folder))

  @contextlib.contextmanager
  def taken(self, upload: Mapping[str, Any] | None) -> Iterator[tuple[pathlib.Path, str]]:
    """The file of an upload and its name; it is removed at the end of the context.

    Args:
      upload: Gradio's description of the file, as the visitor's browser sent it; None for none.

    Raises:
      UploadError: it does not name a file in this folder.
    """
    upload = upload or {}
    path = pathlib.Path(os.path.realpath(str(upload.get("path") or "")))
    if not path.is_relative_to(self._folder) or not path.is_file():
      raise UploadError("the file is no longer here; expected an upload: choose the file again")
    try:
      yield path, str(upload.get("orig_name") or path.name)
    finally:
      path.unlink(missing_ok=True)
      with contextlib.suppress(OSError):  # the same file of another visitor
        path.parent.rmdir()


@contextlib.contextmanager
def upload_folder() -> Iterator[Uploads]:
  """A temporary folder that Gradio uses for the duration of the context, without telemetry."""
  with tempfile.TemporaryDirectory(prefix="ferjax-demo-") as folder:
    folder = os.path.realpath(folder)
    with _environment({_FOLDER: folder, _ANALYTICS: "False"}):
      yield Uploads(pathlib.Path(folder))


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
  previous = {name: os.environ.get(name) for name in values}
  os.environ.update(values)
  try:
    yield
  finally:
    for name, value in previous.items():
      if value is None:
        del os.environ[name]
      else:
        os.environ[name] = value
