"""Opens the sources for training and evaluation that a config names."""

import dataclasses
import os
from collections.abc import Sequence

from absl import logging

from ferjax.config import DataConfig
from ferjax.data.classification.views import short_side
from ferjax.data.composed.scenes import ComposedScenes, open_composed
from ferjax.data.datasets.base import SPLITS, DataSet, Options, Reading
from ferjax.data.datasets.catalog import COMPOSED, DATA_SETS, PREPARED, SYNTHETIC
from ferjax.data.datasets.entries import Entry, LayoutError, RecordError
from ferjax.data.image_files import describe_ignored
from ferjax.data.mixture import MixedFaces, MixedSource, parse_sources
from ferjax.data.preparation.plan import describe_missing_records, unique_entries
from ferjax.data.preparation.splits import NoSplitError, choose_validation
from ferjax.data.prepared import contains_prepared, is_prepared, open_prepared
from ferjax.data.sources import (
  LabelledSource,
  Opening,
  ReleasedDetection,
  ReleasedFaces,
  Source,
  check_on_bad_record,
  class_counts,
)
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.data.synthetic.scenes import SyntheticScenes

_MAX_LOGGED = 10  # skipped records listed in the log
_WITHOUT_DATA = {
  "detection": "the source 'synthetic' needs no data",
  "classification": "the source 'synthetic_faces' needs no data",
}


def source_names(task: str = "") -> tuple[str, ...]:
  """The values of `data.source`, for a task or ("") for any: synthetic, data sets, others."""
  tasks = dict(zip(SYNTHETIC, ("detection", "classification"), strict=True))
  synthetic = [name for name in SYNTHETIC if task in ("", tasks[name])]
  sets = [name for name, data_set in DATA_SETS.items() if not task or task in data_set.tasks]
  composed = [COMPOSED] if task in ("", "detection") else []
  return (*synthetic, *sets, PREPARED, *composed)


def load_source(
  config: DataConfig, split: str, *, seed: int = 0, task: str = "", validates: bool = True
) -> Source:
  """Opens the examples of a split.

  Args:
    config: for user-defined data, `train`, `val` and `test` name an annotation list, image set,
      folder, or value of the split column; for other sets, one of their splits. Empty means the one
      named like `split`. With `sources`, train is a mixture of them.
    split: "train", "val" or "test".
    seed: of synthetic images; splits and seeds have no images in common. Of composed scenes, only
      those of train depend on it.
    task: of the model, "detection" or "classification"; "" for the set's default.
    validates: whether the validation split is used; if not, user-defined data without one keep all
      of train.

  Raises:
    ValueError: the config names no data, unknown data, or missing or malformed data.
  """
  if config.sources and split == "train":
    return _mixture(config, seed=seed, task=task, validates=validates)
  if config.source not in source_names():
    raise ValueError(f"unknown data.source {config.source!r}; known: {', '.join(source_names())}")
  if split not in SPLITS:
    raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
  class_names = tuple(config.class_names)
  if config.source in SYNTHETIC:
    return _synthetic(config, split, seed, class_names)
  if config.source == COMPOSED:
    return _composed(config, split, seed, validates)
  data_set = DATA_SETS.get(config.source)
  if not config.dir:
    raise ValueError(_describe_missing_dir(config.source, data_set, task))
  name = getattr(config, split) or split
  choices = {"rule": config.rule, "margin": config.margin}
  choices = {field: x for field, x in choices.items() if x != getattr(Options(), field)}
  if data_set is None:
    return open_prepared(config.dir, name, class_names, choices=choices)
  options = Options(task=task, class_names=class_names, **choices)
  if "table" in data_set.takes:
    options = dataclasses.replace(options, table=config.csv)
  if "columns" in data_set.takes:
    options = dataclasses.replace(options, columns=tuple(config.group_columns))
  if "files" in data_set.takes:
    files = {s: getattr(config, s) for s in SPLITS if getattr(config, s)}
    options = dataclasses.replace(options, files=files)
  if should_open_prepared(data_set, config.dir, options):
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


def _mixture(config: DataConfig, *, seed: int, task: str, validates: bool) -> MixedSource:
  """Opens the train splits of `config.sources`; arguments and errors as for `load_source`.

  Only the set that the validation split is from may give some of its train split to it.
  """
  parts, sources, names = parse_sources(config), [], []
  for part in parts:
    own = part.config
    gives = validates and (own.source, own.dir) == (config.source, config.dir)
    try:
      source = load_source(own, "train", seed=seed, task=task, validates=gives)
    except ValueError as error:
      raise ValueError(f"data.sources {part.text!r}: {error}") from error
    sources.append(source)
    names.append(f"{own.source} in {own.dir}" if own.dir else own.source)
  kind = MixedFaces if sources[0].task == "classification" else MixedSource
  return kind(sources, [part.share for part in parts], names)


def should_open_prepared(data_set: DataSet, dir: str | os.PathLike, options: Options) -> bool:
  """Whether the folder contains the set as prepared, and not as released."""
  if is_prepared(dir):
    return True
  try:
    data_set.find_release(dir, data_set.complete(options))
  except LayoutError:
    return contains_prepared(dir, data_set.name, options.task)
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
  """Opens a split of a data set as released.

  A set without a validation split gets one, taken from train: always the same, and the same as from
  `ferjax data prepare`.

  Args:
    data_set: the set in the folder.
    dir: the folder.
    split: "train", "val" or "test".
    options: the options of the set.
    on_bad_record: "error", or "skip" to leave bad records out.
    validates: as for `load_source`.

  Raises:
    LayoutError: a missing or malformed file, no such split, or too few records to take validation
      from.
    RecordError: the first bad record (with "error").
    ValueError: an option that the set does not have.
  """
  check_on_bad_record(on_bad_record)
  options = data_set.complete(options)
  reading = _read(data_set, dir, split, options)
  if "val" not in reading.splits and (
    split == "val" or (split == "train" and (validates or data_set.class_counts))
  ):
    if split == "val":
      reading = _read(data_set, dir, "train", options)
    entries, problems = _split_train(reading, split, len(options.class_names))
  else:
    entries, problems = reading.entries, reading.problems
  origin = f"{os.fspath(dir)} ({split})"
  _require_no_problems(problems, len(entries), origin, on_bad_record)
  if not entries:
    known = ", ".join(sorted(reading.splits)) or "none"
    raise LayoutError(
      f"{origin}: {data_set.title} has no records of this split; existing splits: {known} (name "
      f"another with --config.data.{split}=NAME)"
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
  """Reads a split as released; logs its size next to the official count."""
  options = dataclasses.replace(options, splits=(split,))
  release, reading = data_set.read(dir, options)
  if ignored := describe_ignored(reading.ignored):
    logging.info("%s (%s): %s", os.fspath(dir), split, ignored)
  official = release.official(options).get(split, {}).get("total")
  found = len(reading.entries) + len(reading.unreadable)
  if official is not None and found:
    level = logging.INFO if found == official else logging.WARNING
    message = "%s: found %d %s records in %s, officially %d"
    logging.log(level, message, data_set.title, found, split, os.fspath(dir), official)
  return reading


def _split_train(reading: Reading, split: str, num_classes: int) -> tuple[list[Entry], list[str]]:
  """The train or validation part of train, and its problems.

  Bad records are assigned to a part too, as far as they are known, so fixing one moves no other.
  """
  entries, repeats = unique_entries(reading.entries)
  known = {entry.key for entry in entries}
  bad = {entry.key: (problem, entry) for problem, entry in reading.unreadable}
  bad = {key: both for key, both in bad.items() if key not in known}
  everything = [*entries, *(entry for _, entry in bad.values())]
  try:
    chosen = choose_validation(everything, num_classes)
  except NoSplitError as error:
    missing = describe_missing_records([*reading.problems, *repeats], reading.dropped)
    raise LayoutError(f"{error}{missing}") from error
  val = {entry.key for entry, is_val in zip(everything, chosen, strict=True) if is_val}
  val_problems = [problem for key, (problem, _) in bad.items() if key in val]
  if split == "val":
    return [entry for entry in entries if entry.key in val], val_problems
  problems = [problem for problem in (*reading.problems, *repeats) if problem not in val_problems]
  return [entry for entry in entries if entry.key not in val], problems


def _require_no_problems(
  problems: Sequence[str], good: int, origin: str, on_bad_record: str
) -> None:
  """Raises the first problem, or logs how many records are left out."""
  if not problems:
    return
  if on_bad_record == "error":
    raise RecordError(f'{problems[0]} (data.on_bad_record="skip" leaves such records out)')
  logging.warning(
    "%s: left out %d bad records of %d:\n  %s%s",
    origin,
    len(problems),
    len(problems) + good,
    "\n  ".join(problems[:_MAX_LOGGED]),
    "\n  ..." if len(problems) > _MAX_LOGGED else "",
  )


def _describe_missing_dir(source: str, data_set: DataSet | None, task: str) -> str:
  """The error message for an empty `data.dir`."""
  if data_set is None:
    how = (
      "pass the folder that `ferjax data prepare` wrote: --config.data.dir=DIR; `ferjax data list` "
      "lists the known sets"
    )
    task = task or "classification"
  else:
    table = " and the name of the table in it as data.csv" if "table" in data_set.takes else ""
    how = f"{data_set.request}; pass the folder: --config.data.dir=DIR{table}"
    task = task or data_set.tasks[0]
  return f"data.dir is empty, and the source {source!r} reads files; {how}. {_WITHOUT_DATA[task]}"


def _synthetic(
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


def _composed(config: DataConfig, split: str, seed: int, validates: bool) -> ComposedScenes:
  known = source_names("classification")
  if config.compose.faces not in known:
    raise ValueError(
      f"data.compose.faces is {config.compose.faces!r}; expected the source of the face crops: "
      f"--config.data.compose.faces=NAME, one of {', '.join(known)}"
    )
  crops = dataclasses.replace(config, source=config.compose.faces)
  faces = load_source(crops, split, seed=seed, task="classification", validates=validates)
  if not isinstance(faces, LabelledSource):
    raise ValueError(
      f"data.dir ({config.dir}) has no face crops but photographs with boxes; a detector can be "
      "trained on them directly, with their own data.source"
    )
  return open_composed(config, faces, split, seed)
