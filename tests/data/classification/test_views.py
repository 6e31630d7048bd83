"""Views against Pillow's own resize and crops, and their invariances."""

import numpy as np
import pytest
from PIL import Image

from ferjax.data.classification import views as views_module


def _noise(height, width):
  return np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
  ("shape", "resized"),
  [((48, 48), (36, 36)), ((30, 45), (54, 36)), ((50, 30), (36, 60)), ((20, 33), (59, 36))],
)
def test_center_view_is_the_middle_of_the_resized_image(shape, resized):
  image = _noise(*shape)
  pil_image = Image.fromarray(image).resize(resized, Image.Resampling.BILINEAR)
  left, top = (resized[0] - 32) // 2, (resized[1] - 32) // 2
  expected = np.asarray(pil_image)[top : top + 32, left : left + 32]
  np.testing.assert_array_equal(views_module.center_view(image, 32, resize=36), expected)


def test_image_of_the_right_size_is_unchanged():
  image = _noise(32, 32)
  np.testing.assert_array_equal(views_module.center_view(image, 32), image)
  wide = _noise(32, 40)
  np.testing.assert_array_equal(views_module.center_view(wide, 32), wide[:, 4:36])


def test_small_views_are_antialiased():
  stripes = np.zeros((320, 320, 3), np.uint8)
  stripes[:, ::2] = 255
  view = views_module.center_view(stripes, 32)
  assert abs(view.astype(int) - 128).max() <= 16


def test_ten_views_are_corners_middle_and_mirror_images():
  image = _noise(32, 40)
  views = views_module.ten_views(image, 28)
  pil_image = Image.fromarray(image).resize((35, 28), Image.Resampling.BILINEAR)
  pixels = np.asarray(pil_image)
  expected = [pixels[:, 0:28], pixels[:, 7:35], pixels[:, 0:28], pixels[:, 7:35], pixels[:, 3:31]]
  np.testing.assert_array_equal(views[:5], expected)
  np.testing.assert_array_equal(views[5:], [view[:, ::-1] for view in expected])
  views = views_module.ten_views(image, 24, resize=32)
  places = [(0, 0), (0, 16), (8, 0), (8, 16), (4, 8)]
  expected = [image[top : top + 24, left : left + 24] for top, left in places]
  np.testing.assert_array_equal(views[:5], expected)
  np.testing.assert_array_equal(views[4], views_module.center_view(image, 24, resize=32))


def test_views_of_a_mirrored_image_are_the_same_set():
  image = _noise(36, 36)
  views = views_module.ten_views(image, 32)
  mirrored = views_module.ten_views(np.ascontiguousarray(image[:, ::-1]), 32)
  assert {view.tobytes() for view in views} == {view.tobytes() for view in mirrored}


def test_grey_is_luma_in_all_channels():
  image = _noise(32, 32)
  view = views_module.center_view(image, 32, grey=True)
  luma = image @ np.array([0.299, 0.587, 0.114])
  for channel in range(3):
    np.testing.assert_allclose(view[..., channel], luma, atol=0.51)
  assert views_module.ten_views(image, 32, grey=True).shape == (10, 32, 32, 3)
  grey = np.repeat(image[..., :1], 3, axis=2)
  np.testing.assert_array_equal(
    views_module.center_view(grey, 32, grey=True), views_module.center_view(grey, 32)
  )


@pytest.mark.parametrize("resize", [31, -1])
def test_view_larger_than_the_image_is_refused(resize):
  for view in (views_module.center_view, views_module.ten_views):
    with pytest.raises(ValueError, match=rf"resize \({resize}\) must be at least .*\(32\), or 0"):
      view(_noise(40, 40), 32, resize=resize)


@pytest.mark.parametrize(("width", "height"), [(200000, 1), (1, 200000), (3001, 4)])
def test_the_middle_of_a_very_long_image(width, height):
  """A line of 200000 pixels, enlarged whole, would have 51 million by 256 pixels."""
  image = _noise(height, width)
  longest = 32 * min(width, height)
  left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
  cut = image[top : top + longest, left : left + longest]
  assert max(cut.shape) == longest
  scaled = views_module.scaled(image, 40, grey=False)
  assert sorted(scaled.size) == [40, 32 * 40]
  for grey in (False, True):
    options = {"resize": 40, "grey": grey}
    view = views_module.center_view(image, 32, **options)
    np.testing.assert_array_equal(view, views_module.center_view(cut, 32, **options))
    ten = views_module.ten_views(image, 32, **options)
    np.testing.assert_array_equal(ten, views_module.ten_views(cut, 32, **options))
  own, of_cut = (
    views_module.center_placement(x.shape[1], x.shape[0], 32, resize=40) for x in (image, cut)
  )
  # A pixel of the image has the position of the same pixel in the crop.
  np.testing.assert_allclose(own[2:4] + own[:2] * (left, top), of_cut[2:4], rtol=0, atol=0.5)
  np.testing.assert_array_equal(own[:2], of_cut[:2])
  assert own[4:].tolist() == [width, height]


def test_images_of_common_shapes_are_not_cropped():
  assert views_module.middle_part(640, 20) == (0, 0, 640, 20)
  assert views_module.middle_part(20, 640) == (0, 0, 20, 640)
  assert views_module.middle_part(642, 20) == (1, 0, 641, 20)
