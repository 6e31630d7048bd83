"""The fields that a config file fills in; the values of an experiment stand in `configs/`.

Not frozen: `--config.optimizer.momentum=0.9` assigns to them.
"""

import dataclasses

from ferjax.expressions import SEVEN_EXPRESSIONS


@dataclasses.dataclass
class ModelConfig:
  """What `ferjax.create_model` takes, apart from the number of classes."""

  name: str = "fer_yolo_mamba"
  size: str = "s"
  variant: str = "corrected"  # or "released"
  dtype: str = "float32"  # of the computation; parameters, scan and loss are always float32


@dataclasses.dataclass
class AugmentConfig:
  """Ranges of the training augmentation; see `ferjax.data.augment`."""

  scale: tuple[float, float] = (0.25, 2.0)  # of a random resize, relative to the letterbox
  aspect_jitter: float = 0.3
  flip: float = 0.5  # probability
  hue: float = 0.1  # HSV gains are drawn from 1 -+ these
  saturation: float = 0.7
  value: float = 0.4
  mosaic: float = 0.5  # probability
  mixup: float = 0.5  # probability, of a mosaic only
  mosaic_until: float = 0.7  # fraction of the epochs with mosaic and mixup


@dataclasses.dataclass
class DataConfig:
  """Where the examples come from."""

  source: str = "synthetic"  # "synthetic", "raf_db", "annotation_list", "voc"
  dir: str = ""  # root of the data set, as released
  train: str = ""  # annotation list (or VOC image set) below `dir`
  val: str = ""
  class_names: tuple[str, ...] = SEVEN_EXPRESSIONS
  image_size: int = 320  # pixels, divisible by 32
  max_boxes: int = 32  # boxes of one image that training keeps (a mosaic holds four images')
  on_bad_record: str = "error"  # or "skip": counted, named in the log, and left out
  num_workers: int = 0  # processes that prepare batches; 0: threads of this process
  train_examples: int = 0  # synthetic source only
  val_examples: int = 0  # synthetic source only
  min_faces: int = 0  # of a synthetic scene; 0: a few, sometimes none
  max_faces: int = 6
  face_scale: tuple[float, float] = (0.12, 0.8)  # of a synthetic face, relative to the image
  augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)


@dataclasses.dataclass
class OptimizerConfig:
  """Optimiser and schedule; rates are scaled by the batch size, as published."""

  name: str = "sgd"  # or "adamw"
  learning_rate: float = 1e-2
  scale_by_batch: bool = True  # in force: learning_rate * batch / 64, within the two bounds
  min_learning_rate: float = 5e-4
  max_learning_rate: float = 5e-2
  final_fraction: float = 0.01  # of the rate in force, at the end
  schedule: str = "cosine"  # "cosine", "step", "warmup_cosine", "warm_restarts", "exponential"
  warmup_steps: int = 128  # of "warmup_cosine", and of every cycle of "warm_restarts"
  cycle_steps: int = 1024  # of "warm_restarts"
  epoch_decay: float = 0.98  # of "exponential": the rate is multiplied by it after each epoch
  momentum: float = 0.937  # Nesterov for SGD, beta 1 for AdamW
  weight_decay: float = 5e-4
  decay: str = "kernels"  # "kernels", "all", or "released": what the released program decays
  clip_norm: float = 0.0  # global gradient norm; 0: none


@dataclasses.dataclass
class TrainConfig:
  """Length and shape of training."""

  seed: int = 0
  epochs: int = 300
  batch_size: int = 16  # over all devices and hosts
  freeze: str = "backbone"  # "none", "backbone" or "backbone+neck"
  freeze_epochs: int = 0
  freeze_batch_size: int = 32
  ema_decay: float = 0.9999  # 0: no average is kept
  ema_ramp: float = 2000.0  # decay in force: ema_decay * (1 - exp(-updates / ema_ramp))
  pretrained: str = ""  # state dict with the released names (.safetensors, .npz, .pth)
  pretrained_parts: tuple[str, ...] = ("backbone",)  # of the model; others stay as initialised
  log_every: int = 50  # steps
  eval_every: int = 1  # epochs
  checkpoint_every: int = 1  # epochs
  keep_checkpoints: int = 3  # newest, besides the best


@dataclasses.dataclass
class EvalConfig:
  """Post-processing while evaluating; shown pictures use `ferjax.inference`'s own thresholds."""

  batch_size: int = 32
  score_threshold: float = 0.05
  iou_threshold: float = 0.5  # of non-maximum suppression
  max_detections: int = 100


@dataclasses.dataclass
class Config:
  """One experiment."""

  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
  train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
  eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
