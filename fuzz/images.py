"""Images: encoded bytes of any kind."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from ferjax.data.image import decode
from fuzz.checks import user_errors

MAX_PIXELS = 2**20  # 3 MB decoded, so that a file that takes more memory is noticed
# Format -> modes, and options of some.
_MODES = {
  "AVIF": ("RGB", "RGBA"),
  "BLP": ("P",),
  "BMP": ("1", "L", "P", "RGB", "RGBA"),
  "DDS": ("L", "LA", "RGB", "RGBA"),
  "DIB": ("RGB",),
  "GIF": ("1", "L", "P", "RGB"),
  "ICO": ("RGBA",),
  "IM": ("L", "P", "RGB", "CMYK", "F"),
  "JPEG": ("L", "RGB", "CMYK"),
  "JPEG2000": ("L", "RGB", "RGBA"),
  "MSP": ("1",),
  "PCX": ("1", "L", "P", "RGB"),
  "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
  "PPM": ("1", "L", "RGB", "F", "I;16"),
  "QOI": ("RGB", "RGBA"),
  "SGI": ("L", "RGB", "RGBA"),
  "SPIDER": ("F",),
  "TGA": ("L", "LA", "P", "RGB", "RGBA"),
  "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "F", "I", "I;16"),
  "WEBP": ("RGB", "RGBA"),
  "XBM": ("1",),
}
_ANIMATED = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")
_UPRIGHT = 0x0112  # the EXIF tag of the orientation


def decode_image(data: bytes) -> None:
  """Decodes an image."""
  with user_errors():
    pixels = decode(data, origin="image", max_pixels=MAX_PIXELS)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS


def seeds() -> dict[str, bytes]:
  """A small image of each format and mode that the installed Pillow writes, and of other kinds."""
  Image.init()
  return dict(_seeds())


def _seeds() -> Iterator[tuple[str, bytes]]:
  for format, modes in _MODES.items():
    for mode in modes if format in Image.SAVE else ():
      yield f"{format}-{mode}".replace(";", "").lower(), _encoded(_image(mode), format)
  for format in _ANIMATED:
    if format in Image.SAVE:
      frames = [_image("RGB"), _image("RGB").rotate(180)]
      options = {"save_all": True, "append_images": frames[1:]}
      yield f"{format}-animated".lower(), _encoded(frames[0], format, **options)
  exif = Image.Exif()
  exif[_UPRIGHT] = 6
  for format in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF"):
    if format in Image.SAVE:
      yield f"{format}-rotated".lower(), _encoded(_image("RGB"), format, exif=exif)
  yield "jpeg-progressive", _encoded(_image("RGB"), "JPEG", progressive=True)
  yield "png-transparent", _encoded(_image("P"), "PNG", transparency=3)
  yield "tiff-deflate", _encoded(_image("RGB"), "TIFF", compression="tiff_adobe_deflate")
  yield "tiff-jpeg", _encoded(_image("RGB"), "TIFF", compression="jpeg")
  yield "eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n%%EOF\n"


def _image(mode: str) -> Image.Image:
  levels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
  if mode == "I;16":
    return Image.fromarray(levels[..., 0].astype(np.uint16) * 257)
  if mode == "LAB":
    return Image.merge("LAB", [Image.fromarray(levels[..., c]) for c in range(3)])
  return Image.fromarray(levels).convert("L" if mode in ("F", "I") else mode).convert(mode)


def _encoded(image: Image.Image, format: str, **options) -> bytes:
  file = io.BytesIO()
  image.save(file, format, **options)
  return file.getvalue()
