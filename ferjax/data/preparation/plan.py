"""The plan of a preparation: the entries of every split and their counts."""

import collections
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ferjax.data.datasets.base import SPLITS, DataSet, Options, Release
from ferjax.data.datasets.entries import Entry, LayoutError
from ferjax.data.preparation.splits import VALIDATION_FRACTION, NoSplitError, choose_validation
from ferjax.data.sources import check_on_bad_record
from ferjax.expressions import UNLABELLED

_MAX_LISTED = 10  # problems in a message
UNLABELLED_NAME = "unlabelled"  # of boxes of unknown class, next to the names of the classes


@dataclasses.dataclass(frozen=True)
class Splitting:
  """The validation split of a set without one.

  Attributes:
    fraction: fraction of train used for validation; 0 for none.
    seed: of the choice.
    val_as_test: uses the released validation split as the test split, and takes a new validation
      split from train. For sets without public test labels, whose results are reported on the
      validation split.
  """

  fraction: float = VALIDATION_FRACTION
  seed: int = 0
  val_as_test: bool = False


@dataclasses.dataclass(frozen=True)
class Count:
  """A row of the table of counts; `official` is None if no count is published."""

  split: str
  name: str  # of the class, `UNLABELLED_NAME`, or "total" for records
  found: int
  official: int | None


@dataclasses.dataclass
class Plan:
  """The entries by split, with the new validation split; `counts` are from before that split."""

  data_set: DataSet
  options: Options
  release: Release
  entries: dict[str, list[Entry]]
  counts: list[Count]
  problems: list[str]
  dropped: dict[str, int]
  validation: str  # a sentence about the new validation split; "" if none was taken
  ignored: Mapping[str, int] = dataclasses.field(default_factory=dict)  # files, by suffix
  corrections: str = ""  # a sentence about corrected labels; "" if there are none

  def require_no_problems(self, on_bad_record: str) -> None:
    """Raises a LayoutError that names the first problems, unless they are to be skipped."""
    check_on_bad_record(on_bad_record)
    if self.problems and on_bad_record == "error":
      more = "\n  ..." if len(self.problems) > _MAX_LISTED else ""
      raise LayoutError(
        f"{self.data_set.title}: {len(self.problems)} bad records:\n  "
        + "\n  ".join(self.problems[:_MAX_LISTED])
        + f"{more}\nFix them, or leave them out with --on-bad-record skip"
      )

  def describe(self) -> dict[str, Any]:
    """The content of `ferjax.json` and the report."""
    return {
      "format": 1,
      "data_set": self.data_set.name,
      "title": self.data_set.title,
      "terms": self.data_set.terms,
      "release": self.release.name,
      "task": self.options.task,
      "class_names": list(self.options.class_names),
      "rule": self.options.rule,
      "margin": self.options.margin,
      "validation": self.validation,
      **({"corrections": self.corrections} if self.corrections else {}),
      "counts": [dataclasses.asdict(count) for count in self.counts],
      "dropped": self.dropped,
      "problems": self.problems,
    }


def make_plan(
  data_set: DataSet, root: str | os.PathLike, options: Options, splitting: Splitting
) -> Plan:
  """Reads the annotations of a data set; opens no image.

  Raises:
    LayoutError: a missing or malformed file, no records, or too few for the validation split.
    ValueError: an option that the set does not have.
  """
  options = data_set.complete(options)
  release, reading = data_set.read(root, options)
  entries, repeats = unique_entries(reading.entries)
  problems = [*reading.problems, *repeats]
  by_split = {split: [e for e in entries if e.split == split] for split in SPLITS}
  by_split = {split: members for split, members in by_split.items() if members}
  if not by_split:
    missing = describe_missing_records(problems, reading.dropped)
    raise LayoutError(f"{root}: no valid records of {data_set.title}{missing}")
  counts = _compare(by_split, data_set, release, options)
  try:
    by_split, validation = _split(by_split, splitting, len(options.class_names))
  except NoSplitError as error:
    missing = describe_missing_records(problems, reading.dropped)
    raise LayoutError(f"{error}{missing}") from error
  return Plan(
    data_set,
    options,
    release,
    by_split,
    counts,
    problems,
    reading.dropped,
    validation,
    ignored=reading.ignored,
  )


def describe_missing_records(problems: Sequence[str], dropped: Mapping[str, int]) -> str:
  """Lines that explain why records are missing, to append to an error about too few records."""
  lines = [
    f"left out by the set's rules: {number:,} ({reason})" for reason, number in dropped.items()
  ]
  if problems:
    more = ["  ..."] if len(problems) > _MAX_LISTED else []
    listed = [f"  {problem}" for problem in problems[:_MAX_LISTED]]
    lines += [f"{len(problems):,} records could not be read:", *listed, *more]
  return "".join(f"\n{line}" for line in lines)


def unique_entries(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
  """The first entry of each key, and a problem for each repetition."""
  first: dict[str, Entry] = {}
  repeats = []
  for entry in entries:
    if (other := first.setdefault(entry.key, entry)) is not entry:
      repeats.append(
        f"{entry.origin} ({entry.split}): already listed at {other.origin} ({other.split})"
      )
  return list(first.values()), repeats


def class_counts(entries: Iterable[Entry], class_names: Sequence[str]) -> dict[str, int]:
  """The number of labels of each class."""
  counts = collections.Counter(c for entry in entries for c in entry.classes)
  return {name: counts[index] for index, name in enumerate(class_names)}


def label_counts(entries: Sequence[Entry], class_names: Sequence[str]) -> dict[str, int]:
  """`class_counts`, and the number of boxes of unknown class if there are any."""
  unlabelled = sum(entry.classes.count(UNLABELLED) for entry in entries)
  rest = {UNLABELLED_NAME: unlabelled} if unlabelled else {}
  return {**class_counts(entries, class_names), **rest}


def _compare(
  by_split: dict[str, list[Entry]], data_set: DataSet, release: Release, options: Options
) -> list[Count]:
  official = release.official(options)
  rows = []
  for split in SPLITS:
    members, published = by_split.get(split, []), official.get(split, {})
    if not members and not published:
      continue
    for name, found in label_counts(members, options.class_names).items():
      rows.append(Count(split, name, found, published.get(name)))
    rows.append(Count(split, "total", len(members), published.get("total")))
  return rows


def _split(
  by_split: dict[str, list[Entry]], splitting: Splitting, num_classes: int
) -> tuple[dict[str, list[Entry]], str]:
  note = ""
  if splitting.val_as_test:
    if "test" in by_split or "val" not in by_split:
      raise NoSplitError(
        "--val-as-test is for a set with a validation split and without a test split; this set has "
        f"{', '.join(by_split)}"
      )
    by_split = {"train": by_split.get("train", []), "test": by_split["val"]}
    note = "The released validation split is the test split. "
  if "val" in by_split or splitting.fraction == 0 or not by_split.get("train"):
    return by_split, note
  train = by_split["train"]
  chosen = choose_validation(train, num_classes, fraction=splitting.fraction, seed=splitting.seed)
  grouped = "grouped by subject or clip" if any(e.group for e in train) else "no groups known"
  note += (
    f"{int(chosen.sum())} of {len(train)} train records are the validation split: "
    f"{splitting.fraction:.0%}, stratified, seed {splitting.seed}, {grouped}"
  )
  parts = {
    "train": [e for e, is_val in zip(train, chosen, strict=True) if not is_val],
    "val": [e for e, is_val in zip(train, chosen, strict=True) if is_val],
  }
  return {**parts, **{s: members for s, members in by_split.items() if s != "train"}}, note
