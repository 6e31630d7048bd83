"""`ferjax data prepare`: from a folder as released to checked ArrayRecord shards and a report."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import tensorflow_datasets as tfds
from absl import logging

from ferjax.data.preparation.builders import Config, builder_of, describe
from ferjax.data.preparation.plan import Plan
from ferjax.data.preparation.report import write_report
from ferjax.data.prepared import INCOMPLETE, open_prepared

REPORT = "report"


@dataclasses.dataclass(frozen=True)
class Prepared:
  """What was written: the folder, records by split, and images that were left out."""

  folder: str
  records: dict[str, int]
  left_out: dict[str, list[str]]


def prepare(
  plan: Plan,
  source: str | os.PathLike,
  out: str | os.PathLike,
  *,
  on_bad_record: str = "error",
  progress: Callable[[int], object] = lambda number: None,
) -> Prepared:
  """Writes the records of a plan; shards that an interrupted run finished are kept.

  Args:
    plan: of the data set.
    source: the folder that it was made from.
    out: the set is written to `out`/<name>/<variant>/<version>, as tfds lays folders out.
    on_bad_record: "error", or "skip" to leave bad images out.
    progress: told of records that were done.

  Raises:
    ValueError: a bad record, a remote `out`, or the set has been prepared there before.
  """
  if "://" in os.fspath(out):
    raise ValueError(
      f"--out {out}: shards are written to local files; prepare into a local folder and copy that "
      "there: training reads it from anywhere"
    )
  plan.require_no_problems(on_bad_record)
  config = Config(name=variant(plan), options=plan.options, on_bad_record=on_bad_record)
  with _quiet():
    builder = builder_of(plan.data_set)(data_dir=out, config=config)
    folder = pathlib.Path(builder.data_dir)
    if folder.exists():
      raise ValueError(
        f"{folder} exists: the set has been prepared; use it, delete it, or choose another --out"
      )
    for rest in folder.parent.glob(f"{INCOMPLETE}*_{folder.name}"):
      shutil.rmtree(rest)  # of a run that was killed; its finished shards lie elsewhere
    builder.plan = plan
    builder.progress = progress
    with tempfile.TemporaryDirectory() as empty:  # tfds makes a folder for downloads
      builder.download_and_prepare(
        download_dir=empty,
        download_config=tfds.download.DownloadConfig(manual_dir=os.fspath(source)),
      )
  sources = {split: open_prepared(folder, split) for split in plan.entries}
  summary = {**describe(plan), "source": os.fspath(source), "left_out": builder.left_out}
  written = dataclasses.replace(plan, entries=builder.kept)
  write_report(folder / REPORT, summary, written, builder.sizes, sources)
  records = {split: len(source) for split, source in sources.items()}
  return Prepared(os.fspath(folder), records, builder.left_out)


def variant(plan: Plan) -> str:
  """Name of the folder for the choices that were made: "classification_7"."""
  options = plan.options
  parts = [options.task, str(len(options.class_names))]
  if "rule" in plan.data_set.takes:
    parts.append(options.rule)
  return "_".join(parts)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Leaves out tfds's own progress bars and remarks."""
  logger = logging.get_absl_logger()
  level = logger.level
  logger.setLevel("ERROR")
  tfds.disable_progress_bar()
  try:
    yield
  finally:
    logger.setLevel(level)
    tfds.enable_progress_bar()
