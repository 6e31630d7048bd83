"""The tfds builders, one for each data set.

A builder reads the folder of a set as released (`manual_dir`) and writes ArrayRecord shards, with
images as their original encoded files. It also writes `ferjax.json` and, for classifiers, the
labels of each split as one array: a reader needs nothing else to start.

tfds's own writer keeps a whole split in memory up to 1 GB, needs TensorFlow for more, and starts
over after an interruption. So this module writes shard by shard, in the order of the set, and keeps
finished shards next to the target until all are complete (`ferjax.data.preparation.shards`).
"""

import dataclasses
import functools
import json
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import example_serializer

from ferjax.data.datasets.base import DataSet, Options
from ferjax.data.datasets.catalog import DATA_SETS
from ferjax.data.datasets.entries import Entry, RecordError
from ferjax.data.examples import Loaded, in_threads, load
from ferjax.data.preparation import unreported
from ferjax.data.preparation.deduplication import (
  signature_files,
  without_duplicates,
  write_signatures,
)
from ferjax.data.preparation.duplicates import Signature, signature
from ferjax.data.preparation.plan import Plan, Splitting, make_plan
from ferjax.data.preparation.shards import Notes, ShardStore, fingerprint
from ferjax.data.preparation.split_tables import write_attributes, write_labels
from ferjax.data.preparation.unreported import Written
from ferjax.data.prepared import INDEX
from ferjax.data.sources import count_boxes
from ferjax.output import escaped

RECORDS_PER_SHARD = 2048
Result = TypeVar("Result")
Progress = Callable[[int], object]  # called with the number of finished records


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
  """The configuration of a preparation; `name` is its folder below the folder of the set."""

  options: Options = dataclasses.field(default_factory=Options)
  splitting: Splitting = dataclasses.field(default_factory=Splitting)
  on_bad_record: str = "error"
  drop_duplicates: str = "none"  # one of `DROP_DUPLICATES`
  records_per_shard: int = RECORDS_PER_SHARD


class RecordsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes the entries of a `DataSet`.

  Attributes:
    plan: the records to write; made from `manual_dir` if not set before.
    progress: called with the number of finished records.
    kept: split -> written entries; filled when they are written, or by `resume_report`.
    sizes: split -> width and height of their images, pixels.
    left_out: split -> images that were left out, with the reason.
    duplicates: split -> records that were dropped as duplicates, with the reason.
  """

  VERSION = tfds.core.Version("1.0.0")
  DATA_SET: ClassVar[DataSet]
  # Disables downloads: tfds's download manager needs a package that it does not declare.
  url_infos: ClassVar[None] = None

  def __init__(self, *, config: Config | None = None, **kwargs: Any):
    self._config = config = config or Config("default")
    self._options = self.DATA_SET.complete(config.options)
    self._features = tfds.features.FeaturesDict(self._feature_types())
    self.plan: Plan | None = None
    self.progress: Progress = lambda number: None
    self.kept: dict[str, list[Entry]] = {}
    self.sizes: dict[str, list[list[int]]] = {}
    self.left_out: dict[str, list[str]] = {}
    self.duplicates: dict[str, list[str]] = {}
    super().__init__(config=config, file_format="array_record", **kwargs)

  @property
  def MANUAL_DOWNLOAD_INSTRUCTIONS(self) -> str:
    return self.DATA_SET.request

  def _log_download_bytes(self) -> None:
    """Nothing is downloaded."""

  def _log_download_done(self) -> None:
    """Logs nothing."""

  def _feature_types(self) -> dict[str, Any]:
    features: dict[str, Any] = {
      # Files of other formats are stored unchanged; only arrays would be encoded.
      "image": tfds.features.Image(encoding_format="jpeg"),
      "origin": tfds.features.Text(),
      "group": tfds.features.Text(),
    }
    if self._options.task == "detection":
      features["boxes"] = tfds.features.Tensor(shape=(None, 4), dtype=np.float32)
      features["labels"] = tfds.features.Tensor(shape=(None,), dtype=np.int32)
    else:
      shape = (len(self._options.class_names),)
      features["label"] = tfds.features.Tensor(shape=shape, dtype=np.float32)
    if self.DATA_SET.votes:
      shape = (len(self.DATA_SET.votes),)
      features["votes"] = tfds.features.Tensor(shape=shape, dtype=np.int32)
    return features

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=f"{self.DATA_SET.title}, classes {', '.join(self._options.class_names)}.",
      license=self.DATA_SET.terms,
      features=self._features,
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    plan = self._make_plan(dl_manager)
    return {split: self._generate_examples(members) for split, members in plan.entries.items()}

  def _generate_examples(self, entries: Sequence[Entry]) -> Iterator[tuple[int, dict[str, Any]]]:
    for place, outcome in self._loaded(entries):
      if isinstance(outcome, Loaded):
        yield place, self._example(entries[place], outcome)

  def _make_plan(self, dl_manager: tfds.download.DownloadManager) -> Plan:
    config = self._config
    if self.plan is None:
      self.plan = make_plan(self.DATA_SET, dl_manager.manual_dir, config.options, config.splitting)
    self.plan.require_no_problems(config.on_bad_record)
    return self.plan

  def _loaded(
    self, entries: Sequence[Entry], use: Callable[[Loaded], Result] = lambda loaded: loaded
  ) -> Iterator[tuple[int, Result | str]]:
    """Yields the index of each entry, and what `use` returns, or why the entry is left out.

    Raises:
      RecordError: a bad entry, if `on_bad_record` is "error".
    """

    def load_one(place: int) -> Result:
      margin = self._options.margin
      return use(load(entries[place], overhang=self.DATA_SET.overhang, margin=margin))

    for place, outcome in in_threads(load_one, range(len(entries))):
      if isinstance(outcome, ValueError):
        if self._config.on_bad_record == "error":
          raise RecordError(f"{outcome} (--on-bad-record skip leaves such records out)")
        yield place, str(outcome)
      else:
        yield place, outcome
      self.progress(1)

  def _example(self, entry: Entry, loaded: Loaded) -> dict[str, Any]:
    example: dict[str, Any] = {
      "image": loaded.encoded,
      # File names may contain bytes that are not UTF-8; shards store only UTF-8.
      "origin": escaped(entry.origin),
      "group": escaped(entry.group),
    }
    if entry.boxes is not None:
      example["boxes"] = loaded.boxes
      example["labels"] = np.array(entry.classes, np.int32)
    else:
      example["label"] = entry.distribution(len(self._options.class_names))
    if entry.votes:
      example["votes"] = np.array(entry.votes, np.int32)
    return example

  def _generate_splits(
    self, dl_manager: tfds.download.DownloadManager, download_config: Any
  ) -> list[tfds.core.SplitInfo]:
    del download_config
    plan = self._make_plan(dl_manager)
    digest = self._fingerprint(plan)
    store = self._store(digest)
    plan, self.duplicates = self._without_duplicates(plan, store)
    shards = {split: self._write(split, members, store) for split, members in plan.entries.items()}
    infos = [self._finish(split, plan, notes, store) for split, notes in shards.items()]
    mode = {"drop_duplicates": self._config.drop_duplicates}
    index = {**plan.describe(), **mode, "splits": self._split_index()}
    (self.data_path / INDEX).write_text(json.dumps(index, indent=2))
    written = Written(self.kept, self.sizes, self.left_out, self.duplicates)
    unreported.save(self.data_path, written, digest)
    store.remove()
    return infos

  def resume_report(self, plan: Plan) -> bool:
    """Whether the set is written, but not its report; restores what the report needs.

    Args:
      plan: of the same preparation.
    """
    written = unreported.load(epath.Path(self.data_dir), plan, self._fingerprint(plan))
    if written is None:
      return False
    self.kept, self.sizes, self.left_out, self.duplicates = written
    return True

  def _fingerprint(self, plan: Plan) -> str:
    everything = [entry for members in plan.entries.values() for entry in members]
    return fingerprint(everything, repr((self._config, self.VERSION)))

  def _store(self, digest: str) -> ShardStore:
    final = epath.Path(self._data_dir_root) / self.info.full_name
    return ShardStore(final.parent / f"{final.name}.unfinished", digest)

  def write_share(self, plan: Plan, *, index: int, count: int, wait: Callable[[], None]) -> None:
    """Writes this process's share of the shards; then one process can complete the set.

    Args:
      plan: the records to write.
      index: of this process, from 0.
      count: number of processes, which all call this with the same plan and folder.
      wait: waits until all processes have called it.
    """
    if index:
      wait()  # until the first process has deleted the shards of other records
    store = self._store(self._fingerprint(plan))
    if not index:
      wait()
    if self._config.drop_duplicates != "none":
      files = list(signature_files(plan, self._config.records_per_shard))
      for name, _, members in files[index::count]:
        if store.notes(name) is None:
          write_signatures(store, self._signatures, name, members)
      wait()
      plan, _ = self._without_duplicates(plan, store)
    shards = [x for split, members in plan.entries.items() for x in self._shards(split, members)]
    for name, _, members in shards[index::count]:
      if store.notes(name) is None:
        store.write(name, lambda path, members=members: self._write_shard(path, members))

  def _write(self, split: str, entries: Sequence[Entry], store: ShardStore) -> dict[str, Notes]:
    """Writes the shards that are not finished yet; returns the metadata of all shards, by name."""
    all_notes = {}
    for name, start, members in self._shards(split, entries):
      notes = store.notes(name)
      if notes is None:
        notes = store.write(name, lambda path, members=members: self._write_shard(path, members))
      else:
        self.progress(len(members))
      all_notes[name] = {**notes, "start": start}
    return all_notes

  def _shards(
    self, split: str, entries: Sequence[Entry]
  ) -> Iterator[tuple[str, int, Sequence[Entry]]]:
    """Name, first entry and entries of each shard."""
    count = self._config.records_per_shard
    template, starts = self._get_filename_template(split), range(0, len(entries), count)
    for number, start in enumerate(starts):
      name = template.sharded_filepath(shard_index=number, num_shards=len(starts)).name
      yield name, start, entries[start : start + count]

  def _without_duplicates(self, plan: Plan, store: ShardStore) -> tuple[Plan, dict[str, list[str]]]:
    return without_duplicates(
      plan,
      self._config.drop_duplicates,
      store,
      self._signatures,
      per_file=self._config.records_per_shard,
      progress=self.progress,
    )

  def _signatures(self, entries: Sequence[Entry]) -> Iterator[tuple[int, Signature | str]]:
    return self._loaded(entries, lambda loaded: signature(loaded.image))

  def _write_shard(self, path: str, entries: Sequence[Entry]) -> Notes:
    specs: Any = self._features.get_serialized_info()
    serializer = example_serializer.ExampleSerializer(specs)
    notes: Notes = {"kept": [], "sizes": [], "left_out": []}

    def serialized() -> Iterator[tuple[int, bytes]]:
      for place, outcome in self._loaded(entries):
        if isinstance(outcome, str):
          notes["left_out"].append(outcome)
          continue
        notes["kept"].append(place)
        notes["sizes"].append(list(outcome.image.shape[1::-1]))
        example = self._features.encode_example(self._example(entries[place], outcome))
        yield place, serializer.serialize_example(example)

    self._example_writer().write(path, serialized())
    return notes

  def _finish(
    self, split: str, plan: Plan, shards: dict[str, Notes], store: ShardStore
  ) -> tfds.core.SplitInfo:
    """Moves the shards of a split to the target folder and writes its labels."""
    kept = _kept(plan.entries[split], shards)
    if not kept:
      raise RecordError(f"no record of the split {split!r} can be read; check the images")
    self.kept[split] = kept
    self.sizes[split] = [size for notes in shards.values() for size in notes["sizes"]]
    self.left_out[split] = [text for notes in shards.values() for text in notes["left_out"]]
    if self._options.task == "classification":
      write_labels(self.data_path, split, kept, len(self._options.class_names))
    write_attributes(self.data_path, split, kept)
    return tfds.core.SplitInfo(
      name=split,
      shard_lengths=[len(notes["kept"]) for notes in shards.values()],
      num_bytes=sum(store.move(name, self.data_path) for name in shards),
      filename_template=self._get_filename_template(split),
    )

  def _split_index(self) -> dict[str, Any]:
    return {
      split: {
        "records": len(kept),
        "max_boxes": max(len(entry.boxes or ()) for entry in kept),
        "boxes": (boxes := count_boxes(kept, len(self._options.class_names))),
        "labelled_boxes": sum(boxes),
        "left_out": self.left_out[split],
        "duplicates": len(self.duplicates.get(split, ())),
      }
      for split, kept in self.kept.items()
    }


def _kept(entries: Sequence[Entry], shards: dict[str, Notes]) -> list[Entry]:
  return [entries[notes["start"] + place] for notes in shards.values() for place in notes["kept"]]


@functools.cache
def builder_of(data_set: DataSet) -> type[RecordsBuilder]:
  """The builder class of a set: `builder_of(RAF_DB)(data_dir=OUT, config=...)`.

  Released sets are registered in tfds; the names of user-defined formats are too common for that.
  """
  name = "".join(part.capitalize() for part in data_set.name.split("_"))
  fields = {"DATA_SET": data_set, "name": data_set.name, "__module__": __name__}
  own = {"skip_registration": not data_set.class_counts}
  return types.new_class(name, (RecordsBuilder,), own, lambda body: body.update(fields))


for _data_set in DATA_SETS.values():
  builder_of(_data_set)
