"""FERMam, a classifier of facial expressions with image and landmark features.

Paper: "FERMam: a lightweight dual-source and multi-scale fusion framework for facial expression
recognition", Scientific Reports (2026), doi 10.1038/s41598-026-44396-6.

Variants, selected with `--config configs/fermam.py:<variant>`:
  raf_db      aligned faces of RAF-DB in folders <data.dir>/{train,val,test}/<class>/*.jpg, with the
              published recipe; the default.
  affectnet7  AffectNet with seven classes, in the same folders; affectnet8 adds contempt.
  ferplus_published  FERPlus with eight classes, trained on the distributions of the votes, with
              the published recipe; reads what `ferjax data prepare ferplus --rule probability`
              wrote.
  ferplus     the same recipe for one GPU: bfloat16, the faces in its memory, 30 epochs instead of
              260, as released or as prepared. Not run.
    python train.py --config configs/fermam.py:ferplus --workdir runs/ferplus \\
        --config.data.dir=/data/fer2013 --config.train.pretrained=image=...,landmark=...
  ferplus_nano  the same targets, small size at 64 grey pixels, from scratch on a CPU, all classes
              as often as they are in the set:
    python train.py --config configs/fermam.py:ferplus_nano --workdir runs/ferplus_nano \\
        --config.data.dir=/data/fer2013
  ferplus_nano_wide  goes on from it with wider crops, as after a detector:
    python train.py --config configs/fermam.py:ferplus_nano_wide --workdir runs/ferplus_wide \\
        --config.data.dir=/data/fer2013 --config.train.pretrained=runs/ferplus_nano
  folder      your own faces, <data.dir>/{train,val}/<class>/*.jpg; set --config.data.class_names.
  lfw5        112-pixel grey faces and a table of labels, from scratch on a CPU; small size;
              docs/fermam.md has the results of both variants:
    python train.py --config configs/fermam.py:lfw5 --workdir runs/fermam_lfw5 \\
        --config.data.dir=/data/lfw5 --config.train.seeds="(0,1,2)"
  demo        synthetic faces, for a CPU: no data to download.
  tiny        for tests: takes seconds and learns nothing.

The recipe starts from an ArcFace IR-50 and a MobileFaceNet, and freezes the latter:
  --config.train.pretrained=image=ir50.pth,landmark=mobilefacenet.pth
Without them, pass --config.train.freeze=none.

  python train.py --config configs/fermam.py:demo --workdir runs/fermam_demo

Results: not measured on any published data set. In one run, the demo reached an accuracy of 0.96 on
400 synthetic faces of its test split, in 3 minutes of CPU time.
"""

import dataclasses

from ferjax.config import (
  Config,
  DataConfig,
  EvalConfig,
  FaceAugmentConfig,
  LossConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)
from ferjax.expressions import EXPRESSIONS


def get_config(variant: str = "") -> Config:
  """The configuration of a variant; for an unknown one, a ValueError lists the known ones."""
  if variant not in _VARIANTS:
    known = ", ".join(repr(name) for name in _VARIANTS)
    raise ValueError(f"unknown variant {variant!r} of fermam; known: {known}")
  return _VARIANTS[variant]()


def _raf_db() -> Config:
  return Config(
    model=ModelConfig(name="fermam", size="base", variant="corrected"),
    data=DataConfig(
      source="image_folder",
      test="test",
      image_size=224,
      num_workers=4,
      face_augment=FaceAugmentConfig(
        flip=0.5, rotation=0.0, flip_or_noise=0.5, noise_variance=30.0, erasing=0.5
      ),
    ),
    optimizer=OptimizerConfig(
      name="adamw",
      learning_rate=4e-5,
      scale_by_batch=False,
      schedule="exponential",
      epoch_decay=0.98,
      momentum=0.9,
      weight_decay=0.0,
      sam_rho=0.05,
    ),
    loss=LossConfig(label_smoothing=0.2, smoothed_weight=2.0),
    train=TrainConfig(
      epochs=260,
      batch_size=300,
      freeze="landmark",
      freeze_epochs=260,
      freeze_batch_size=300,
      ema_decay=0.0,
    ),
    eval=EvalConfig(batch_size=100),
  )


def _affectnet8() -> Config:
  config = _raf_db()
  config.data.class_names = EXPRESSIONS
  config.data.balance = True
  return config


def _affectnet7() -> Config:
  config = _raf_db()
  config.data.balance = True
  return config


def _ferplus_published() -> Config:
  config = _raf_db()
  config.data.source = "prepared"
  config.data.class_names = EXPRESSIONS
  config.data.face_augment.flip_or_noise = 0.0
  config.train.batch_size = config.train.freeze_batch_size = 200
  return config


def _ferplus() -> Config:
  config = _ferplus_published()
  config.model.dtype = "bfloat16"
  config.data.source = "ferplus"
  config.data.rule = "probability"
  config.data.grey = True
  config.data.on_device = True
  config.data.num_workers = 0
  config.train.epochs = config.train.freeze_epochs = 30
  config.optimizer.epoch_decay = 0.84  # ends at the published final rate, 0.98**260
  return config


def _ferplus_nano() -> Config:
  config = _lfw5()
  config.data.source = "ferplus"
  config.data.rule = "probability"
  config.data.class_names = EXPRESSIONS
  config.data.image_size = 64
  config.data.resize = 70
  config.data.grey = True
  config.data.balance = False
  config.data.face_augment = FaceAugmentConfig(
    rotation=12.0,
    scale=(0.9, 1.15),
    brightness=0.3,
    contrast=0.3,
    erasing=0.4,
    erasing_area=(0.02, 0.15),
  )
  config.optimizer.learning_rate = 2e-3
  config.optimizer.warmup_steps = 400
  config.loss = LossConfig()
  config.train.epochs = 40
  config.train.batch_size = 64
  config.train.ema_decay = 0.999
  config.train.eval_every = 4
  config.train.checkpoint_every = 1
  config.train.select_by = "accuracy"
  return config


def _ferplus_nano_wide() -> Config:
  config = _ferplus_nano()
  config.data.face_augment = dataclasses.replace(
    config.data.face_augment,
    rotation=15.0,
    scale=(0.85, 1.2),
    shift=0.08,
    border="repeat",
    brightness=0.4,
    contrast=0.4,
  )
  config.optimizer.learning_rate = 1.2e-3
  config.optimizer.warmup_steps = 200
  config.train.epochs = 14
  config.train.eval_every = 2
  return config


def _folder() -> Config:
  config = _raf_db()
  config.data.test = ""
  config.train.freeze = "none"
  return config


def _lfw5() -> Config:
  return Config(
    model=ModelConfig(name="fermam", size="nano"),
    data=DataConfig(
      source="csv",
      csv="labels.csv",
      class_names=("neutral", "happiness", "sadness", "surprise", "anger"),
      image_size=96,
      resize=100,
      balance=True,
      face_augment=FaceAugmentConfig(
        rotation=10.0, scale=(0.95, 1.1), brightness=0.3, contrast=0.3
      ),
    ),
    optimizer=OptimizerConfig(
      name="adamw",
      learning_rate=1e-3,
      scale_by_batch=False,
      schedule="warmup_cosine",
      warmup_steps=100,
      momentum=0.9,
      weight_decay=0.05,
      clip_norm=1.0,
    ),
    loss=LossConfig(label_smoothing=0.2, smoothed_weight=2.0),
    train=TrainConfig(
      epochs=12,
      batch_size=32,
      freeze="none",
      ema_decay=0.99,
      ema_ramp=100.0,
      eval_every=2,
      checkpoint_every=4,
      keep_checkpoints=1,
      select_by="balanced_accuracy",
    ),
    eval=EvalConfig(batch_size=64),
  )


def _demo() -> Config:
  return Config(
    model=ModelConfig(name="fermam", size="nano"),
    data=DataConfig(
      source="synthetic_faces",
      image_size=64,
      train_examples=2000,
      val_examples=400,
      test_examples=400,
      face_augment=FaceAugmentConfig(rotation=0.0),
    ),
    optimizer=OptimizerConfig(
      name="adamw",
      learning_rate=1e-3,
      scale_by_batch=False,
      schedule="warmup_cosine",
      warmup_steps=50,
      momentum=0.9,
      weight_decay=0.01,
      clip_norm=1.0,
    ),
    loss=LossConfig(label_smoothing=0.2, smoothed_weight=2.0),
    train=TrainConfig(
      epochs=6,
      batch_size=16,
      freeze="none",
      ema_decay=0.98,
      ema_ramp=100.0,
      log_every=20,
      eval_every=2,
      checkpoint_every=2,
      keep_checkpoints=1,
    ),
    eval=EvalConfig(batch_size=32),
  )


def _tiny() -> Config:
  config = _demo()
  config.data.image_size = 32
  config.data.train_examples = 16
  config.data.val_examples = 6
  config.data.test_examples = 0
  config.train.epochs = 2
  config.train.batch_size = 4
  config.train.log_every = 2
  config.train.eval_every = 1
  config.train.checkpoint_every = 1
  config.eval.batch_size = 4
  return config


_VARIANTS = {
  "": _raf_db,
  "raf_db": _raf_db,
  "affectnet7": _affectnet7,
  "affectnet8": _affectnet8,
  "ferplus_published": _ferplus_published,
  "ferplus": _ferplus,
  "ferplus_nano": _ferplus_nano,
  "ferplus_nano_wide": _ferplus_nano_wide,
  "folder": _folder,
  "lfw5": _lfw5,
  "demo": _demo,
  "tiny": _tiny,
}
