"""Labelled faces to measure classifiers on: the validation part of FER2013, news photographs."""

import dataclasses
import pathlib

import numpy as np

from cards.photographs import step_of
from ferjax.data.datasets.base import Options
from ferjax.data.datasets.catalog import find_data_set
from ferjax.data.datasets.entries import Entry
from ferjax.data.examples import load
from ferjax.data.preparation.duplicates import LEAK_FREE, HashedEntry, find_dropped, signature
from ferjax.expressions import EXPRESSIONS


@dataclasses.dataclass(frozen=True)
class Faces:
  """Faces with one label each.

  Attributes:
    images: u8[h w 3].
    truth: class ids.
    class_names: in the order of the ids.
    twins: whether an image of the training part is the same or looks like it.
  """

  images: list[np.ndarray]
  truth: np.ndarray
  class_names: tuple[str, ...]
  twins: np.ndarray

  def some(self, limit: int) -> "Faces":
    """At most `limit` faces, evenly spaced; all if it is 0."""
    step = step_of(len(self.truth), limit)
    return dataclasses.replace(
      self, images=self.images[::step], truth=self.truth[::step], twins=self.twins[::step]
    )


def validation_faces(root: pathlib.Path, class_names: tuple[str, ...]) -> Faces:
  """The validation part of FER2013, with labels that suit the classes.

  Eight classes have FER+'s majority labels, seven those of FER2013. Twins are those of
  `ferjax data prepare --leak-free`.

  Args:
    root: has the tables fer2013.csv and fer2013new.csv as released.
    class_names: of the classifier.

  Raises:
    LayoutError: a table is missing, or has other content.
  """
  data_set = find_data_set("ferplus" if len(class_names) == len(EXPRESSIONS) else "fer2013")
  rule = "probability" if "rule" in data_set.takes else Options.rule
  options = Options(class_names=class_names, splits=("train", "val"), rule=rule)
  _, reading = data_set.read(root, data_set.complete(options))
  seen = [HashedEntry(entry.split, entry, signature(_image(entry))) for entry in reading.entries]
  dropped = {one.entry.key for one, _ in find_dropped(seen, LEAK_FREE)}
  own = [entry for entry in reading.entries if entry.split == "val"]
  return Faces(
    images=[_image(entry) for entry in own],
    truth=np.array([entry.classes[0] for entry in own]),
    class_names=class_names,
    twins=np.array([entry.key in dropped for entry in own]),
  )


def _image(entry: Entry) -> np.ndarray:
  return load(entry, overhang=0.0, margin=0.0).image
