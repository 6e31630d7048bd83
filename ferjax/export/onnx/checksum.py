"""A checksum in an ONNX file: the format has none, so a damaged weight would change the answers."""

import hashlib

from ferjax.export.description import ExportDescription, damaged

BLANK = "0" * 64


def with_checksum(model: bytes) -> bytes:
  """A file whose description has the field `sha256` with `BLANK`, with its checksum there."""
  return model.replace(_field(BLANK), _field(_sha256(model)), 1)


def check(model: bytes, description: ExportDescription, name: str) -> None:
  """Raises a ValueError for a file that is not as it was written.

  Args:
    model: the file.
    description: in the file; those of older versions have no checksum.
    name: of the file, for the message.
  """
  checksum = description.get("sha256", "")
  if checksum and _sha256(model.replace(_field(checksum), _field(BLANK), 1)) != checksum:
    raise damaged(name, "its content is not what was written: its checksum is another")


def _field(checksum: str) -> bytes:
  return f'"sha256": "{checksum}"'.encode()


def _sha256(model: bytes) -> str:
  return hashlib.sha256(model).hexdigest()
