"""Metadata never prevent pixels from being read."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ferjax.data.image import ImageError, decode
from ferjax.data.metadata import without_metadata

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
SIDEWAYS = Image.Exif()
SIDEWAYS[0x0112] = 6
BOMB = zlib.compress(bytes(4_000_000))  # more than Pillow's MAX_TEXT_CHUNK


def _encode(format, **options):
  buffer = io.BytesIO()
  Image.fromarray(PIXELS).save(buffer, format, **options)
  return buffer.getvalue()


def _chunk(name, content):
  end = struct.pack(">I", zlib.crc32(name + content))
  return struct.pack(">I", len(content)) + name + content + end


def _png(*chunks, late=False, **options):
  data = _encode("PNG", **options)
  place = len(data) - 12 if late else 33  # before IEND, or after IHDR
  return data[:place] + b"".join(chunks) + data[place:]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
  "chunk",
  [
    _chunk(b"zTXt", b"k\0\0" + BOMB),
    _chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB),
    _chunk(b"iCCP", b"k\0\0" + BOMB),
    _chunk(b"iCCP", b"k\0\0no profile"),
    _chunk(b"iCCP", b"k\0\7"),
    _chunk(b"tEXt", b"k\0text")[:-1] + b"?",  # wrong sum
    _chunk(b"tEXt", b"Raw profile type exif\0\nexif\n4\nzz"),
    _chunk(b"gAMA", b"\0"),
    _chunk(b"cHRM", b"\0"),
    _chunk(b"pHYs", b"\0"),
    _chunk(b"acTL", b"\0"),
    _chunk(b"fcTL", b"\0"),
    _chunk(b"eXIf", b"\0"),
    _chunk(b"eXIf", b"Exif\0\0garbage"),
  ],
  ids=lambda chunk: chunk[4:8].decode(),
)
def test_png(chunk, late):
  np.testing.assert_array_equal(decode(_png(chunk, late=late)), PIXELS)


def test_png_with_many_large_texts():
  texts = [_chunk(b"tEXt", b"k\0" + bytes(1_000_000))] * 66  # more than MAX_TEXT_MEMORY
  np.testing.assert_array_equal(decode(_png(*texts)), PIXELS)


def test_orientation_is_kept_if_another_block_is_damaged():
  data = _png(_chunk(b"zTXt", b"k\0\0" + BOMB), exif=SIDEWAYS)
  np.testing.assert_array_equal(decode(data), np.rot90(PIXELS, -1))
  plain = decode(_encode("JPEG"))
  data = _encode("JPEG", exif=SIDEWAYS)
  data = data[:2] + _segment(0xE2, b"ICC_PROFILE\0") + data[2:]
  np.testing.assert_array_equal(decode(data), np.rot90(plain, -1))


def _segment(marker, content):
  return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


GARBAGE = _segment(0xE1, b"Exif\0\0garbage")


@pytest.mark.parametrize("before", [b"", GARBAGE], ids=["alone", "after EXIF"])
@pytest.mark.parametrize(
  "segment",
  [
    GARBAGE,
    _segment(0xE2, b"ICC_PROFILE\0"),
    _segment(0xEE, b"Adobe"),
    _segment(0xE0, b"JFIF"),
    _segment(0xED, b"Photoshop 3.0\x008BIM"),
    _segment(0xE2, b"MPF\0garbage"),
    _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<tiff:Orientation=\xff"),
    _segment(0xFE, b""),
  ],
  ids=lambda segment: segment[4:9].decode("latin-1").strip("\0") or "comment",
)
@pytest.mark.parametrize("options", [{}, {"dpi": (72, 72)}])
def test_jpeg(segment, before, options):
  data = _encode("JPEG", **options)
  damaged = data[:2] + before + segment + data[2:]
  np.testing.assert_array_equal(decode(damaged), decode(data))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "MPO", "TIFF"])
def test_exif_of_any_bytes(format):
  if format == "AVIF" and ".avif" not in Image.registered_extensions():
    pytest.skip("this Pillow reads no AVIF")
  exif = Image.Exif()
  exif[0x010F] = "a maker"
  exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
  options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}, "JPEG": {"dpi": (72, 72)}}
  data = _encode(format, exif=exif, **options.get(format, {}))
  if format == "TIFF":  # EXIF is the directory itself: all entries except those of the pixels
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = range(start + 2, start + 2 + 12 * count, 12)
    entries = [at for at in entries if struct.unpack_from("<H", data, at)[0] in (0x010F, 0x8769)]
    places = [at + byte for at in entries for byte in range(2, 12)]
  else:
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    places = range(data.index(block), data.index(block) + len(block))
  assert places
  expected, rng = decode(data), np.random.default_rng(1)
  for _ in range(40):
    damaged = bytearray(data)
    for place in rng.choice(places, 4):
      damaged[place] = rng.integers(256)
    np.testing.assert_array_equal(decode(bytes(damaged)), expected)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_the_rest_keeps_the_pixels(format):
  if format == "AVIF" and ".avif" not in Image.registered_extensions():
    pytest.skip("this Pillow reads no AVIF")
  options = {"icc_profile": b"x" * 300} | ({"dpi": (72, 72)} if format != "AVIF" else {})
  data = _encode(format, exif=SIDEWAYS, **options)
  plain = without_metadata(data)
  assert b"x" * 300 not in plain or format in ("TIFF", "AVIF")
  with Image.open(io.BytesIO(plain)) as image, Image.open(io.BytesIO(data)) as whole:
    assert format != "WEBP" or "exif" not in image.info
    np.testing.assert_array_equal(np.asarray(image), np.asarray(whole))


def _is_readable(data):
  try:
    decode(data)
  except ImageError:
    return False
  return True


def test_damaged_pixels_remain_an_error():
  plain, bomb = _png(), _chunk(b"zTXt", b"k\0\0" + BOMB)
  cut = range(0, len(plain) - 60, 7)  # bytes that are missing
  readable = [_is_readable(plain[: len(plain) - missing]) for missing in cut]
  assert readable[0]
  assert not any(readable[5:])
  assert [_is_readable(_png(bomb)[: len(_png(bomb)) - missing]) for missing in cut] == readable


def test_damaged_transparency_is_an_error():
  data = _png()
  transparency = _chunk(b"tRNS", b"\0\1\0\1\0\1")[:-1] + b"?"
  with pytest.raises(ImageError, match="tRNS"):
    decode(data[:33] + transparency + data[33:])


def test_a_format_without_known_blocks():
  assert without_metadata(_encode("BMP")) == _encode("BMP")
  assert without_metadata(b"") == b""


def test_pixel_errors_are_reported_first():
  bomb = _png(_chunk(b"zTXt", b"k\0\0" + BOMB))
  with pytest.raises(ImageError, match="24x16 pixels are more than the limit of 100"):
    decode(bomb, max_pixels=100)
