"""The views of a face that a classifier evaluates.

Evaluation and prediction use the same functions, so their preprocessing cannot differ.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

NUM_VIEWS = 10  # of `ten_views`
# An image with a larger aspect ratio is cropped to its middle before it is resized: enlarging a
# single line to the full short side would need gigabytes.
MAX_ASPECT = 32


def center_view(
  image: UInt8[np.ndarray, "h w 3"], size: int, *, resize: int = 0, grey: bool = False
) -> UInt8[np.ndarray, "{size} {size} 3"]:
  """The central square.

  Args:
    image: RGB.
    size: side of the view, pixels.
    resize: the short side of the image before cropping, pixels, at least `size`; 0: `size`.
    grey: replaces colour by luma (ITU-R 601), equal in all three channels.

  Raises:
    ValueError: `resize` is too small.
  """
  resized = scaled(image, short_side(size, resize), grey=grey)
  width, height = resized.size
  return as_rgb(_crop(resized, (width - size) // 2, (height - size) // 2, size))


def center_placement(
  width: int, height: int, size: int, *, resize: int = 0
) -> Float[np.ndarray, "6"]:
  """The placement of `center_view` for an image size, in the form of `ferjax.data.image.letterbox`.

  An input pixel is `original * scale + (left, top)`; `left` and `top` are not positive here.
  """
  x1, y1, x2, y2 = middle_part(width, height)
  new_width, new_height = scaled_size(x2 - x1, y2 - y1, short_side(size, resize))
  scale_x, scale_y = new_width / (x2 - x1), new_height / (y2 - y1)
  left = -((new_width - size) // 2) - scale_x * x1
  top = -((new_height - size) // 2) - scale_y * y1
  return np.array((scale_x, scale_y, left, top, width, height), np.float32)


def ten_views(
  image: UInt8[np.ndarray, "h w 3"], size: int, *, resize: int = 0, grey: bool = False
) -> UInt8[np.ndarray, "10 {size} {size} 3"]:
  """The four corners and the centre, then the flips of these five (spec: emonext, Recipe).

  The corners differ from the centre only if the resized image is larger than the view:
  `resize` above `size`. Arguments and errors as for `center_view`.
  """
  resized = scaled(image, short_side(size, resize), grey=grey)
  right, bottom = resized.width - size, resized.height - size
  corners = [(0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2)]
  views = np.stack([as_rgb(_crop(resized, left, top, size)) for left, top in corners])
  return np.concatenate([views, views[:, :, ::-1]])


def short_side(size: int, resize: int) -> int:
  """The short side after resizing, pixels, before a square of `size` is cropped."""
  if resize and resize < size:
    raise ValueError(
      f"resize ({resize}) must be at least the size of the view ({size}), or 0 for that size"
    )
  return resize if resize else size


def scaled(image: UInt8[np.ndarray, "h w 3"], short: int, *, grey: bool) -> Image.Image:
  """Resizes to a short side of `short` pixels, RGB or 8-bit grey: bilinear, antialiased.

  A very long image is cropped first (`middle_part`): at most `MAX_ASPECT * short**2` pixels.
  """
  x1, y1, x2, y2 = middle_part(image.shape[1], image.shape[0])
  image = image[y1:y2, x1:x2]
  pil_image = Image.fromarray(np.ascontiguousarray(image))
  if grey:
    pil_image = pil_image.convert("L")
  new_size = scaled_size(*pil_image.size, short)
  if new_size == pil_image.size:
    return pil_image
  return pil_image.resize(new_size, Image.Resampling.BILINEAR)


def middle_part(width: int, height: int) -> tuple[int, int, int, int]:
  """Left, top, right and bottom, pixels, of the middle with at most the aspect `MAX_ASPECT`."""
  longest = MAX_ASPECT * min(width, height)
  left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
  return left, top, left + min(width, longest), top + min(height, longest)


def as_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
  """The pixels of an RGB or 8-bit grey image in three channels."""
  return np.array(image.convert("RGB"))


def scaled_size(width: int, height: int, short: int) -> tuple[int, int]:
  """Width and height, pixels, of an image whose short side is resized to `short`."""
  # Rounded down, like torchvision's Resize in the published recipes.
  if width <= height:
    return short, short * height // width
  return short * width // height, short


def _crop(image: Image.Image, left: int, top: int, size: int) -> Image.Image:
  return image.crop((left, top, left + size, top + size))
