"""Writes explanations: images, attribution maps, and their description."""

import json
import os
import pathlib
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from ferjax.inference.explanation.draw import draw_explanations
from ferjax.inference.explanation.explainer import ExplainedImage
from ferjax.inference.explanation.maps import Explanation
from ferjax.inference.files import EXPLAINED, face_fields
from ferjax.output import atomic_writer, results_folder

EXPLANATIONS = "explanations.json"


class ExplanationWriter:
  """Writes an annotated sheet per image, and `explanations.json` on exit.

  Use it as a context manager: after an error or an interrupt, the explanations so far are still
  written, with `"complete": false`.
  """

  def __init__(self, output: str | os.PathLike, *, header: dict[str, Any]):
    """Creates the folder `output`; `header` holds additional fields of the JSON file.

    Raises:
      NotADirectoryError: `output` is a file.
    """
    self.output = results_folder(output)
    self.images: list[dict[str, Any]] = []
    self.skipped: list[dict[str, str]] = []
    self._header = header

  def add(self, explained: ExplainedImage, name: str | os.PathLike) -> None:
    """Writes the sheet of an image and the cells of its faces, as the relative path `name`.

    Raises:
      OSError: a file cannot be saved.
    """
    stem = pathlib.PurePath(EXPLAINED) / name
    (self.output / stem).parent.mkdir(parents=True, exist_ok=True)
    sheet = stem.with_name(f"{stem.name}.png")
    drawn = draw_explanations(explained.pixels, explained.explanations)
    Image.fromarray(drawn).save(self.output / sheet)
    faces = []
    for number, explanation in enumerate(explained.explanations, 1):
      cells = stem.with_name(f"{stem.name}.{number}.npy")
      np.save(self.output / cells, explanation.cells)
      faces.append({**_fields(explanation), "cells": cells.as_posix()})
    height, width = explained.pixels.shape[:2]
    self.images.append(
      {
        "image": explained.path,
        "width": width,
        "height": height,
        "picture": sheet.as_posix(),
        "faces": faces,
      }
    )

  @property
  def written(self) -> int:
    """The number of images with a result."""
    return len(self.images)

  def skip(self, path: str, reason: str) -> None:
    """Records an unreadable image."""
    self.skipped.append({"image": path, "reason": reason})

  def __enter__(self) -> "ExplanationWriter":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    document = {
      **self._header,
      "complete": kind is None,
      "images": self.images,
      "skipped": self.skipped,
    }
    with atomic_writer(self.output / EXPLANATIONS) as file:
      json.dump(document, file, indent=2)
      file.write("\n")


def _fields(explanation: Explanation) -> dict[str, Any]:
  fields = {
    **face_fields(explanation.face),
    "explained": explanation.target,
    "explained_score": round(explanation.score, 6),
    "layer": explanation.layer,
    "peak": explanation.peak,
    "map_to_image": explanation.to_image.round(4).tolist(),
    "seen": [round(edge, 2) for edge in explanation.view],
  }
  if explanation.theta is not None:
    fields["theta"] = explanation.theta.tolist()
  return fields
