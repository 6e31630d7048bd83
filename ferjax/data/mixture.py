"""Training on several sources, each with a fixed share of the examples.

`DataConfig.sources` has a text for each: the name and share of the source, then the fields of
`DataConfig` that describe it.

    "composed_scenes=0.6"    "annotation_list=0.4,dir=/data/photographs,train=list.txt"
"""

import dataclasses
import itertools
import math
import re
import typing
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float

from ferjax.config import DataConfig
from ferjax.data.datasets.entries import RecordError
from ferjax.data.image import ImageError
from ferjax.data.sources import LabelledSource, Source

# Fields that describe one data set; a part that is not `data.source` starts from their defaults.
_OF_SET = ("dir", "csv", "train", "rule", "margin")
_FIELDS = (*_OF_SET, "train_examples", "min_faces", "max_faces")
_SEPARATOR = re.compile(r",(?=\w+=)")  # a path may contain other commas
_SHARE = re.compile(r"\d*\.?\d+|\d+/0*[1-9]\d*")
_FORM = "SOURCE=SHARE,field=value,..."
_MAX_PERIOD = 100_000  # examples after which the order of the sources repeats


@dataclasses.dataclass(frozen=True)
class Part:
  """A source of a mixture: its text, its share of the examples, and the config that opens it."""

  text: str
  share: Fraction
  config: DataConfig


def parse_sources(config: DataConfig) -> list[Part]:
  """The parts of `config.sources`; none for an empty tuple.

  Raises:
    ValueError: malformed text, an unknown field or value, or shares that do not add up to 1.
  """
  parts = [_parse(text, config) for text in config.sources]
  total = sum(part.share for part in parts)
  if parts and total != 1:
    shares = ", ".join(str(part.share) for part in parts)
    raise ValueError(f"data.sources: the shares {shares} add up to {total}; expected 1")
  if math.lcm(*(part.share.denominator for part in parts)) > _MAX_PERIOD:
    raise ValueError(
      f"data.sources is {config.sources}; expected shares with at most five decimals, or simple "
      "fractions such as 1/3"
    )
  return parts


def _parse(text: str, config: DataConfig) -> Part:
  first, *rest = _SEPARATOR.split(text)
  name, _, written = (word.strip() for word in first.partition("="))
  share = Fraction(written) if _SHARE.fullmatch(written) else Fraction(0)
  if not name or not 0 < share <= 1:
    raise ValueError(
      f"data.sources: {text!r} starts with {first!r}; expected {_FORM}, with a share above 0 and "
      "at most 1, such as 0.4 or 1/3"
    )
  values: dict[str, Any] = {}
  if name != config.source:
    values = {field: getattr(DataConfig(), field) for field in _OF_SET}
  fields = [entry.partition("=")[::2] for entry in rest]
  for field, value in fields:
    if field not in _FIELDS or [known for known, _ in fields].count(field) > 1:
      raise ValueError(
        f"data.sources: {text!r} sets {field}; expected each of these at most once: "
        f"{', '.join(_FIELDS)}"
      )
    kind = typing.get_type_hints(DataConfig)[field]
    try:
      values[field] = kind(value)
    except ValueError as error:
      raise ValueError(
        f"data.sources: {text!r} sets {field} to {value!r}; expected a number"
      ) from error
  return Part(text, share, dataclasses.replace(config, sources=(), source=name, **values))


def without_folders(sources: Sequence[str]) -> tuple[str, ...]:
  """The texts without `dir`: data may be moved during a run, as with `data.dir`."""
  return tuple(
    ",".join(entry for entry in _SEPARATOR.split(text) if not entry.startswith("dir="))
    for text in sources
  )


class MixedSource:
  """The records of several sources, one source after the other.

  The length is the number of all records. `ferjax.data.samplers.order_of` gives each source its
  share of the training examples, whatever its number of records.

  Attributes:
    parts: the sources.
    shares: of the training examples; they add up to 1.
    starts: index of the first record of each source.

  Raises:
    ValueError: sources of different tasks or classes; the message says which differ.
  """

  def __init__(self, parts: Sequence[Source], shares: Sequence[Fraction], names: Sequence[str]):
    """Combines sources; `names` are for messages."""
    self.parts, self.shares, self._names = tuple(parts), tuple(shares), tuple(names)
    first = self.parts[0]
    self.task, self.class_names = first.task, first.class_names
    for part, name in zip(self.parts, self._names, strict=True):
      if part.task != self.task:
        raise ValueError(
          f"data.sources: {self._names[0]} has records for {self.task}, but {name} for "
          f"{part.task}; expected sources of one task"
        )
      if part.class_names != self.class_names:
        raise ValueError(
          f"data.sources: {self._names[0]} has the classes {', '.join(self.class_names)}, but "
          f"{name} has {', '.join(part.class_names)}; {self._difference(part)}"
        )
    self.skipped = [
      f"{name}: {reason}"
      for part, name in zip(self.parts, self._names, strict=True)
      for reason in part.skipped
    ]
    ends = list(itertools.accumulate(map(len, self.parts)))
    self.starts, self._length = (0, *ends[:-1]), ends[-1]

  def _difference(self, part: Source) -> str:
    differing = sorted(set(self.class_names) ^ set(part.class_names))
    return f"only one has {', '.join(differing)}" if differing else "expected the same order"

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: int) -> Any:
    number, place = self._locate(index)
    try:
      return self.parts[number][place]
    except (ImageError, RecordError) as error:
      raise type(error)(f"{self._names[number]}: {error}") from error

  def origin(self, index: int) -> str:
    """The origin of a record, with its source: "voc in /data/a: Annotations/1.xml (1.jpg)"."""
    number, place = self._locate(index)
    return f"{self._names[number]}: {self.parts[number].origin(place)}"

  @property
  def box_counts(self) -> list[int] | None:
    """The number of boxes of each class; None if a source does not know them."""
    counts: list[list[int] | None] = [getattr(part, "box_counts", None) for part in self.parts]
    known = [x for x in counts if x is not None]
    return np.sum(known, axis=0).tolist() if len(known) == len(counts) else None

  def describe(self) -> str:
    """A line about the sources: "3/5 from voc in /data/a (200 records), 2/5 from ..."."""
    rows = zip(self.shares, self._names, self.parts, strict=True)
    return ", ".join(f"{share} from {name} ({len(part)} records)" for share, name, part in rows)

  def name(self, number: int) -> str:
    """The name of a source in messages."""
    return self._names[number]

  def _locate(self, index: int) -> tuple[int, int]:
    """The number of a source, and the index of the record in it."""
    if not 0 <= index < self._length:
      raise IndexError(f"record {index} of {self._length}")
    number = int(np.searchsorted(self.starts, index, side="right")) - 1
    return number, index - self.starts[number]


class MixedFaces(MixedSource):
  """Faces of several sources, with their label distributions."""

  parts: tuple[LabelledSource, ...]

  @property
  def labels(self) -> Float[np.ndarray, "n k"]:
    """Labels of all records, in order; decodes nothing."""
    return np.concatenate([part.labels for part in self.parts])
