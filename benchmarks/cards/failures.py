"""Portraits of the London set for which a prediction is wrong; they may be shown with credit."""

from collections.abc import Sequence

import numpy as np

from cards.counting import found_once
from cards.photographs import Portrait
from ferjax.data.image import decode
from ferjax.inference.draw import draw_faces
from ferjax.inference.results import Prediction

MOST = 8


def failures(
  predictions: Sequence[Prediction], portraits: Sequence[Portrait]
) -> list[tuple[int, str]]:
  """The indices of wrong predictions, with what is wrong.

  First the portraits without exactly one box on the face, then those whose expression is not the
  posed one, in order of decreasing score.
  """
  boxes, expressions = [], []
  for number, (prediction, portrait) in enumerate(zip(predictions, portraits, strict=True)):
    if not found_once(prediction, portrait.boxes[0].tolist()):
      boxes.append((number, _boxes(len(prediction.faces))))
    elif prediction.faces[0].expression != portrait.label:
      expressions.append((number, f"posed: {portrait.label}"))
  expressions.sort(key=lambda item: -predictions[item[0]].faces[0].score)
  return boxes + expressions


def _boxes(number: int) -> str:
  return {0: "no box", 1: "a box beside the face"}.get(number, f"{number} boxes")


def drawn(
  predictions: Sequence[Prediction],
  portraits: Sequence[Portrait],
  chosen: Sequence[tuple[int, str]],
) -> list[tuple[np.ndarray, str]]:
  """The first chosen portraits with their boxes and labels, and the captions."""
  return [
    (draw_faces(decode(portraits[number].path), predictions[number].faces), caption)
    for number, caption in chosen[:MOST]
  ]
