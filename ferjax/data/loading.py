"""Sources of training and evaluation, as a config names them."""

import dataclasses
import os
from collections.abc import Sequence

from absl import logging

from ferjax.config import DataConfig
from ferjax.data.classification.views import short_side
from ferjax.data.datasets.base import SPLITS, DataSet, Options, Reading
from ferjax.data.datasets.catalog import DATA_SETS, DRAWN, PREPARED
from ferjax.data.datasets.entries import Entry, LayoutError, RecordError
from ferjax.data.image_files import describe_passed_over
from ferjax.data.preparation.plan import describe_absent, without_doubles
from ferjax.data.preparation.splits import NoSplitError, choose_validation
from ferjax.data.prepared import holds_prepared, is_prepared, open_prepared
from ferjax.data.sources import (
  Opening,
  ReleasedDetection,
  ReleasedFaces,
  Source,
  check_on_bad_record,
  class_counts,
)
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.data.synthetic.scenes import SyntheticScenes

_NAMED = 10  # skipped records listed in the log
_WITHOUT_DATA = {
  "detection": "the source 'synthetic' needs no data",
  "classification": "the source 'synthetic_faces' needs no data",
}


def source_names(task: str = "") -> tuple[str, ...]:
  """What `data.source` may be, for a task or at all: drawn, the data sets, prepared."""
  tasks = dict(zip(DRAWN, ("detection", "classification"), strict=True))
  drawn = [name for name in DRAWN if task in ("", tasks[name])]
  sets = [name for name, data_set in DATA_SETS.items() if not task or task in data_set.tasks]
  return (*drawn, *sets, PREPARED)


def load_source(
  config: DataConfig, split: str, *, seed: int = 0, task: str = "", validates: bool = True
) -> Source:
  """The examples of a split, as the config names them.

  Args:
    config: `train`, `val` and `test` name the annotation list, image set, folder, or value in the
      table's column, in data of one's own; else one of the set's splits. Empty means the one
      called like `split`.
    split: "train", "val" or "test".
    seed: of synthetic images; splits and seeds have no images in common.
    task: of the model, "detection" or "classification"; "" for the set's first.
    validates: whether the validation split is used; if not, data of one's own without one keep all
      of train.

  Raises:
    ValueError: the config names no data, unknown data, or missing or malformed data.
  """
  if config.source not in source_names():
    raise ValueError(f"unknown data.source {config.source!r}; known: {', '.join(source_names())}")
  if split not in SPLITS:
    raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
  class_names = tuple(config.class_names)
  if config.source in DRAWN:
    return _drawn(config, split, seed, class_names)
  data_set = DATA_SETS.get(config.source)
  if not config.dir:
    raise ValueError(_without_dir(config.source, data_set, task))
  name = getattr(config, split) or split
  choices = {"rule": config.rule, "margin": config.margin}
  choices = {field: x for field, x in choices.items() if x != getattr(Options(), field)}
  if data_set is None:
    return open_prepared(config.dir, name, class_names, choices=choices)
  options = Options(task=task, class_names=class_names, **choices)
  if "table" in data_set.takes:
    options = dataclasses.replace(options, table=config.csv)
  if "files" in data_set.takes:
    files = {s: getattr(config, s) for s in SPLITS if getattr(config, s)}
    options = dataclasses.replace(options, files=files)
  if lies_prepared(data_set, config.dir, options):
    return open_prepared(
      config.dir, name, class_names, name=data_set.name, task=task, choices=choices
    )
  if "files" not in data_set.takes:
    if name not in SPLITS:
      raise ValueError(f"unknown split {name!r} of {data_set.title}; known: {', '.join(SPLITS)}")
    split = name
  return open_released(
    data_set, config.dir, split, options, on_bad_record=config.on_bad_record, validates=validates
  )


def lies_prepared(data_set: DataSet, dir: str | os.PathLike, options: Options) -> bool:
  """Whether a folder holds a set as `ferjax data prepare` wrote it, and not as it was released."""
  if is_prepared(dir):
    return True
  try:
    data_set.find_release(dir, data_set.complete(options))
  except LayoutError:
    return holds_prepared(dir, data_set.name, options.task)
  return False


def open_released(
  data_set: DataSet,
  dir: str | os.PathLike,
  split: str,
  options: Options,
  *,
  on_bad_record: str = "error",
  validates: bool = True,
) -> ReleasedFaces | ReleasedDetection:
  """A split of a data set as it was released.

  A set without a validation split gets one, cut from train: always the same, and the same as
  `ferjax data prepare` cuts.

  Args:
    data_set: what lies in the folder.
    dir: the folder.
    split: "train", "val" or "test".
    options: what may be chosen.
    on_bad_record: "error", or "skip" to leave bad records out.
    validates: as for `load_source`.

  Raises:
    LayoutError: a missing or malformed file, or no such split.
    RecordError: of the first bad record ("error").
    ValueError: a choice that the set does not have, or too little to cut validation from.
  """
  check_on_bad_record(on_bad_record)
  options = data_set.complete(options)
  reading = _read(data_set, dir, split, options)
  if "val" not in reading.splits and (
    split == "val" or (split == "train" and (validates or data_set.class_counts))
  ):
    if split == "val":
      reading = _read(data_set, dir, "train", options)
    entries, problems = _cut(reading, split, len(options.class_names))
  else:
    entries, problems = reading.entries, reading.problems
  origin = f"{os.fspath(dir)} ({split})"
  _require_no_problems(problems, len(entries), origin, on_bad_record)
  if not entries:
    there = ", ".join(sorted(reading.splits)) or "none"
    raise LayoutError(
      f"{origin}: {data_set.title} has no records of this split; splits there: {there} (name "
      f"another by --config.data.{split}=NAME)"
    )
  opening = Opening(data_set.overhang, options.margin)
  if options.task == "detection":
    return ReleasedDetection(entries, options.class_names, problems, opening)
  source = ReleasedFaces(entries, options.class_names, problems, opening)
  counts = zip(options.class_names, class_counts(source.labels), strict=True)
  shown = ", ".join(f"{name} {count}" for name, count in counts)
  logging.info("%s: %d images: %s", origin, len(source), shown)
  return source


def _read(data_set: DataSet, dir: str | os.PathLike, split: str, options: Options) -> Reading:
  """A split as it was released; its number is compared with the published one."""
  options = dataclasses.replace(options, splits=(split,))
  release, reading = data_set.read(dir, options)
  if passed_over := describe_passed_over(reading.passed_over):
    logging.info("%s (%s): %s", os.fspath(dir), split, passed_over)
  official = release.official(options).get(split, {}).get("total")
  found = len(reading.entries) + len(reading.unreadable)
  if official is not None and found:
    level = logging.INFO if found == official else logging.WARNING
    message = "%s: found %d %s records in %s, officially %d"
    logging.log(level, message, data_set.title, found, split, os.fspath(dir), official)
  return reading


def _cut(reading: Reading, split: str, num_classes: int) -> tuple[list[Entry], list[str]]:
  """The part of train that is wanted, and its problems.

  Bad records have their place as far as they are known: mending one moves no other.
  """
  entries, doubles = without_doubles(reading.entries)
  known = {entry.key for entry in entries}
  bad = {entry.key: (problem, entry) for problem, entry in reading.unreadable}
  bad = {key: both for key, both in bad.items() if key not in known}
  everything = [*entries, *(entry for _, entry in bad.values())]
  try:
    chosen = choose_validation(everything, num_classes)
  except NoSplitError as error:
    absent = describe_absent([*reading.problems, *doubles], reading.dropped)
    raise LayoutError(f"{error}{absent}") from error
  val = {entry.key for entry, is_val in zip(everything, chosen, strict=True) if is_val}
  of_val = [problem for key, (problem, _) in bad.items() if key in val]
  if split == "val":
    return [entry for entry in entries if entry.key in val], of_val
  of_train = [problem for problem in (*reading.problems, *doubles) if problem not in of_val]
  return [entry for entry in entries if entry.key not in val], of_train


def _require_no_problems(
  problems: Sequence[str], good: int, origin: str, on_bad_record: str
) -> None:
  """Raises for the first of them, or logs how many records are left out."""
  if not problems:
    return
  if on_bad_record == "error":
    raise RecordError(f'{problems[0]} (data.on_bad_record="skip" leaves such records out)')
  logging.warning(
    "%s: left out %d bad records of %d:\n  %s%s",
    origin,
    len(problems),
    len(problems) + good,
    "\n  ".join(problems[:_NAMED]),
    "\n  ..." if len(problems) > _NAMED else "",
  )


def _without_dir(source: str, data_set: DataSet | None, task: str) -> str:
  """What to say where no folder is named."""
  if data_set is None:
    how = (
      "pass the folder that `ferjax data prepare` wrote: --config.data.dir=DIR; `ferjax data list` "
      "names the sets that it knows"
    )
    task = task or "classification"
  else:
    table = " and that of the table below it in data.csv" if "table" in data_set.takes else ""
    how = f"{data_set.request}; pass the folder: --config.data.dir=DIR{table}"
    task = task or data_set.tasks[0]
  return f"data.dir is empty, and the source {source!r} reads files; {how}. {_WITHOUT_DATA[task]}"


def _drawn(
  config: DataConfig, split: str, seed: int, class_names: tuple[str, ...]
) -> SyntheticScenes | SyntheticFaces:
  count = getattr(config, f"{split}_examples")
  if count <= 0:
    raise ValueError(
      f"data.{split}_examples ({count}) must be positive for the source {config.source!r}: "
      f"--config.data.{split}_examples=1000"
    )
  seed = len(SPLITS) * seed + SPLITS.index(split)
  if config.source == "synthetic_faces":
    size = short_side(config.image_size, config.resize)
    return SyntheticFaces(count, image_size=size, seed=seed, class_names=class_names)
  return SyntheticScenes(
    count,
    image_size=config.image_size,
    seed=seed,
    class_names=class_names,
    min_faces=config.min_faces,
    max_faces=config.max_faces,
    scale=config.face_scale,
  )
