"""Images of every kind have the right pixels, or are refused before they take memory."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ferjax.data.image import ImageError, decode
from fuzz.checks import memory_below

# Format -> options with which it keeps every pixel.
LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True, "exact": True}}
MODES = {
  "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
  "TIFF": ("1", "L", "P", "RGB", "RGBA", "I;16", "F"),
  "WEBP": ("RGB", "RGBA"),
}
SIDES = st.integers(1, 12) | st.sampled_from((1, 200))


def _upright(pixels, orientation):
  """By the definition of the EXIF tag: where row 0 and column 0 of the stored image are shown."""
  if orientation >= 5:
    pixels = pixels.transpose(1, 0, 2)
  rows = -1 if orientation in (3, 4, 7, 8) else 1
  columns = -1 if orientation in (2, 3, 6, 7) else 1
  return pixels[::rows, ::columns]


def _on_white(levels, alpha):
  alpha = alpha[..., None].astype(np.float64) / 255
  return levels * alpha + 255 * (1 - alpha)


def _image(mode, height, width, seed):
  """An image, and the RGB levels that a viewer shows."""
  noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
  grey, colour, alpha = noise[..., 0], noise[..., :3], noise[..., 3]
  repeated = np.repeat(grey[..., None], 3, axis=-1)
  if mode == "1":
    return Image.fromarray(grey >= 128), np.where(repeated >= 128, 255, 0)
  if mode == "L":
    return Image.fromarray(grey), repeated
  if mode == "LA":
    stored = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    return stored, _on_white(repeated, alpha)
  if mode == "P":
    image = Image.fromarray(grey % 4).convert("L")
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 99, 255, 255, 255])
    palette = np.array([[10, 20, 30], [200, 0, 0], [0, 0, 99], [255, 255, 255]])
    return image, palette[grey % 4]
  if mode == "I;16":
    return Image.fromarray(grey.astype(np.uint16) * 257), repeated
  if mode == "F":
    return Image.fromarray(grey.astype(np.float32) / 255), repeated
  if mode == "RGBA":
    return Image.fromarray(noise), _on_white(colour, alpha)
  return Image.fromarray(colour), colour


@settings(max_examples=150)
@given(st.data())
def test_every_mode_and_orientation(data):
  format = data.draw(st.sampled_from(list(LOSSLESS)))
  mode = data.draw(st.sampled_from(MODES[format]))
  height, width = data.draw(SIDES), data.draw(SIDES)
  orientation = data.draw(st.integers(1, 8))
  image, shown = _image(mode, height, width, data.draw(st.integers(0, 99)))
  exif = Image.Exif()
  exif[0x0112] = orientation
  file = io.BytesIO()
  image.save(file, format, exif=exif, **LOSSLESS[format])
  decoded = decode(file.getvalue())
  np.testing.assert_allclose(decoded, _upright(shown, orientation), atol=1)


@given(st.lists(st.integers(0, 255), min_size=3, max_size=3), st.integers(2, 4))
def test_the_first_frame_of_an_animation(colour, count):
  frames = [Image.new("RGB", (5, 4), tuple(colour)), *[Image.new("RGB", (5, 4), "blue")] * count]
  for format, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
    file = io.BytesIO()
    frames[0].save(file, format, save_all=True, append_images=frames[1:], **options)
    assert (decode(file.getvalue()) == np.array(colour)).all()


@given(st.lists(st.integers(0, 255), min_size=4, max_size=4))
def test_cmyk(ink):
  file = io.BytesIO()
  Image.new("CMYK", (3, 2), tuple(ink)).save(file, "TIFF")
  *colours, black = (255 - x for x in ink)
  expected = [x * black / 255 for x in colours]
  np.testing.assert_allclose(decode(file.getvalue()), np.full((2, 3, 3), expected), atol=1.5)


@pytest.mark.parametrize("size", [(200_000, 1), (1, 60_000), (1, 1)])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "GIF"])
def test_extreme_shapes(size, format):
  if max(size) > 65_535 and format in ("JPEG", "GIF"):
    size = (65_500, 1) if format == "JPEG" else (65_535, 1)
  file = io.BytesIO()
  Image.new("L", size, 100).save(file, format)
  pixels = decode(file.getvalue())
  assert pixels.shape == (size[1], size[0], 3)
  assert np.abs(pixels.astype(int) - 100).max() <= 2


def _png(width, height):
  def chunk(name, content):
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  pixels = zlib.compress(bytes(10**6))
  return (
    b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
  )


def _gif(width, height):
  size = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
  palette = bytes(6)
  return b"GIF89a" + size + b"\x80\0\0" + palette + b"," + bytes(4) + size + b"\0\x02\x02D\x01\0;"


def _bmp(width, height):
  header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
  return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def _jpeg(width, height):
  file = io.BytesIO()
  Image.new("RGB", (8, 8)).save(file, "JPEG")
  data = file.getvalue()
  start = data.index(b"\xff\xc0") + 5
  return data[:start] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + data[start + 4 :]


def _tiff(width, height):
  entries = ((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (262, 3, 1, 1))
  entries += ((273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 100))
  table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
  return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)


def _ppm(width, height):
  return f"P6 {width} {height} 255 ".encode()


def _webp(width, height):
  canvas = struct.pack("<I", 0) + struct.pack("<I", (width - 1) & 0xFFFFFF)[:3]
  canvas += struct.pack("<I", (height - 1) & 0xFFFFFF)[:3]
  content = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas
  return b"RIFF" + struct.pack("<I", len(content)) + content


MAKERS = (_png, _gif, _bmp, _jpeg, _tiff, _ppm, _webp)


@settings(max_examples=150)
@given(st.sampled_from(MAKERS), st.integers(15_000, 2**31 - 1), st.integers(15_000, 2**31 - 1))
def test_bombs_take_no_memory(make, width, height):
  """A few bytes that claim to be more pixels than memory holds."""
  if make in (_gif, _jpeg):
    width, height = 60_000, 60_000
  with memory_below(2**26), pytest.raises(ImageError) as caught:
    decode(make(width, height), origin="bomb")
  assert str(caught.value).startswith("bomb: ")
  assert "\n" not in str(caught.value)


def test_an_icon_with_a_larger_image_inside():
  """The size of its header is checked before its pixels are read, and that of these after it."""
  inside = io.BytesIO()
  Image.new("RGB", (600, 600)).save(inside, "PNG")
  content = inside.getvalue()
  entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(content), 22)
  with pytest.raises(ImageError, match="600x600 pixels are more than the limit of 100000"):
    decode(struct.pack("<HHH", 0, 1, 1) + entry + content, max_pixels=100_000)


def test_no_other_program_is_started():
  """Pillow decodes EPS with Ghostscript, whatever the file is called."""
  eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n%%EOF\n"
  with pytest.raises(ImageError, match="a EPS file, which is not decoded; save it as PNG or JPEG"):
    decode(eps)
