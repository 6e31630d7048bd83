"""Training views of images that are in the memory of the devices.

The augmentation of `ferjax.data.classification.augment`, from the same random numbers: the host
draws the parameters of each view, and the device computes its pixels. Values are rounded to bytes
where the host rounds them. The results differ by the interpolation, which the host's libraries do
in integers; and noise is drawn on the device, from the same distribution.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from ferjax.ops.sampling import bilinear
from ferjax.typing import StoredViews

_STREAM = 2**32 - 1  # of the run's key; steps use the streams of their numbers


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """What the views of a run have in common.

  Attributes:
    size: side of the views, pixels.
    largest: maximum width and height of the resized images, pixels.
    rotates: whether any view is rotated.
    lights: whether brightness or contrast change.
    noise_variance: of Gaussian noise, in squared grey levels; 0 if there is none.
    erases: whether rectangles are replaced by noise.
    repeats: whether the border is repeated beyond an image, which is black otherwise.
  """

  size: int
  largest: tuple[int, int]
  rotates: bool
  lights: bool
  noise_variance: float
  erases: bool
  repeats: bool


def stored_views(
  pixels: UInt8[Array, "n h w c"],
  index: Int[Array, "b"],
  views: StoredViews,
  key: Key[Array, ""],
  augmentation: Augmentation,
) -> UInt8[Array, "b {augmentation.size} {augmentation.size} c"]:
  """The views of the images `index`; each is a function of its parameters and of the key."""
  image = jnp.take(pixels, index, axis=0, mode="clip").astype(jnp.float32)
  sizes, repeats = views["size"], augmentation.repeats
  if augmentation.rotates:
    width, height = augmentation.largest
    columns, rows = (
      jnp.broadcast_to(jnp.arange(side), (len(index), side)) for side in (width, height)
    )
    resized = jnp.round(_resized(image, rows, columns, sizes, repeats))
    largest_place = sizes - 1 if repeats else None
    view = jnp.round(_rotated(resized, views["matrix"], augmentation.size, largest_place))
  else:
    # Only the rows and columns of the crop are computed.
    left_top = views["matrix"][:, :, 2].astype(jnp.int32)
    columns, rows = (
      left_top[:, axis, None] + jnp.arange(augmentation.size)[None] for axis in (0, 1)
    )
    view = jnp.round(_resized(image, rows, columns, sizes, repeats))
  view = _where(views["flipped"][:, 0], view[:, :, ::-1], view)
  view = _where(views["flipped"][:, 1], view[:, ::-1], view)
  if augmentation.lights:
    view = _light(view, views["gains"])
  stream = jax.random.fold_in(key, _STREAM)
  keys = jax.vmap(lambda number: jax.random.split(jax.random.fold_in(stream, number)))(
    views["number"]
  )
  if augmentation.noise_variance > 0:
    view = _where(views["noisy"], _noisy(view, keys[:, 0], augmentation.noise_variance), view)
  if augmentation.erases:
    view = _erased(view, views["erased"], keys[:, 1])
  return view.astype(jnp.uint8)


def _resized(
  image: Float[Array, "b h w c"],
  rows: Int[Array, "b i"],
  columns: Int[Array, "b j"],
  size: Int[Array, "b 2"],
  repeats: bool,
) -> Float[Array, "b i j c"]:
  """Rows and columns of the images resized to `size` (width, height).

  Beyond them, it is 0, or `repeats` the border.
  """
  if repeats:
    rows, columns = (
      jnp.clip(places, 0, size[:, axis, None] - 1) for places, axis in ((rows, 1), (columns, 0))
    )
  by_row = _weights(rows, size[:, 1], image.shape[1])
  by_column = _weights(columns, size[:, 0], image.shape[2])
  # The products are exact to a small part of a grey level, whatever the default precision.
  highest = jax.lax.Precision.HIGHEST
  image = jnp.einsum("bih,bhwc->biwc", by_row, image, precision=highest)
  return jnp.einsum("bjw,biwc->bijc", by_column, image, precision=highest)


def _weights(
  places: Int[Array, "b i"], new: Int[Array, "b"], old: int
) -> Float[Array, "b i {old}"]:
  """The weights of `old` pixels at places of `new` resized ones: bilinear, antialiased.

  A triangle as wide as the larger of the two pixels; at the border, what is inside counts.
  """
  ratio = (old / new.astype(jnp.float32))[:, None, None]
  centre = (places[:, :, None] + 0.5) * ratio - 0.5
  distance = jnp.abs(jnp.arange(old)[None, None] - centre)
  weights = jnp.maximum(0, 1 - distance / jnp.maximum(ratio, 1))
  inside = (places >= 0) & (places < new[:, None])
  total = weights.sum(axis=-1)
  return jnp.where(inside, 1 / jnp.where(inside, total, 1), 0)[:, :, None] * weights


def _rotated(
  image: Float[Array, "b h w c"],
  matrix: Float[Array, "b 2 3"],
  size: int,
  largest_place: Int[Array, "b 2"] | None,
) -> Float[Array, "b {size} {size} c"]:
  """Bilinear samples at `matrix @ (u, v, 1)`.

  Beyond the image, they are 0. With a largest place (x, y), the nearest place between it and (0, 0)
  is taken.
  """
  u, v = jnp.arange(size)[None, None, :], jnp.arange(size)[None, :, None]
  by_u, by_v, shift = (matrix[:, None, None, :, i] for i in range(3))
  places = by_u * u[..., None] + by_v * v[..., None] + shift
  # The centre of a rotation is often the centre of a pixel. A program that computes the position
  # twice can round it to both sides of the pixel, which then has no weight on either. Positions in
  # steps of 1/1024 are either exactly at a centre or far from it.
  places = jnp.round(1024 * places) / 1024
  if largest_place is not None:
    places = jnp.clip(places, 0, largest_place[:, None, None])
  return bilinear(image, places[..., 0], places[..., 1])


def _light(view: Float[Array, "b s s c"], gains: Float[Array, "b 2"]) -> Float[Array, "b s s c"]:
  """Multiplies by a brightness gain, then scales around the mean by a contrast gain."""
  brightness, contrast = (gains[:, i, None, None, None] for i in (0, 1))
  levels = jnp.minimum(view * brightness, 255)
  middle = levels.mean(axis=(1, 2, 3), keepdims=True)
  return jnp.clip(jnp.round((levels - middle) * contrast + middle), 0, 255)


def _noisy(
  view: Float[Array, "b s s c"], keys: Key[Array, "b"], variance: float
) -> Float[Array, "b s s c"]:
  """Adds Gaussian noise in integer grey levels."""
  normal = jax.vmap(lambda key: jax.random.normal(key, view.shape[1:]))(keys)
  return jnp.clip(view + jnp.round(variance**0.5 * normal), 0, 255)


def _erased(
  view: Float[Array, "b s s c"], rectangles: Int[Array, "b 4"], keys: Key[Array, "b"]
) -> Float[Array, "b s s c"]:
  """Replaces the rectangles (left, top, width, height) with uniform noise."""
  noise = jax.vmap(lambda key: jax.random.bits(key, view.shape[1:], jnp.uint8))(keys)
  place = jnp.arange(view.shape[1])[None]
  columns, rows = (
    (place >= rectangles[:, axis, None])
    & (place < (rectangles[:, axis] + rectangles[:, axis + 2])[:, None])
    for axis in (0, 1)
  )
  inside = rows[:, :, None] & columns[:, None, :]
  return jnp.where(inside[..., None], noise.astype(view.dtype), view)


def _where(condition, chosen, other):
  """Chooses whole images."""
  return jnp.where(condition[:, None, None, None], chosen, other)
