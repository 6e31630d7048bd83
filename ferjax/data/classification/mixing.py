"""The random numbers of mixup and CutMix; `ferjax.ops.mixing` mixes the images on the device.

Mixup: Zhang et al., ICLR 2018, arXiv:1710.09412. CutMix: Yun et al., ICCV 2019, arXiv:1905.04899.
The parameters mean what they mean in timm, with one weight for each pair.
"""

import numpy as np

from ferjax.config import FaceAugmentConfig

_STREAM = 1  # besides that of the augmentation of the same example


def mixes(config: FaceAugmentConfig) -> bool:
  """Whether any pair is mixed."""
  return (config.mixup > 0 or config.cutmix > 0) and config.mix_probability > 0


def draw_mixing(
  seed: int, number: int, size: int, config: FaceAugmentConfig
) -> dict[str, np.ndarray]:
  """Draws how training example `number` is mixed: `ferjax.typing.PairMixing` without an axis.

  Args:
    seed: of the run, not negative.
    number: of the example.
    size: side of the view, pixels.
    config: `mixup` and `cutmix` are the alphas of Beta(alpha, alpha): of mixup's weight, and of the
      part of the area that CutMix keeps. If both are above 0, each has half of the pairs.
  """
  rng = np.random.default_rng((seed, number, _STREAM))
  weight, box = 1.0, (0, 0, 0, 0)
  if rng.random() < config.mix_probability:
    cutmix_share = 0.0 if config.cutmix == 0 else 1.0 if config.mixup == 0 else 0.5
    if rng.random() < cutmix_share:
      box = _rectangle(rng, size, rng.beta(config.cutmix, config.cutmix))
      weight = 1 - (box[2] - box[0]) * (box[3] - box[1]) / size**2
    else:
      weight = rng.beta(config.mixup, config.mixup)
  return {"weight": np.array(weight, np.float32), "box": np.array(box, np.int32)}


def _rectangle(rng: np.random.Generator, size: int, kept: float) -> tuple[int, int, int, int]:
  """Left, top, right and bottom of a square with a uniform centre, clipped to the view."""
  half = int(size * np.sqrt(1 - kept)) // 2
  x, y = rng.integers(size, size=2).tolist()
  return max(x - half, 0), max(y - half, 0), min(x + half, size), min(y + half, size)
