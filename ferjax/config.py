"""The fields of a config file; `configs/` has the values of the experiments.

Not frozen: `--config.optimizer.momentum=0.9` assigns to them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ferjax.expressions import SEVEN_EXPRESSIONS


@dataclasses.dataclass
class ModelConfig:
  """The arguments of `ferjax.create_model`, except the number of classes."""

  name: str = ""  # required; a network of `ferjax.models.registry`
  size: str = ""  # "": the size in its paper
  variant: str = "corrected"  # or "released"
  dtype: str = "float32"  # of the computation; parameters, scan and loss are always float32
  # Further fields of the network's module: "mode=conv_only,dropout_rate=0.2".
  options: str = ""


@dataclasses.dataclass
class AugmentConfig:
  """Ranges of a detector's training augmentation; see `ferjax.data.detection.augment`."""

  scale: tuple[float, float] = (0.25, 2.0)  # of a random resize, relative to the letterbox
  aspect_jitter: float = 0.3
  flip: float = 0.5  # probability
  hue: float = 0.1  # HSV gains are sampled from 1 -+ these
  saturation: float = 0.7
  value: float = 0.4
  mosaic: float = 0.5  # probability
  mixup: float = 0.5  # probability, of a mosaic only
  mosaic_until: float = 0.7  # fraction of the epochs with mosaic and mixup


@dataclasses.dataclass
class FaceAugmentConfig:
  """Ranges of a classifier's augmentation; see `ferjax.data.classification.augment`."""

  flip: float = 0.5  # probability
  vertical_flip: float = 0.0  # probability
  rotation: float = 20.0  # maximum, degrees, in either direction
  scale: tuple[float, float] = (1.0, 1.0)  # of a random zoom before the random crop
  shift: float = 0.0  # of the crop beyond that, at most, relative to its side
  border: str = "black"  # beyond the image, or "repeat": its border
  brightness: float = 0.0  # gains are sampled from 1 -+ these
  contrast: float = 0.0
  erasing: float = 0.0  # probability of a rectangle of noise
  erasing_area: tuple[float, float] = (0.02, 0.1)  # of the image
  noise: float = 0.0  # probability
  noise_variance: float = 30.0  # of Gaussian noise, in squared grey levels (0..255)
  flip_or_noise: float = 0.0  # probability of one of the two, instead of `flip` and `noise`
  # Mixed pairs of a batch; see `ferjax.data.classification.mixing`.
  mixup: float = 0.0  # alpha of the Beta(alpha, alpha) distribution of its weights; 0: none
  cutmix: float = 0.0  # likewise of the areas it keeps; with both, each pair is mixed by one
  mix_probability: float = 1.0  # that a pair is mixed, with `mixup` or `cutmix`


@dataclasses.dataclass
class ComposeConfig:
  """The source "composed_scenes": faces pasted into photographs; see docs/composed.md."""

  faces: str = ""  # source of the face crops, one for classifiers; it reads `data.dir`
  backgrounds: str = ""  # folder of photographs without faces
  # Backgrounds of validation and test: a folder, or a file with one name below `backgrounds` a
  # line. "": the fraction `held_out` of the others, the same in every run.
  val_backgrounds: str = ""
  test_backgrounds: str = ""
  held_out: float = 0.1
  balance: bool = False  # draw every class equally often
  empty: float = 0.1  # probability of a scene without faces, and of one without non-faces
  count: tuple[int, int] = (1, 4)  # faces of the other scenes, and non-faces
  size: tuple[float, float] = (16.0, 300.0)  # longer side of a box, pixels; at most the scene's
  rotation: float = 8.0  # standard deviation, degrees
  # From the left, top, right and bottom edge of a crop to the face's box, as fractions of the crop.
  inset: tuple[float, float, float, float] = (0.03, 0.08, 0.03, 0.0)
  occlusion: float = 0.25  # probability that a patch of background hides a part of a face
  hidden: float = 0.4  # fraction of a box that may be hidden or beyond the border
  match: float = 0.5  # probability that a face takes over light of its surroundings
  blur: float = 1.0  # maximum standard deviation, pixels
  noise: float = 6.0  # maximum standard deviation, grey levels
  quality: tuple[int, int] = (50, 95)  # of JPEG


@dataclasses.dataclass
class DataConfig:
  """The data set and the input pipeline."""

  # A set of `ferjax data list` for the model's task; "prepared": any output of `ferjax data
  # prepare`; "synthetic" for detectors and "synthetic_faces" for classifiers: rendered images.
  source: str = "synthetic"
  # Training examples from several sources with shares that add up to 1; see `ferjax.data.mixture`.
  # "voc=0.4,dir=DIR,train=NAME"; fields that are not set are those here for the same source. The
  # validation and test splits are always those of `source`. (): train is from `source` too.
  sources: tuple[str, ...] = ()
  dir: str = ""  # root of the data set, as released or as prepared
  csv: str = "labels.csv"  # table below `dir`, for the source "csv"
  # Name of a split: annotation list or json below `dir`, VOC image set, folder, value of a column;
  # for a released or prepared set, another of its splits. "": train, val, test.
  train: str = ""
  val: str = ""
  test: str = ""  # evaluated once, at the end, with the checkpoint that is best on `val`
  class_names: tuple[str, ...] = SEVEN_EXPRESSIONS
  image_size: int = 320  # pixels, divisible by the stride of the network
  max_boxes: int = 32  # boxes per training image (a mosaic contains those of four images)
  # Columns of a table, or attributes of another set, for metrics by group. (): all of such a set.
  group_columns: tuple[str, ...] = ()
  rule: str = "majority"  # for the labels of FERPlus; or "probability"
  margin: float = 0.0  # added around a face cropped from an image, as a fraction of its box's side
  on_bad_record: str = "error"  # or "skip": counted, logged, and left out
  num_workers: int = 0  # processes that prepare batches; 0: threads of this process
  # Classifiers only: decode the training set once, keep its bytes on every device, and augment
  # there; for images of one size.
  on_device: bool = False
  on_device_limit: float = 4.0  # GiB of each device that the set may take
  train_examples: int = 0  # synthetic and composed images only
  val_examples: int = 0  # synthetic and composed images only
  min_faces: int = 0  # per synthetic scene; 0: a few, sometimes none
  max_faces: int = 6
  face_scale: tuple[float, float] = (0.12, 0.8)  # of a synthetic face, relative to the image
  test_examples: int = 0  # synthetic and composed images only
  mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of RGB in 0..1; subtracted
  std: tuple[float, float, float] = (0.229, 0.224, 0.225)  # of RGB in 0..1; divisor
  grey: bool = False  # convert images to grey
  resize: int = 0  # classifiers only: short side before the crop, pixels; 0: image_size
  balance: bool = False  # classifiers only: sample every class equally often
  # With `balance`: a class of n records is sampled in proportion to n**(1 - power). 1: equally
  # often, 0.5: by square roots.
  balance_power: float = 1.0
  augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
  face_augment: FaceAugmentConfig = dataclasses.field(default_factory=FaceAugmentConfig)
  compose: ComposeConfig = dataclasses.field(default_factory=ComposeConfig)


@dataclasses.dataclass
class OptimizerConfig:
  """Optimiser and schedule; rates are scaled by the batch size, as published."""

  name: str = "sgd"  # or "adamw"
  learning_rate: float = 1e-2
  scale_by_batch: bool = True  # use learning_rate * batch / 64, within the two bounds
  min_learning_rate: float = 5e-4
  max_learning_rate: float = 5e-2
  final_fraction: float = 0.01  # final rate, as a fraction of the scaled rate
  schedule: str = "cosine"  # "cosine", "step", "warmup_cosine", "warm_restarts", "exponential"
  warmup_steps: int = 128  # of "warmup_cosine" and of every cycle of "warm_restarts"
  cycle_steps: int = 1024  # of "warm_restarts"
  epoch_decay: float = 0.98  # of "exponential": factor of the rate after each epoch
  group_rates: str = ""  # factors of the rate by part of the model: "image=0.1,head=2"
  momentum: float = 0.937  # Nesterov for SGD, beta 1 for AdamW
  weight_decay: float = 5e-4
  decay: str = "kernels"  # or "all", or a rule of the network, such as "released"
  clip_norm: float = 0.0  # global gradient norm; 0: none
  sam_rho: float = 0.0  # radius of sharpness-aware minimisation; 0: none


@dataclasses.dataclass
class TrainConfig:
  """Duration, batches, checkpoints and selection."""

  seed: int = 0
  seeds: tuple[int, ...] = ()  # one run per seed, below the workdir; (): one run with `seed`
  epochs: int = 300
  batch_size: int = 16  # over all devices and hosts
  # Split the optimiser's state and the moving averages over the devices (ZeRO stage 1) instead of
  # keeping a copy on each: less memory, the same results.
  shard_state: bool = False
  accumulate: int = 1  # microbatches per batch, computed one after the other to save memory
  freeze: str = "backbone"  # "none", or parts that the network can freeze
  freeze_epochs: int = 0
  freeze_batch_size: int = 32
  ema_decay: float = 0.9999  # 0: no moving average
  ema_rule: str = "ramp"  # or "power"; see `ferjax.training.state.update_ema`
  ema_ramp: float = 2000.0  # updates, for the rule "ramp"
  ema_every: int = 16  # updates, for the rule "power"
  skip_nonfinite: int = 0  # steps with a non-finite gradient that a run may skip; then it stops
  # A loss this many robust standard deviations above the median of the last steps is a spike, whose
  # records are written to `incidents`; 0: none. See `ferjax.training.spikes`.
  spike_deviations: float = 20.0
  patience: int = 0  # stop after this many evaluations without a better score; 0: never
  # Weights to start from: the name of known weights, a weights file or a checkpoint, of which the
  # variables that fit are taken. Or a state dict with the released names (.safetensors, .npz,
  # .pth), or one for each part: "image=FILE,landmark=FILE".
  pretrained: str = ""
  pretrained_parts: tuple[str, ...] = ("backbone",)  # parts to load from released weights
  # Classifiers only: known weights, weights files or checkpoints, whose mean prediction for an
  # augmented image is a part of its target; see `ferjax.training.distillation`.
  teachers: tuple[str, ...] = ()
  teacher_weight: float = 0.5  # of the prediction in the target; the label has the rest
  log_every: int = 50  # steps
  eval_every: int = 1  # epochs
  select_by: str = ""  # validation metric that selects the best checkpoint; "": the task's default
  select_on: str = "val"  # or "test", which needs a reason and is noted in every report
  select_on_test_reason: str = ""
  checkpoint_every: int = 1  # epochs
  keep_checkpoints: int = 3  # newest checkpoints to keep, besides the best
  curves: bool = True  # draw curves.png after every evaluation


@dataclasses.dataclass
class EvalConfig:
  """Post-processing in evaluation; `ferjax.inference` has its own thresholds."""

  batch_size: int = 32
  score_threshold: float = 0.05
  iou_threshold: float = 0.5  # of non-maximum suppression
  max_detections: int = 100
  ten_crop: bool = False  # classifiers only: evaluate the test split with ten views per image
  # Classifiers only: average the probabilities of an image and its mirror image. The ten views
  # contain their mirror images, so they are not affected.
  flip: bool = False
  # Classifiers only: subtract this times the logarithm of `loss.class_prior` from the logits.
  logit_adjustment: float = 0.0
  temperature: float = 1.0  # classifiers only: divides the adjusted logits


@dataclasses.dataclass
class LossConfig:
  """The loss of a classifier; a detector's loss has no settings.

  The sum of a cross entropy and, if their weights are not 0, a smoothed cross entropy and a
  regulariser; see `ferjax.tasks.classification.task`.
  """

  # s: targets become (1 - s) * label + s / classes. If `smoothed_weight` is above 0, s applies only
  # to the smoothed term; otherwise to the first cross entropy.
  label_smoothing: float = 0.0
  smoothed_weight: float = 0.0  # of the smoothed cross entropy
  regularizer_weight: float = 0.0  # of the attention regulariser, for networks with attention
  class_weights: tuple[float, ...] = ()  # one per class; (): none
  # Add this times the logarithm of `class_prior` to the logits in the loss, not in predictions; 1
  # is the value for balanced accuracy.
  logit_adjustment: float = 0.0
  # Frequencies of the classes in training. (): counted, and kept in the checkpoints.
  class_prior: tuple[float, ...] = ()


@dataclasses.dataclass
class Config:
  """One experiment."""

  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
  train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
  loss: LossConfig = dataclasses.field(default_factory=LossConfig)
  eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Turns {"train": {"epochs": 3}} into {"train.epochs": 3}."""
  flat = {}
  for name, value in values.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = value
  return flat
