"""Each mode that Pillow opens is converted to RGB by a rule, or refused by name."""

import io
import struct
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image, TiffImagePlugin

from ferjax.data.image import ImageError, decode
from ferjax.data.pixel_modes import PixelError, to_rgb


def _encode(image, format="TIFF", **options):
  buffer = io.BytesIO()
  image.save(buffer, format, **options)
  return buffer.getvalue()


def _row(mode, *pixels):
  image = Image.new(mode, (len(pixels), 1))
  image.putdata(pixels)
  return image


def _rgb(*pixels):
  return [[[x] * 3 if isinstance(x, int) else list(x) for x in pixels]]


def _of(image):
  return np.asarray(to_rgb(image)).tolist()


def _png(depth, colour, row, transparent=b""):
  """A PNG file of two or more pixels in a line; Pillow writes none of these kinds."""

  def chunk(name, content):
    end = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + end

  channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
  width = len(row) * 8 // (depth * channels)
  header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
  chunks = [chunk(b"IHDR", header)]
  chunks += [chunk(b"tRNS", transparent)] if transparent else []
  chunks += [chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
  return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _tiff(samples, *, bits, photometric=1, sample_format=1, extra=None):
  """An uncompressed TIFF file of one line, from its bytes."""
  channels = len(bits)
  entries = [
    (256, 4, 1, struct.pack("<I", len(samples) * 8 // sum(bits))),
    (257, 4, 1, struct.pack("<I", 1)),
    (258, 3, channels, struct.pack(f"<{channels}H", *bits)),
    (259, 3, 1, struct.pack("<HH", 1, 0)),
    (262, 3, 1, struct.pack("<HH", photometric, 0)),
    (273, 4, 1, struct.pack("<I", 8)),
    (277, 3, 1, struct.pack("<HH", channels, 0)),
    (278, 4, 1, struct.pack("<I", 1)),
    (279, 4, 1, struct.pack("<I", len(samples))),
    (339, 3, 1, struct.pack("<HH", sample_format, 0)),
  ]
  if extra is not None:
    entries.append((338, 3, 1, struct.pack("<HH", extra, 0)))
  body = samples + bytes(len(samples) % 2)
  table = b""
  for tag, kind, count, value in sorted(entries):
    if len(value) > 4:
      value, body = struct.pack("<I", 8 + len(body)), body + value
    table += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
  directory = struct.pack("<H", len(entries)) + table + bytes(4)
  return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory


@pytest.mark.parametrize(
  ("mode", "pixels", "expected"),
  [
    ("1", (0, 255), (0, 255)),
    ("L", (0, 7, 255), (0, 7, 255)),
    ("LA", ((80, 255), (80, 0), (0, 51)), (80, 255, 204)),
    ("RGB", ((1, 2, 3),), ((1, 2, 3),)),
    ("RGBA", ((200, 100, 0, 255), (200, 100, 0, 0)), ((200, 100, 0), 255)),
    ("RGBX", ((200, 100, 0, 9),), ((200, 100, 0),)),
    ("CMYK", ((255, 0, 0, 0), (0, 0, 0, 255)), ((0, 255, 255), 0)),
    ("YCbCr", ((255, 128, 128), (0, 128, 128)), (255, 0)),
    ("HSV", ((0, 255, 255), (0, 0, 128)), ((255, 0, 0), 128)),
    ("F", (0.0, 0.5, 1.0), (0, 128, 255)),
    ("F", (0.0, 1.5, 255.0), (0, 2, 255)),
    ("F", (0.0, 257.0, 65535.0), (0, 1, 255)),
    ("I", (0, 3, 255), (0, 3, 255)),
    ("I", (0, 257, 65535), (0, 1, 255)),
    ("I;16", (0, 128, 129, 65535), (0, 0, 1, 255)),
    ("I;16B", (0, 257, 32896), (0, 1, 128)),
  ],
)
def test_modes(mode, pixels, expected):
  assert _of(_row(mode, *pixels)) == _rgb(*expected)


def test_premultiplied_grey():
  image = _row("LA", (80, 255), (200, 51)).convert("La")
  assert _of(image) == _rgb(80, 244)  # 0.2 * 200 + 0.8 * 255
  image = _row("RGBA", (80, 80, 80, 255), (200, 200, 200, 0)).convert("RGBa")
  assert _of(image) == _rgb(80, 255)


def test_palettes():
  image = _row("P", 0, 1)
  image.putpalette([10, 20, 30, 200, 0, 0])
  assert _of(image) == _rgb((10, 20, 30), (200, 0, 0))
  image.putpalette([10, 20, 30, 255, 200, 0, 0, 0], "RGBA")
  assert _of(image) == _rgb((10, 20, 30), 255)
  image = _row("PA", (0, 255), (1, 0))
  image.putpalette([10, 20, 30, 200, 0, 0])
  assert _of(image) == _rgb((10, 20, 30), 255)


def test_lab():
  # White, black, and L* = 53.2, a* = 80, b* = 67, which is the red of sRGB.
  pixels = struct.pack("9b", -1, 0, 0, 0, 0, 0, -120, 80, 67)
  decoded = decode(_tiff(pixels, bits=(8, 8, 8), photometric=8)).astype(int)
  np.testing.assert_allclose(decoded, [[[255] * 3, [0] * 3, [255, 0, 0]]], atol=12)


@pytest.mark.parametrize(
  ("mode", "pixels", "message"),
  [
    ("F", (-0.5, 1.0), r"float pixels of -0.5 to 1 .*0\.\.1, 0\.\.255, 0\.\.65535"),
    ("F", (0.0, 1e9), r"float pixels of 0 to 1e\+09"),
    ("F", (0.0, float("nan")), "float pixels"),
    ("F", (0.0, float("inf")), "to inf"),
    ("I", (-1, 5), r"32-bit integer pixels of -1 to 5 .*0\.\.255, 0\.\.65535"),
    ("I", (0, 70000), "of 0 to 70000"),
  ],
)
def test_pixels_without_a_known_scale(mode, pixels, message):
  with pytest.raises(PixelError, match=message):
    to_rgb(_row(mode, *pixels))


def test_errors_name_the_file():
  with pytest.raises(ImageError, match=r"^scan: float pixels of -1 to 1 have no known scale"):
    decode(_encode(_row("F", -1.0, 1.0)), origin="scan")


def test_files_of_deep_pixels():
  assert decode(_encode(_row("F", 0.0, 1.0))).tolist() == _rgb(0, 255)
  assert decode(_encode(_row("I", 0, 255))).tolist() == _rgb(0, 255)
  assert decode(b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", 0.25, 1)).tolist() == _rgb(64, 255)
  # 10 bits: the file defines white, whatever its lightest pixel.
  assert decode(b"P5\n2 1\n1023\n" + struct.pack(">2H", 1, 3)).tolist() == _rgb(0, 1)
  assert decode(_encode(_row("I;16", 0, 65535), "JPEG2000")).tolist() == _rgb(0, 255)
  colour = struct.pack("<6H", 0, 257, 65535, 0x1234, 0, 0x80FF)
  expected = _rgb((0, 1, 255), (0x12, 0, 0x80))  # the upper byte of colours
  assert decode(_tiff(colour, bits=(16,) * 3, photometric=2)).tolist() == expected
  swapped = np.frombuffer(colour, "<u2").astype(">u2").tobytes()
  assert decode(_png(16, 2, swapped)).tolist() == expected


def test_tiff_of_12_bits():
  assert decode(_tiff(b"\x00\x0f\xff", bits=(12,))).tolist() == _rgb(0, 255)
  assert decode(_tiff(b"\x80\x00\x10", bits=(12,))).tolist() == _rgb(128, 1)


def test_tiff_whose_white_is_zero():
  deep = struct.pack("<2H", 0, 65535)
  assert decode(_tiff(deep, bits=(16,), photometric=0)).tolist() == _rgb(255, 0)
  floats = struct.pack("<2f", 0, 1)
  decoded = decode(_tiff(floats, bits=(32,), photometric=0, sample_format=3))
  assert decoded.tolist() == _rgb(255, 0)


def test_tiff_of_two_channels():
  assert decode(_tiff(bytes([80, 255, 80, 0]), bits=(8, 8), extra=2)).tolist() == _rgb(80, 255)
  not_alpha = _tiff(bytes([80, 255, 80, 0]), bits=(8, 8), extra=0)
  premultiplied = _tiff(bytes([80, 255, 0, 0]), bits=(8, 8), extra=1)
  if int(PIL.__version__.partition(".")[0]) >= 13:
    assert decode(not_alpha).tolist() == _rgb(80, 80)
    assert decode(premultiplied).tolist() == _rgb(80, 255)
  else:
    for unknown in (not_alpha, premultiplied):
      with pytest.raises(ImageError, match="unknown pixel mode"):
        decode(unknown)


def test_an_unknown_mode_is_named():
  data = _tiff(bytes(16), bits=(64,), sample_format=3)
  with pytest.raises(ImageError, match=r"^scan: a TIFF file that cannot be opened.*pixel mode"):
    decode(data, origin="scan")


@pytest.mark.parametrize(
  ("depth", "colour", "row", "transparent", "expected"),
  [
    (1, 0, b"\x40", b"\0\1", (0, 255, 0, 0, 0, 0, 0, 0)),
    (2, 0, b"\x1b", b"\0\3", (0, 85, 170, 255)),
    (2, 0, b"\x1b", b"\0\1", (0, 255, 170, 255)),
    (4, 0, b"\x2f", b"\0\2", (255, 255)),
    (8, 0, b"\x05\x07", b"\0\5", (255, 7)),
    (16, 0, struct.pack(">2H", 257, 514), struct.pack(">H", 257), (255, 2)),
    (8, 2, bytes([1, 2, 3, 4, 5, 6]), struct.pack(">3H", 1, 2, 3), (255, (4, 5, 6))),
    (
      16,
      2,
      struct.pack(">6H", 256, 512, 768, 1024, 0, 0),
      struct.pack(">3H", 256, 512, 768),
      (255, (4, 0, 0)),
    ),
    (16, 4, struct.pack(">4H", 257 * 80, 65535, 0, 0), b"", (80, 255)),
    (16, 6, struct.pack(">8H", 257, 514, 0, 65535, 9, 9, 9, 0), b"", ((1, 2, 0), 255)),
  ],
)
def test_transparency_of_png(depth, colour, row, transparent, expected):
  assert decode(_png(depth, colour, row, transparent)).tolist() == _rgb(*expected)


def test_tiff_that_pillow_writes():
  ifd = TiffImagePlugin.ImageFileDirectory_v2()
  ifd[262] = 0
  image = Image.fromarray(np.array([[0, 65535]], np.uint16))
  assert decode(_encode(image, tiffinfo=ifd)).tolist() == _rgb(255, 0)
