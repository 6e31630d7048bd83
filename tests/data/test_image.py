"""Decoding, letterbox and normalisation."""

import io
import re
import sys
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile

from ferjax.data import image as image_lib


def _encode(image: Image.Image, format: str = "PNG", **options) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, format, **options)
  return buffer.getvalue()


def _gradient(height=24, width=40) -> np.ndarray:
  rows, columns = np.mgrid[:height, :width]
  return np.stack([rows * 5, columns * 6, rows + columns], -1).astype(np.uint8)


def test_decode_rgb_is_exact_from_path_and_bytes(tmp_path):
  pixels = _gradient()
  path = tmp_path / "a b.png"
  Image.fromarray(pixels).save(path)
  for source in (path, str(path), path.read_bytes()):
    np.testing.assert_array_equal(image_lib.decode(source), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_applies_exif_orientation(orientation):
  pixels = _gradient()
  exif = Image.Exif()
  exif[0x0112] = orientation
  # The definition of the tag: the corner of the upright image where row 0 and column 0 meet.
  shown = {
    1: pixels,
    2: pixels[:, ::-1],
    3: pixels[::-1, ::-1],
    4: pixels[::-1],
    5: pixels.transpose(1, 0, 2),
    6: pixels[::-1].transpose(1, 0, 2),
    7: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: pixels[:, ::-1].transpose(1, 0, 2),
  }[orientation]
  data = _encode(Image.fromarray(pixels), exif=exif)
  np.testing.assert_array_equal(image_lib.decode(data), shown)


def _smooth_noise() -> Image.Image:
  noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8))
  return noise.resize((117, 83), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
  "options",
  [
    {"subsampling": "4:2:0"},
    {"subsampling": "4:2:2", "quality": 60},
    {"subsampling": "4:4:4", "progressive": True},
    {"keep_rgb": True},
  ],
)
def test_jpeg_has_the_pixels_that_pillow_decodes(tmp_path, mode, options):
  data = _encode(_smooth_noise().convert(mode), "JPEG", **options)
  expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
  path = tmp_path / "a.jpg"
  path.write_bytes(data)
  for source in (data, path):
    decoded = image_lib.decode(source)
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.flags.writeable


@pytest.mark.parametrize("where", ["exif", "xmp"])
def test_jpeg_is_rotated_upright(where):
  image, exif = _smooth_noise(), Image.Exif()
  exif[0x0112] = 6
  xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
  data = _encode(image, "JPEG", **({"exif": exif} if where == "exif" else {"xmp": xmp}))
  plain = image_lib.decode(_encode(image, "JPEG"))
  np.testing.assert_array_equal(image_lib.decode(data), np.rot90(plain, -1))


def test_truncated_jpeg_is_refused():
  data = _encode(_smooth_noise(), "JPEG")
  for missing in (2, 40, len(data) // 2):
    with pytest.raises(image_lib.ImageError, match=r"^photo: cannot be read, .* truncated"):
      image_lib.decode(data[:-missing], origin="photo")
  for length in (2, 3, 4, 20):
    with pytest.raises(image_lib.ImageError, match=r"^photo: "):
      image_lib.decode(data[:length], origin="photo")
  np.testing.assert_array_equal(image_lib.decode(data + b"rest"), image_lib.decode(data))


def test_large_jpeg_is_refused_by_its_header(monkeypatch):
  data = _encode(_smooth_noise(), "JPEG")
  with pytest.raises(image_lib.ImageError, match="117x83 pixels are more than the limit of 9710"):
    image_lib.decode(data, max_pixels=117 * 83 - 1)
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
  with pytest.raises(image_lib.ImageError, match="too many pixels"):
    image_lib.decode(data)


def test_only_some_formats_are_decoded():
  pixels = _gradient()
  formats = ("BMP", "PNG", "HEIF")
  for name in ("BMP", "PNG"):
    np.testing.assert_array_equal(
      image_lib.decode(_encode(Image.fromarray(pixels), name), formats=formats), pixels
    )
  for name in ("TIFF", "EPS", "PPM"):
    with pytest.raises(image_lib.ImageError, match="one of the formats BMP, PNG, HEIF"):
      image_lib.decode(_encode(Image.fromarray(pixels), name), formats=formats)


def test_mirrored():
  for channels in (1, 3):
    image = _gradient()[..., :channels]
    np.testing.assert_array_equal(image_lib.mirrored(image), image[:, ::-1])


def test_decode_grey_and_bilevel():
  grey = _gradient()[..., 1]
  expected = np.repeat(grey[..., None], 3, axis=-1)
  np.testing.assert_array_equal(image_lib.decode(_encode(Image.fromarray(grey))), expected)
  bilevel = Image.fromarray(grey).convert("1", dither=Image.Dither.NONE)
  expected = np.repeat(np.where(grey >= 128, 255, 0).astype(np.uint8)[..., None], 3, -1)
  np.testing.assert_array_equal(image_lib.decode(_encode(bilevel)), expected)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_decode_scales_16_bit_grey(format):
  levels = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
  decoded = image_lib.decode(_encode(Image.fromarray(levels), format))
  assert decoded[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
  assert (decoded == decoded[..., :1]).all()


def test_decode_composites_transparency_on_white():
  rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [0, 0, 0, 51]]], np.uint8)
  decoded = image_lib.decode(_encode(Image.fromarray(rgba)))
  np.testing.assert_array_equal(decoded, [[[200, 100, 0], [255, 255, 255], [204, 204, 204]]])
  la = np.array([[[80, 255], [80, 0]]], np.uint8)
  decoded = image_lib.decode(_encode(Image.fromarray(la)))
  np.testing.assert_array_equal(decoded, [[[80] * 3, [255] * 3]])


def test_decode_palette_with_transparency():
  image = Image.new("P", (3, 1))
  image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 99])
  image.putdata([0, 1, 2])
  opaque = image_lib.decode(_encode(image))
  np.testing.assert_array_equal(opaque, [[[10, 20, 30], [200, 0, 0], [0, 0, 99]]])
  one_index = image_lib.decode(_encode(image, transparency=1))
  np.testing.assert_array_equal(one_index, [[[10, 20, 30], [255, 255, 255], [0, 0, 99]]])
  per_index = image_lib.decode(_encode(image, transparency=bytes([255, 0, 255])))
  np.testing.assert_array_equal(per_index, one_index)


def test_decode_cmyk():
  image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
  decoded = image_lib.decode(_encode(image, "JPEG", quality=100))
  np.testing.assert_allclose(decoded, np.full((8, 8, 3), [0, 255, 255]), atol=3)


def test_decode_takes_first_frame():
  frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
  data = _encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
  np.testing.assert_array_equal(image_lib.decode(data)[0, 0], [255, 0, 0])


def test_decode_errors(tmp_path):
  with pytest.raises(image_lib.ImageError, match=r"^list.txt:3: file not found: .*gone\.jpg"):
    image_lib.decode(tmp_path / "gone.jpg", origin="list.txt:3")
  with pytest.raises(image_lib.ImageError, match=r"^list.txt:3: not an image"):
    image_lib.decode(b"hello", origin="list.txt:3")
  with pytest.raises(image_lib.ImageError, match="empty"):
    image_lib.decode(b"")
  with pytest.raises(image_lib.ImageError, match="cannot be read"):
    image_lib.decode(tmp_path)
  assert issubclass(image_lib.ImageError, ValueError)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_decode_refuses_truncated_files(format):
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  data = _encode(Image.fromarray(noise), format)
  with pytest.raises(image_lib.ImageError, match=r"^photo: "):
    image_lib.decode(data[: len(data) // 2], origin="photo")


def test_damaged_files_raise_only_image_errors():
  rng = np.random.default_rng(0)
  noise = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
  exif = Image.Exif()
  exif[0x0112] = 6
  messages = []
  for format in ("PNG", "JPEG", "WEBP"):
    data = np.frombuffer(_encode(noise, format, exif=exif), np.uint8)
    for _ in range(200):
      damaged = data.copy()
      damaged[rng.integers(0, min(len(data), 200), 4)] = rng.integers(0, 256, 4)
      try:
        image_lib.decode(damaged.tobytes(), max_pixels=10**6)
      except image_lib.ImageError as error:
        messages.append(str(error))
  assert len(messages) > 50
  assert all(re.match(r"\d+ bytes: ", message) for message in messages)


def test_decode_refuses_too_many_pixels_before_decoding(monkeypatch):
  data = _encode(Image.new("L", (100, 50)))
  assert image_lib.decode(data, max_pixels=5000).shape == (50, 100, 3)
  monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
  with pytest.raises(image_lib.ImageError, match="100x50 pixels are more than the limit of 4999"):
    image_lib.decode(data, max_pixels=4999)


def test_too_little_memory_is_an_image_error(monkeypatch):
  def load(self):
    raise MemoryError

  data = _encode(Image.new("L", (100, 50)))
  monkeypatch.setattr(ImageFile.ImageFile, "load", load)
  with pytest.raises(
    image_lib.ImageError, match=r"^photo: its pixels need more memory than is available"
  ):
    image_lib.decode(data, origin="photo")


def test_decode_silences_pillow_and_keeps_its_settings(monkeypatch):
  data = _encode(Image.new("L", (100, 50)))
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # Pillow warns from here on
  before = list(warnings.filters)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert image_lib.decode(data).shape == (50, 100, 3)
  assert warnings.filters == before
  assert Image.MAX_IMAGE_PIXELS == 4000
  assert not ImageFile.LOAD_TRUNCATED_IMAGES
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
  with pytest.raises(image_lib.ImageError, match="too many pixels"):
    image_lib.decode(data)


def test_threads_keep_the_warning_filters():
  data = _encode(Image.new("RGB", (8, 8)))
  before = list(warnings.filters)
  work = [
    threading.Thread(target=lambda: [image_lib.decode(data) for _ in range(50)]) for _ in range(4)
  ]
  interval = sys.getswitchinterval()
  sys.setswitchinterval(1e-6)
  for thread in work:
    thread.start()
  for thread in work:
    thread.join()
  sys.setswitchinterval(interval)
  assert warnings.filters == before


@pytest.mark.parametrize(
  ("width", "height", "placement"),
  [
    (640, 320, (0.5, 0.5, 0, 80, 640, 320)),
    (320, 640, (0.5, 0.5, 80, 0, 320, 640)),
    (100, 100, (3.2, 3.2, 0, 0, 100, 100)),
    (320, 320, (1, 1, 0, 0, 320, 320)),
    # 333 * 320 / 500 = 213.12: 213 rows, 107 grey ones of which 53 above.
    (500, 333, (0.64, 213 / 333, 0, 53, 500, 333)),
    (2000, 1, (0.16, 1, 0, 159, 2000, 1)),
    (200000, 1, (0.0016, 1, 0, 159, 200000, 1)),
  ],
)
def test_letterbox_placement(width, height, placement):
  image = np.full((height, width, 3), 7, np.uint8)
  square, actual = image_lib.letterbox(image, 320)
  np.testing.assert_allclose(actual, placement, rtol=1e-6)
  scale_x, scale_y, left, top = actual[:4]
  inside = np.zeros((320, 320), bool)
  x, y = int(left), int(top)
  inside[y : y + round(height * scale_y), x : x + round(width * scale_x)] = True
  assert (square[inside] == 7).all()
  assert (square[~inside] == 128).all()


def test_letterbox_is_bicubic_and_leaves_fitting_images():
  image = np.random.default_rng(0).integers(0, 256, (30, 60, 3), np.uint8)
  square, _ = image_lib.letterbox(image, 32)
  expected = Image.fromarray(image).resize((32, 16), Image.Resampling.BICUBIC)
  np.testing.assert_array_equal(square[8:24], np.asarray(expected))
  np.testing.assert_array_equal(image_lib.letterbox(image[:, :30], 30)[0], image[:, :30])
  assert (image_lib.letterbox(image, 64, fill=3)[0][0] == 3).all()


def test_place_boxes():
  _, placement = image_lib.letterbox(np.zeros((320, 640, 3), np.uint8), 320)
  boxes = np.array([[0, 0, 640, 320], [100, 40, 200, 80]], np.float32)
  placed = image_lib.place_boxes(boxes, placement)
  np.testing.assert_array_equal(placed, [[0, 80, 320, 240], [50, 100, 100, 120]])
  assert placed.dtype == np.float32
  assert image_lib.place_boxes(boxes[:0], placement).shape == (0, 4)


def test_normalize():
  image = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
  mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  normalized = image_lib.normalize(image)
  np.testing.assert_allclose(normalized, (image / 255 - mean) / std, atol=1e-6)
  assert normalized.dtype == np.float32
  np.testing.assert_array_equal(image_lib.normalize(image[0]), normalized[0])
  np.testing.assert_array_equal(image_lib.normalize(image[:, ::-1, ::2]), normalized[:, ::-1, ::2])
  views = np.stack([image, image + 1])
  np.testing.assert_array_equal(image_lib.normalize(views)[0], normalized)
  assert image_lib.normalize(image[:0]).shape == (0, 5, 4, 3)


def test_normalize_repeats_one_channel_three_times():
  grey = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 1), np.uint8)
  expected = image_lib.normalize(np.repeat(grey, 3, axis=-1))
  np.testing.assert_array_equal(image_lib.normalize(grey), expected)


def test_normalize_with_other_mean_and_std():
  image = np.array([[[0, 51, 255]]], np.uint8)
  normalized = image_lib.normalize(image, mean=(0.0, 0.2, 0.5), std=(1.0, 0.1, 0.25))
  np.testing.assert_allclose(normalized, [[[0, 0, 2]]], atol=1e-6)
  plain = image_lib.normalize(image, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
  np.testing.assert_allclose(plain, [[[0, 0.2, 1]]], atol=1e-6)
