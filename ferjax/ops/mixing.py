"""Mixup and CutMix: pairs of images and labels of a batch, mixed on the device.

Example i is paired with the one at the same place from the end of the whole batch, so pairs depend
neither on the number of devices nor on microbatches. The host draws the weights
(`ferjax.data.classification.mixing`).
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from ferjax.typing import PairMixing


def mixed_pairs(
  image: UInt8[Array, "b h w c"],
  label: Float[Array, "b k"],
  mask: Bool[Array, "b"],
  mixing: PairMixing,
) -> tuple[UInt8[Array, "b h w c"], Float[Array, "b k"]]:
  """Mixes each image and label with those of its partner.

  The numbers drawn for the first of a pair apply to both: its weight w and its rectangle. If the
  rectangle is not empty, the two images exchange it (CutMix); otherwise they become
  w * own + (1 - w) * partner's, rounded to bytes (mixup). The labels are w * own +
  (1 - w) * partner's. A pair with a masked example stays as it is, and so does the middle one of an
  odd number.
  """
  weight, box = (_of_pairs(mixing[name]) for name in ("weight", "box"))
  is_mixed = mask & mask[::-1]
  weight = jnp.where(is_mixed, weight, 1.0)
  box = jnp.where(is_mixed[:, None], box, 0)
  inside = _inside(box, image.shape[1], image.shape[2])
  cut = jnp.where(inside, image[::-1], image)
  is_cut = jnp.any(inside, axis=(1, 2, 3), keepdims=True)
  share = weight[:, None, None, None]
  blended = jnp.round(share * image + (1 - share) * image[::-1]).astype(jnp.uint8)
  weight = weight[:, None]
  return jnp.where(is_cut, cut, blended), weight * label + (1 - weight) * label[::-1]


def _of_pairs(drawn):
  """The values of the first of each pair, for both."""
  half = len(drawn) // 2
  return jnp.concatenate([drawn[: len(drawn) - half], drawn[:half][::-1]])


def _inside(box, height: int, width: int) -> Bool[Array, "b {height} {width} 1"]:
  columns, rows = jnp.arange(width)[None], jnp.arange(height)[None]
  in_columns = (columns >= box[:, 0, None]) & (columns < box[:, 2, None])
  in_rows = (rows >= box[:, 1, None]) & (rows < box[:, 3, None])
  return (in_rows[:, :, None] & in_columns[:, None, :])[..., None]
