import contextlib
import os
import pathlib

import pytest

from ferjax.demo.uploads import UploadError, upload_folder


@pytest.fixture
def uploads(monkeypatch):
  monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "before")
  monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
  with upload_folder() as uploads:
    yield uploads


@pytest.fixture
def upload(uploads):
  """An upload, where Gradio would put it."""
  path = pathlib.Path(os.environ["GRADIO_TEMP_DIR"]) / "0123" / "a.png"
  path.parent.mkdir()
  path.write_bytes(b"content")
  return path


def test_an_upload_is_removed_after_its_answer(uploads, upload):
  assert uploads.count() == 1
  with uploads.taken({"path": str(upload), "orig_name": "ä.png"}) as (path, name):
    assert (path.read_bytes(), name) == (b"content", "ä.png")
  assert not upload.parent.exists()
  assert uploads.count() == 0


def test_an_upload_is_removed_after_an_error(uploads, upload):
  with contextlib.suppress(RuntimeError), uploads.taken({"path": str(upload)}) as (_, name):
    assert name == "a.png"
    raise RuntimeError
  assert uploads.count() == 0


def test_another_file_of_the_same_content_stays(uploads, upload):
  other = upload.with_name("b.png")
  other.write_bytes(b"content")
  with uploads.taken({"path": str(upload)}):
    pass
  assert other.exists()


def test_only_files_of_the_folder_are_taken(uploads, upload, tmp_path):
  secret = tmp_path / "secret"
  secret.write_text("secret")
  link = upload.with_name("link")
  link.symlink_to(secret)
  for path in (secret, link, upload.parent / ".." / ".." / "x", upload.parent, "", None):
    with pytest.raises(UploadError, match="choose the file again"), uploads.taken({"path": path}):
      pytest.fail(f"{path} was taken")
  for other in ({"url": "http://127.0.0.1/"}, None):
    with pytest.raises(UploadError), uploads.taken(other):
      pytest.fail(f"{other} was taken")
  assert secret.exists()


def test_the_folder_and_the_environment_are_restored(monkeypatch):
  monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "before")
  monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
  with contextlib.suppress(RuntimeError), upload_folder():
    folder = pathlib.Path(os.environ["GRADIO_TEMP_DIR"])
    assert folder.is_dir()
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    (folder / "file").touch()
    raise RuntimeError
  assert not folder.exists()
  assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "before"
  assert "GRADIO_TEMP_DIR" not in os.environ
