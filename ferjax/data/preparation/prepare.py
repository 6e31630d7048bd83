"""`ferjax data prepare`: converts a folder as released to ArrayRecord shards and a report."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from logging import ERROR, LogRecord

import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from ferjax.data.preparation import unreported
from ferjax.data.preparation.builders import Config, RecordsBuilder, builder_of
from ferjax.data.preparation.duplicates import LEAK_FREE, check_mode
from ferjax.data.preparation.plan import Plan
from ferjax.data.preparation.report import write_report
from ferjax.data.prepared import INCOMPLETE, open_prepared

REPORT = "report"


@dataclasses.dataclass(frozen=True)
class Prepared:
  """The result of a preparation.

  Attributes:
    folder: contains the shards.
    records: number of records by split.
    left_out: split -> images that were left out, with the reason.
    duplicates: split -> records that were dropped as duplicates, with the reason.
  """

  folder: str
  records: dict[str, int]
  left_out: dict[str, list[str]]
  duplicates: dict[str, list[str]]


def prepare(
  plan: Plan,
  source: str | os.PathLike,
  out: str | os.PathLike,
  *,
  on_bad_record: str = "error",
  drop_duplicates: str = "none",
  progress: Callable[[int], object] = lambda number: None,
  announce: Callable[[Prepared], object] = lambda prepared: None,
) -> Prepared:
  """Writes the records of a plan; reuses the finished shards of an interrupted run.

  If only the report is missing, because it failed or the program was killed, writes the report.

  Args:
    plan: of the data set.
    source: the folder that the plan was made from.
    out: the set is written to `out`/<name>/<variant>/<version>, like folders of tfds.
    on_bad_record: "error", or "skip" to leave bad images out.
    drop_duplicates: one of `ferjax.data.preparation.duplicates.DROP_DUPLICATES`.
    progress: called with the number of processed records; each counts once, or twice if duplicates
      are dropped.
    announce: called with the result before the report is written, which may fail independently.

  Raises:
    ValueError: a bad record, a remote `out`, or an existing preparation.
  """
  with _quiet():
    builder = _builder(plan, out, on_bad_record, drop_duplicates)
    folder = pathlib.Path(builder.data_dir)
    if not folder.exists():
      _write_shards(builder, plan, source, progress)
    elif not builder.resume_report(plan):
      raise ValueError(
        f"{folder} exists: the set is already prepared; use it, delete it, or choose another --out"
      )
  sources = {split: open_prepared(folder, split) for split in plan.entries}
  records = {split: len(source) for split, source in sources.items()}
  prepared = Prepared(os.fspath(folder), records, builder.left_out, builder.duplicates)
  announce(prepared)
  summary = {
    **plan.describe(),
    "source": os.fspath(source),
    "left_out": builder.left_out,
    "drop_duplicates": drop_duplicates,
    "duplicates": builder.duplicates,
  }
  written = dataclasses.replace(plan, entries=builder.kept)
  write_report(folder / REPORT, summary, written, builder.sizes, sources)
  unreported.remove(epath.Path(folder))
  return prepared


def _write_shards(
  builder: RecordsBuilder,
  plan: Plan,
  source: str | os.PathLike,
  progress: Callable[[int], object],
) -> None:
  folder = pathlib.Path(builder.data_dir)
  for rest in folder.parent.glob(f"{INCOMPLETE}*_{folder.name}"):
    shutil.rmtree(rest)  # left by a killed run; its finished shards are elsewhere
  builder.plan = plan
  builder.progress = progress
  with tempfile.TemporaryDirectory() as empty:  # tfds creates a folder for downloads
    builder.download_and_prepare(
      download_dir=empty,
      download_config=tfds.download.DownloadConfig(manual_dir=os.fspath(source)),
    )


def write_share(
  plan: Plan,
  out: str | os.PathLike,
  *,
  index: int,
  count: int,
  wait: Callable[[], None],
  on_bad_record: str = "error",
  drop_duplicates: str = "none",
) -> None:
  """Writes one of `count` shares of the shards; when all are written, one process calls `prepare`.

  Arguments and errors as for `RecordsBuilder.write_share` and `prepare`.
  """
  with _quiet():
    builder = _builder(plan, out, on_bad_record, drop_duplicates)
    if not pathlib.Path(builder.data_dir).exists():
      builder.write_share(plan, index=index, count=count, wait=wait)


def _builder(
  plan: Plan, out: str | os.PathLike, on_bad_record: str, drop_duplicates: str
) -> RecordsBuilder:
  if "://" in os.fspath(out):
    raise ValueError(
      f"--out {out}: shards are written to local files; prepare in a local folder and copy it "
      "there: training reads local and remote folders"
    )
  plan.require_no_problems(on_bad_record)
  check_mode(drop_duplicates)
  config = Config(
    name=variant(plan, drop_duplicates),
    options=plan.options,
    on_bad_record=on_bad_record,
    drop_duplicates=drop_duplicates,
  )
  return builder_of(plan.data_set)(data_dir=out, config=config)


def variant(plan: Plan, drop_duplicates: str = "none") -> str:
  """Name of the folder for the options: "classification_7"."""
  options = plan.options
  parts = [options.task, str(len(options.class_names))]
  if "rule" in plan.data_set.takes:
    parts.append(options.rule)
  if plan.corrections:
    parts.append("corrected")
  if drop_duplicates != "none":
    name = drop_duplicates.replace("-", "_")
    parts.append(name if drop_duplicates == LEAK_FREE else f"drop_{name}")
  return "_".join(parts)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Disables tfds's own progress bars and messages, also in threads that overlap."""
  logger = logging.get_absl_logger()

  def is_error(record: LogRecord) -> bool:
    return record.levelno >= ERROR

  logger.addFilter(is_error)
  tfds.disable_progress_bar()
  try:
    yield
  finally:
    logger.removeFilter(is_error)
    tfds.enable_progress_bar()
