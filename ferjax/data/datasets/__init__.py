"""The data sets that a config can name."""

from ferjax.config import DataConfig
from ferjax.data.datasets.annotation_list import AnnotationList
from ferjax.data.datasets.raf_db import HOW_TO_GET, RafDetection
from ferjax.data.datasets.records import Source
from ferjax.data.datasets.voc import PascalVOC
from ferjax.data.synthetic import SyntheticScenes

SOURCES = ("synthetic", "raf_db", "annotation_list", "voc")
_SPLITS = ("train", "val")
_WANTED = {
  "raf_db": HOW_TO_GET,
  "annotation_list": "pass the folder that image paths start from: --config.data.dir=DIR",
  "voc": "pass the folder that holds Annotations, JPEGImages and ImageSets: --config.data.dir=DIR",
}


def load_source(config: DataConfig, split: str, *, seed: int = 0) -> Source:
  """The examples of a split, as the config names them.

  Args:
    config: `train` and `val` name the annotation list, the VOC image set or the split of RAF-DB;
      empty means the one called like `split` (an annotation list must be named).
    split: "train" or "val".
    seed: of synthetic scenes; the two splits never share one.

  Raises:
    ValueError: the config names no data, unknown data, or data that is missing or malformed.
  """
  if config.source not in SOURCES:
    raise ValueError(f"unknown data.source {config.source!r}; known: {', '.join(SOURCES)}")
  if split not in _SPLITS:
    raise ValueError(f"unknown split {split!r}; known: {', '.join(_SPLITS)}")
  class_names = tuple(config.class_names)
  if config.source == "synthetic":
    return _synthetic(config, split, seed, class_names)
  if not config.dir:
    raise ValueError(
      f"data.dir is empty, and the source {config.source!r} reads files; "
      f"{_WANTED[config.source]}. `--config configs/fer_yolo_mamba.py:demo` needs no data"
    )
  name = getattr(config, split)
  if config.source == "raf_db":
    return RafDetection(config.dir, name or split, config.on_bad_record, class_names)
  if config.source == "voc":
    return PascalVOC(config.dir, name or split, class_names, config.on_bad_record)
  if not name:
    raise ValueError(
      f"data.{split} is empty; pass the annotation list below data.dir ({config.dir}): "
      f"--config.data.{split}=FILE"
    )
  return AnnotationList(config.dir, name, class_names, config.on_bad_record)


def _synthetic(
  config: DataConfig, split: str, seed: int, class_names: tuple[str, ...]
) -> SyntheticScenes:
  count = getattr(config, f"{split}_examples")
  if count <= 0:
    raise ValueError(
      f"data.{split}_examples ({count}) must be positive for the synthetic source: "
      f"--config.data.{split}_examples=1000"
    )
  return SyntheticScenes(
    count,
    image_size=config.image_size,
    seed=2 * seed + _SPLITS.index(split),
    class_names=class_names,
    min_faces=config.min_faces,
    max_faces=config.max_faces,
    scale=config.face_scale,
  )
