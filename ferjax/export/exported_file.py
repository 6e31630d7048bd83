"""An exported file that contains a program."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ferjax.export.description import ExportDescription


class ExportedFile(NamedTuple):
  """An open file.

  Attributes:
    description: of the network and its program.
    call: (image u8[b h w c]) for a classifier, and for a detector (image, placement f32[b 6],
      score threshold, IoU threshold), for any batch size -> name of each output -> array.
    digest: SHA-256 of the file.
  """

  description: ExportDescription
  call: Callable[..., dict[str, Any]]
  digest: str = ""
