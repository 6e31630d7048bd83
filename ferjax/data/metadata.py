"""Removes metadata from encoded image files.

Pillow reads EXIF, colour profiles, texts and previews when it opens a file, and refuses the file if
one of them is damaged or too large. These functions keep only what determines the pixels, and the
orientation if it is undamaged.
"""

import struct
import zlib
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_START, _JPEG_PIXELS = b"\xff\xd8", 0xDA
_JFIF, _EXIF, _ADOBE = 0xE0, 0xE1, 0xEE  # application segments; the others are ancillary
_WEBP_PIXELS = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_WEBP_METADATA = 0x20 | 0x08 | 0x04  # bits of VP8X: a profile, EXIF, XMP follow
# TIFF tags that determine the pixels or their orientation.
_TIFF_PIXELS = frozenset(
  {254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320}
  | {322, 323, 324, 325, 332, 338, 339, *range(512, 522), 347, 529, 530, 531, 532}
)


def without_metadata(data: bytes) -> bytes:
  """Removes the ancillary blocks of an encoded image; other formats are returned unchanged.

  A truncated block is left out, or, if the pixels need it, ends the file.
  """
  if data.startswith(_PNG):
    return _PNG + b"".join(_png_chunks(data))
  if data.startswith(_JPEG_START):
    return _JPEG_START + b"".join(_jpeg_segments(data))
  if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
    content = b"WEBP" + b"".join(_webp_chunks(data))
    return b"RIFF" + struct.pack("<I", len(content)) + content
  if data[:4] in (b"II*\0", b"MM\0*"):
    return _tiff(data)
  if data[4:8] == b"ftyp":
    return _heif(data)
  return data


def _png_chunks(data: bytes) -> Iterator[bytes]:
  """Critical chunks, transparency, and undamaged EXIF."""
  position = len(_PNG)
  while position + 12 <= len(data):
    length = int.from_bytes(data[position : position + 4], "big")
    chunk = data[position : position + 12 + length]
    name, is_critical = chunk[4:8], not chunk[4] & 0x20
    if is_critical or name == b"tRNS" or (name == b"eXIf" and _has_valid_checksum(chunk)):
      yield chunk
    position += 12 + length


def _has_valid_checksum(chunk: bytes) -> bool:
  return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
  position = len(_JPEG_START)
  while position + 4 <= len(data):
    if data[position] != 0xFF:
      position += 1  # decoders search for the next marker
      continue
    marker = data[position + 1]
    if marker == 0xFF:  # a fill byte
      position += 1
      continue
    if marker == _JPEG_PIXELS:
      break
    length = 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    segment = data[position : position + length]
    # JFIF and Adobe define the colour space; libjpeg needs their minimum length.
    least = {_JFIF: 16, _ADOBE: 14}.get(marker, 0)
    is_ancillary = marker == 0xFE or (0xE0 <= marker <= 0xEF and marker not in (_JFIF, _ADOBE))
    is_exif = marker == _EXIF and segment[4:10] == b"Exif\0\0"
    if is_exif or (not is_ancillary and len(segment) >= least):
      yield segment
    position += length
  yield data[position:]


def _webp_chunks(data: bytes) -> Iterator[bytes]:
  position = 12
  while position + 8 <= len(data):
    name, length = data[position : position + 4], *struct.unpack_from("<I", data, position + 4)
    end = position + 8 + length + length % 2
    chunk = data[position:end]
    if name == b"VP8X" and length:
      chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_METADATA]) + chunk[9:]
    if name in _WEBP_PIXELS:
      yield chunk
    position = end


def _tiff(data: bytes) -> bytes:
  """Removes the other entries of the first directory, and all further directories."""
  order = "<" if data[:2] == b"II" else ">"
  (start,) = struct.unpack_from(order + "I", data, 4) if len(data) >= 8 else (0,)
  if not 8 <= start <= len(data) - 2:
    return data
  (count,) = struct.unpack_from(order + "H", data, start)
  table = data[start + 2 : start + 2 + 12 * count]
  entries = [table[i : i + 12] for i in range(0, len(table) - 11, 12)]
  kept = [entry for entry in entries if _is_for_tiff_pixels(entry, order)]
  directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
  # The old directory is at least as long and is overwritten in place, so offsets stay valid.
  return data[:start] + directory + data[start + len(directory) :]


def _is_for_tiff_pixels(entry: bytes, order: str) -> bool:
  tag, kind, count = struct.unpack_from(order + "HHI", entry)
  is_short = (kind, count) == (3, 1)
  return tag in _TIFF_PIXELS and (tag != 274 or is_short)


def _heif(data: bytes) -> bytes:
  """HEIF and AVIF: gives EXIF and XMP items a type that readers ignore."""
  output, position = bytearray(data), 0
  while position + 8 <= len(data):
    length = int.from_bytes(data[position : position + 4], "big")
    if data[position + 4 : position + 8] == b"meta" and length >= 8:
      box = data[position : position + length]
      output[position : position + length] = box.replace(b"Exif", b"free").replace(b"mime", b"free")
    if length < 8:  # extends to the end of the file, or a 64-bit length, which only pixels have
      break
    position += length
  return bytes(output)
