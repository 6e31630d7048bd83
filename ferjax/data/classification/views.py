"""The views of a face for the evaluation of a classifier.

Evaluation and prediction use the same functions, so their preprocessing cannot differ.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

NUM_VIEWS = 10  # of `ten_views`
# Of a picture whose sides differ by more, the middle is cut out before it is resized: its long side
# would be enlarged with the short one, to gigabytes for a picture of one line.
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
  picture = scaled(image, short_side(size, resize), grey=grey)
  width, height = picture.size
  return as_rgb(_cut(picture, (width - size) // 2, (height - size) // 2, size))


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
  picture = scaled(image, short_side(size, resize), grey=grey)
  right, bottom = picture.width - size, picture.height - size
  corners = [(0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2)]
  views = np.stack([as_rgb(_cut(picture, left, top, size)) for left, top in corners])
  return np.concatenate([views, views[:, :, ::-1]])


def short_side(size: int, resize: int) -> int:
  """The short side after resizing, pixels, before a square of `size` is cropped."""
  if resize and resize < size:
    raise ValueError(
      f"resize ({resize}) must be at least the size of the view ({size}), or 0 for that size"
    )
  return resize if resize else size


def scaled(image: UInt8[np.ndarray, "h w 3"], short: int, *, grey: bool) -> Image.Image:
  """The image with a short side of `short` pixels, RGB or 8-bit grey: bilinear, antialiased.

  Of a longer picture the middle (`middle_part`): at most `MAX_ASPECT * short**2` pixels.
  """
  x1, y1, x2, y2 = middle_part(image.shape[1], image.shape[0])
  image = image[y1:y2, x1:x2]
  picture = Image.fromarray(np.ascontiguousarray(image))
  if grey:
    picture = picture.convert("L")
  new_size = scaled_size(*picture.size, short)
  if new_size == picture.size:
    return picture
  return picture.resize(new_size, Image.Resampling.BILINEAR)


def middle_part(width: int, height: int) -> tuple[int, int, int, int]:
  """Left, top, right and bottom, pixels, of what is left after cutting to `MAX_ASPECT`."""
  longest = MAX_ASPECT * min(width, height)
  left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
  return left, top, left + min(width, longest), top + min(height, longest)


def as_rgb(picture: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
  """Pixels in three channels, whatever the mode (RGB or 8-bit grey)."""
  return np.array(picture.convert("RGB"))


def scaled_size(width: int, height: int, short: int) -> tuple[int, int]:
  """Width and height, pixels, of an image whose short side is resized to `short`."""
  # Rounded down, as torchvision's Resize does, which the published recipes use.
  if width <= height:
    return short, short * height // width
  return short * width // height, short


def _cut(picture: Image.Image, left: int, top: int, size: int) -> Image.Image:
  return picture.crop((left, top, left + size, top + size))
