"""The data sets that a config can name."""

from ferjax.config import DataConfig
from ferjax.data.classification.views import short_side
from ferjax.data.datasets.annotation_list import AnnotationList
from ferjax.data.datasets.csv_table import CsvTable
from ferjax.data.datasets.image_folder import ImageFolder
from ferjax.data.datasets.prepared import open_prepared
from ferjax.data.datasets.raf_db import HOW_TO_GET, RafDetection
from ferjax.data.datasets.records import Source
from ferjax.data.datasets.voc import PascalVOC
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.data.synthetic.scenes import SyntheticScenes

PREPARED = "prepared"  # for either task, as the data set was prepared
DETECTION_SOURCES = ("synthetic", "raf_db", "annotation_list", "voc", PREPARED)
CLASSIFICATION_SOURCES = ("synthetic_faces", "image_folder", "csv", PREPARED)
SOURCES = tuple(dict.fromkeys(DETECTION_SOURCES + CLASSIFICATION_SOURCES))
SPLITS = ("train", "val", "test")
_DEMO = "The variant `demo` of a config needs no data"
_DRAWN = "the source 'synthetic_faces' needs no data"
_WANTED = {
  "raf_db": f"{HOW_TO_GET}. {_DEMO}",
  "annotation_list": f"pass the folder that image paths start from: --config.data.dir=DIR. {_DEMO}",
  "voc": "pass the folder that holds Annotations, JPEGImages and ImageSets: "
  f"--config.data.dir=DIR. {_DEMO}",
  "image_folder": "pass the folder that holds <split>/<class>/*.jpg: --config.data.dir=DIR; "
  f"{_DRAWN}",
  "csv": "pass the folder that holds the table data.csv, and that image paths start from: "
  f"--config.data.dir=DIR; {_DRAWN}",
  PREPARED: "pass the folder that `ferjax data prepare` wrote: --config.data.dir=DIR; `ferjax data "
  f"list` names the sets that it knows; {_DRAWN}",
}


def load_source(config: DataConfig, split: str, *, seed: int = 0) -> Source:
  """The examples of a split, as the config names them.

  Args:
    config: `train`, `val` and `test` name the annotation list, the VOC image set, the split of
      RAF-DB, the folder, or the value in the table's column; empty means the one called like
      `split` (an annotation list must be named).
    split: "train", "val" or "test".
    seed: of drawn pictures; no two splits share one, nor do two seeds.

  Raises:
    ValueError: the config names no data, unknown data, or data that is missing or malformed.
  """
  if config.source not in SOURCES:
    raise ValueError(f"unknown data.source {config.source!r}; known: {', '.join(SOURCES)}")
  if split not in SPLITS:
    raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
  class_names = tuple(config.class_names)
  if config.source in ("synthetic", "synthetic_faces"):
    return _drawn(config, split, seed, class_names)
  if not config.dir:
    raise ValueError(
      f"data.dir is empty, and the source {config.source!r} reads files; {_WANTED[config.source]}"
    )
  name = getattr(config, split)
  if config.source == "annotation_list":
    if not name:
      raise ValueError(
        f"data.{split} is empty; pass the annotation list below data.dir ({config.dir}): "
        f"--config.data.{split}=FILE"
      )
    return AnnotationList(config.dir, name, class_names, config.on_bad_record)
  name = name or split
  if config.source == PREPARED:
    return open_prepared(config.dir, name, class_names)
  if config.source == "raf_db":
    return RafDetection(config.dir, name, config.on_bad_record, class_names)
  if config.source == "voc":
    return PascalVOC(config.dir, name, class_names, config.on_bad_record)
  if config.source == "image_folder":
    return ImageFolder(config.dir, name, class_names, config.on_bad_record)
  return CsvTable(config.dir, config.csv, name, class_names, config.on_bad_record)


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
