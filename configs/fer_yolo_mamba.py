"""FER-YOLO-Mamba, a detector of faces and their expressions.

Paper: Ma, Lei, Celik, Li, "FER-YOLO-Mamba: Facial Expression Detection and Classification Based
on Selective State Space", arXiv:2405.01828.

Variants, selected with `--config configs/fer_yolo_mamba.py:<variant>`:
  (none)  RAF-DB with the published recipe. Pass --config.data.dir, and
          --config.train.pretrained to load a backbone pretrained on COCO (YOLOX-s). Without one,
          pass --config.train.freeze=none for this variant and the next two.
  sfew    SFEW frames with the annotation lists train.txt and val.txt below --config.data.dir.
  voc     your own data in Pascal VOC format below --config.data.dir; set
          --config.data.class_names.
  scenes  cropped faces of a prepared set, pasted into photographs without faces, at 160 pixels and
          grey, on a CPU; docs/composed.md has the options:
    python train.py --config configs/fer_yolo_mamba.py:scenes --workdir runs/scenes \\
        --config.data.dir=OUT/ferplus/classification_8_probability/1.0.0 \\
        --config.data.compose.backgrounds=/data/backgrounds
  demo    synthetic scenes, for a CPU: no data to download.
  tiny    for tests: takes seconds and learns nothing.

  python train.py --config configs/fer_yolo_mamba.py:demo --workdir runs/demo

Results: not measured on any published data set. With three seeds, the demo reached mAP@0.5 0.51,
0.55 and 0.56 (class-agnostic AP@0.5 0.99 to 1.00), in 5 minutes on two CPU cores.
"""

from ferjax.config import (
  AugmentConfig,
  ComposeConfig,
  Config,
  DataConfig,
  EvalConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)
from ferjax.expressions import EXPRESSIONS


def get_config(variant: str = "") -> Config:
  """The configuration of a variant; for an unknown one, a ValueError lists the known ones."""
  if variant not in _VARIANTS:
    known = ", ".join(repr(name) for name in _VARIANTS)
    raise ValueError(f"unknown variant {variant!r} of fer_yolo_mamba; known: {known}")
  return _VARIANTS[variant]()


def _published() -> Config:
  return Config(
    model=ModelConfig(name="fer_yolo_mamba", size="s", variant="corrected"),
    data=DataConfig(
      source="raf_db",
      image_size=320,
      num_workers=4,
      augment=AugmentConfig(
        scale=(0.25, 2.0),
        aspect_jitter=0.3,
        flip=0.5,
        hue=0.1,
        saturation=0.7,
        value=0.4,
        mosaic=0.5,
        mixup=0.5,
        mosaic_until=0.7,
      ),
    ),
    optimizer=OptimizerConfig(
      name="sgd",
      learning_rate=1e-2,
      min_learning_rate=5e-4,
      max_learning_rate=5e-2,
      final_fraction=0.01,
      schedule="cosine",
      momentum=0.937,
      weight_decay=5e-4,
    ),
    train=TrainConfig(
      epochs=300,
      batch_size=16,
      freeze="backbone",
      freeze_epochs=100,
      freeze_batch_size=32,
      ema_decay=0.9999,
      ema_ramp=2000.0,
    ),
    eval=EvalConfig(batch_size=32, score_threshold=0.05, iou_threshold=0.5, max_detections=100),
  )


def _sfew() -> Config:
  config = _published()
  config.data.source = "annotation_list"
  config.data.train = "train.txt"
  config.data.val = "val.txt"
  return config


def _voc() -> Config:
  config = _published()
  config.data.source = "voc"
  return config


def _demo() -> Config:
  return Config(
    model=ModelConfig(name="fer_yolo_mamba", size="nano"),
    data=DataConfig(
      source="synthetic",
      image_size=128,
      max_boxes=8,
      train_examples=2100,
      val_examples=200,
      min_faces=3,  # many faces per scene: cost depends on pixels, learning on faces
      face_scale=(0.25, 0.8),
      augment=AugmentConfig(
        scale=(1.0, 1.0), aspect_jitter=0.0, hue=0.0, saturation=0.0, value=0.0, mosaic=0.0
      ),
    ),
    optimizer=OptimizerConfig(
      name="adamw",
      learning_rate=2e-3,
      scale_by_batch=False,
      schedule="warmup_cosine",
      warmup_steps=50,
      final_fraction=0.02,
      momentum=0.9,
      weight_decay=0.01,
      clip_norm=10.0,
    ),
    train=TrainConfig(
      epochs=3,
      batch_size=8,
      freeze="none",
      ema_decay=0.98,
      ema_ramp=100.0,
      log_every=25,
      eval_every=3,
      checkpoint_every=1,
      keep_checkpoints=1,
    ),
    eval=EvalConfig(batch_size=16),
  )


def _scenes() -> Config:
  """Composed scenes, and photographs whose faces have no label; grey, for a CPU."""
  config = _demo()
  config.data = DataConfig(
    source="composed_scenes",
    class_names=EXPRESSIONS,
    image_size=160,
    grey=True,
    max_boxes=16,
    train_examples=20000,
    val_examples=300,
    compose=ComposeConfig(faces="prepared", size=(12.0, 150.0)),
    augment=AugmentConfig(
      scale=(0.7, 1.2),
      aspect_jitter=0.1,
      hue=0.0,
      saturation=0.0,
      value=0.4,
      mosaic=0.3,
      mixup=0.0,
      mosaic_until=0.9,
    ),
  )
  config.optimizer.warmup_steps = 300
  config.optimizer.weight_decay = 0.02
  config.train = TrainConfig(
    epochs=4,
    batch_size=16,
    freeze="none",
    ema_decay=0.998,
    ema_ramp=500.0,
    select_by="face_ap50",
  )
  return config


def _tiny() -> Config:
  config = _demo()
  config.data.image_size = 64
  config.data.train_examples = 16
  config.data.val_examples = 6
  config.train.epochs = 2
  config.train.batch_size = 4
  config.train.log_every = 2
  config.train.eval_every = 1
  config.train.checkpoint_every = 1
  config.eval.batch_size = 4
  config.eval.score_threshold = 0.0  # an untrained model detects nothing above 0.05
  return config


_VARIANTS = {
  "": _published,
  "sfew": _sfew,
  "voc": _voc,
  "scenes": _scenes,
  "demo": _demo,
  "tiny": _tiny,
}
