"""The builders that tfds knows: one for each data set, all of one base.

A builder takes the folder of a set as released (`manual_dir`) and writes ArrayRecord shards, with
images as the encoded files that they came as. Beside tfds's own files lie `ferjax.json` and, for
classifiers, the labels of each split as one array: a reader needs nothing else to start.

tfds's own writer keeps a whole split in memory up to 1 GB, needs TensorFlow beyond, and starts anew
after an interruption. So records are written here shard by shard, in the order of the set; finished
shards wait beside the target until all are there (`ferjax.data.preparation.shards`).
"""

import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import example_serializer

from ferjax.data.datasets import catalog
from ferjax.data.datasets.layout import DataSet, Entry, Options
from ferjax.data.datasets.prepared import INDEX, labels_file
from ferjax.data.datasets.records import RecordError
from ferjax.data.preparation.deduplication import without_duplicates
from ferjax.data.preparation.duplicates import signature
from ferjax.data.preparation.examples import Loaded, in_threads, load
from ferjax.data.preparation.plan import Plan, Splitting, make_plan
from ferjax.data.preparation.shards import Notes, ShardStore, fingerprint
from ferjax.expressions import FERPLUS_COLUMNS
from ferjax.output import escaped

RECORDS_PER_SHARD = 2048
Result = TypeVar("Result")
Progress = Callable[[int], object]  # gets the number of records that were done


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
  """How a set is prepared; the name is that of its folder below the set's."""

  options: Options = dataclasses.field(default_factory=Options)
  splitting: Splitting = dataclasses.field(default_factory=Splitting)
  on_bad_record: str = "error"
  drop_duplicates: str = "none"  # one of `DROP_DUPLICATES`
  records_per_shard: int = RECORDS_PER_SHARD


class RecordsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes the entries of a `DataSet`.

  Attributes:
    plan: of what is written; made from `manual_dir` if not set before.
    progress: told of finished records, by the program that shows it.
    kept: split -> entries that were written, once they are.
    sizes: split -> width and height of their images.
    left_out: split -> images that were left out, with the reason.
    duplicates: split -> records that were dropped as duplicates, with the reason.
  """

  VERSION = tfds.core.Version("1.0.0")
  DATA_SET: ClassVar[DataSet]
  # Of downloads, of which there are none; tfds's own needs a package that it does not ask for.
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
    """Nor is that worth a line."""

  def _feature_types(self) -> dict[str, Any]:
    features: dict[str, Any] = {
      # Other formats are stored as they are; only arrays would be encoded.
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
    if self.DATA_SET is catalog.FERPLUS:
      shape = (len(FERPLUS_COLUMNS),)
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
    """Place of each entry and what `use` makes of it; raises for a bad one, or says why."""

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
      # Names of files may hold bytes that are not UTF-8, and shards no other text.
      "origin": escaped(entry.origin),
      "group": escaped(entry.group),
    }
    if entry.boxes is not None:
      example["boxes"] = loaded.boxes
      example["labels"] = np.array(entry.classes, np.int32)
    else:
      example["label"] = label_of(entry, len(self._options.class_names))
    if entry.votes:
      example["votes"] = np.array(entry.votes, np.int32)
    return example

  def _generate_splits(
    self, dl_manager: tfds.download.DownloadManager, download_config: Any
  ) -> list[tfds.core.SplitInfo]:
    del download_config
    plan = self._make_plan(dl_manager)
    final = epath.Path(self._data_dir_root) / self.info.full_name
    settings = repr((self._config, self.VERSION))
    everything = [entry for members in plan.entries.values() for entry in members]
    store = ShardStore(final.parent / f"{final.name}.unfinished", fingerprint(everything, settings))
    plan, self.duplicates = without_duplicates(
      plan,
      self._config.drop_duplicates,
      store,
      lambda members: self._loaded(members, lambda loaded: signature(loaded.image)),
      per_file=self._config.records_per_shard,
      progress=self.progress,
    )
    written = {split: self._write(split, members, store) for split, members in plan.entries.items()}
    infos = [self._finish(split, plan, notes, store) for split, notes in written.items()]
    mode = {"drop_duplicates": self._config.drop_duplicates}
    index = {**plan.describe(), **mode, "splits": self._split_index()}
    (self.data_path / INDEX).write_text(json.dumps(index, indent=2))
    store.remove()
    return infos

  def _write(self, split: str, entries: Sequence[Entry], store: ShardStore) -> dict[str, Notes]:
    """Writes the shards that are not finished yet; returns the notes of all, by name."""
    count = self._config.records_per_shard
    starts = range(0, len(entries), count)
    template = self._get_filename_template(split)
    all_notes = {}
    for number, start in enumerate(starts):
      name = template.sharded_filepath(shard_index=number, num_shards=len(starts)).name
      piece = entries[start : start + count]
      notes = store.notes(name)
      if notes is None:
        notes = store.write(name, lambda path, piece=piece: self._write_shard(path, piece))
      else:
        self.progress(len(piece))
      all_notes[name] = {**notes, "start": start}
    return all_notes

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
    """Moves the shards of a split to their place and writes its labels."""
    kept = _kept(plan.entries[split], shards)
    if not kept:
      raise RecordError(f"no record of the split {split!r} can be read; check the images")
    self.kept[split] = kept
    self.sizes[split] = [size for notes in shards.values() for size in notes["sizes"]]
    self.left_out[split] = [text for notes in shards.values() for text in notes["left_out"]]
    if self._options.task == "classification":
      labels = np.stack([label_of(entry, len(self._options.class_names)) for entry in kept])
      file = io.BytesIO()
      np.save(file, labels)
      (self.data_path / labels_file(split)).write_bytes(file.getvalue())
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
        "left_out": self.left_out[split],
        "duplicates": len(self.duplicates.get(split, ())),
      }
      for split, kept in self.kept.items()
    }


def label_of(entry: Entry, num_classes: int) -> np.ndarray:
  """The label of a face as a distribution, f32[k]."""
  if isinstance(entry.label, int):
    return np.eye(num_classes, dtype=np.float32)[entry.label]
  return np.array(entry.label, np.float32)


def _kept(entries: Sequence[Entry], shards: dict[str, Notes]) -> list[Entry]:
  return [entries[notes["start"] + place] for notes in shards.values() for place in notes["kept"]]


class RafDb(RecordsBuilder):
  DATA_SET = catalog.RAF_DB
  name = DATA_SET.name


class AffectNet(RecordsBuilder):
  DATA_SET = catalog.AFFECTNET
  name = DATA_SET.name


class Fer2013(RecordsBuilder):
  DATA_SET = catalog.FER2013
  name = DATA_SET.name


class FerPlus(RecordsBuilder):
  DATA_SET = catalog.FERPLUS
  name = DATA_SET.name


class Sfew(RecordsBuilder):
  DATA_SET = catalog.SFEW
  name = DATA_SET.name


class ExpW(RecordsBuilder):
  DATA_SET = catalog.EXPW
  name = DATA_SET.name


# The names of the generic ones are taken by tfds, or too common for its register of all data sets.
class PascalVocFolder(RecordsBuilder, skip_registration=True):
  DATA_SET = catalog.VOC
  name = DATA_SET.name


class CocoJson(RecordsBuilder, skip_registration=True):
  DATA_SET = catalog.COCO_JSON
  name = DATA_SET.name


class YoloTxt(RecordsBuilder, skip_registration=True):
  DATA_SET = catalog.YOLO_TXT
  name = DATA_SET.name


class AnnotationListFile(RecordsBuilder, skip_registration=True):
  DATA_SET = catalog.ANNOTATION_LIST
  name = DATA_SET.name


class ClassFolders(RecordsBuilder, skip_registration=True):
  DATA_SET = catalog.IMAGE_FOLDER
  name = DATA_SET.name


class LabelTable(RecordsBuilder, skip_registration=True):
  DATA_SET = catalog.CSV
  name = DATA_SET.name


BUILDERS: dict[str, type[RecordsBuilder]] = {
  builder.name: builder
  for builder in (
    RafDb,
    AffectNet,
    Fer2013,
    FerPlus,
    Sfew,
    ExpW,
    PascalVocFolder,
    CocoJson,
    YoloTxt,
    AnnotationListFile,
    ClassFolders,
    LabelTable,
  )
}
