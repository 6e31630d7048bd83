"""The pixels of the browser's page against those of prediction; README.md there has other tests."""

import json
import pathlib
import shutil
import subprocess

import cv2
import numpy as np
import pytest

from ferjax.data.classification.views import center_view
from ferjax.data.image import letterbox, luma
from ferjax.inference.two_stage import square_crop

NODE = shutil.which("node")
PIXELS = pathlib.Path(__file__).parents[2] / "examples/web/site/pixels.js"
MARGIN = (0.03, 0.09, 0.03, 0.0)
SCRIPT = """
const { faceView, letterbox } = await import(process.argv[1]);
const cases = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const answers = cases.map(({ rgba, width, height, box, detector, classifier }) => {
  const picture = { data: Uint8Array.from(rgba), width, height };
  const { pixels, placement } = letterbox(picture, detector);
  return { pixels: [...pixels], placement, view: [...faceView(picture, box, classifier)] };
});
console.log(JSON.stringify(answers));
"""
# Width and height of the picture, the detector's size, whether it is grey, and the resized side.
CASES = [
  (37, 53, 64, True, 38),
  (160, 120, 96, True, 32),
  (100, 33, 128, False, 0),
  (96, 96, 96, True, 36),
  (200, 7, 64, False, 37),
]


def pictures():
  rng = np.random.default_rng(1)
  for i, (width, height, *_) in enumerate(CASES):
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    yield np.asarray(cv2.GaussianBlur(image, (0, 0), 2)) if i % 2 else image


@pytest.mark.skipif(NODE is None, reason="needs Node, which runs the page's script")
def test_pixels_equal_those_of_prediction():
  given, images = [], list(pictures())
  for image, (width, height, size, grey, resize) in zip(images, CASES, strict=True):
    alpha = np.full((height, width, 1), 255, np.uint8)
    # The box leaves the picture at the left, at the top and at the bottom.
    box = [float(np.float32(x)) for x in (-3.3, -0.7, 0.83 * width, height + 3.1)]
    settings = {"crop_margin": MARGIN}
    given.append(
      {
        "rgba": np.concatenate([image, alpha], axis=-1).ravel().tolist(),
        "width": width,
        "height": height,
        "box": box,
        "detector": {"image_size": size, "grey": grey},
        "classifier": {"image_size": 32, "grey": grey, "resize": resize, "settings": settings},
      }
    )
  command = [str(NODE), "--input-type=commonjs", "--eval", f"(async () => {{{SCRIPT}}})()"]
  done = subprocess.run(
    [*command, PIXELS.as_uri()],
    input=json.dumps(given),
    capture_output=True,
    text=True,
    check=True,
    timeout=60,
  )
  for image, case, answer in zip(images, given, json.loads(done.stdout), strict=True):
    size, grey = case["detector"]["image_size"], case["detector"]["grey"]
    square, placement = letterbox(image, size)
    expected = luma(square) if grey else square
    np.testing.assert_array_equal(np.reshape(answer["pixels"], expected.shape), expected)
    np.testing.assert_allclose(answer["placement"], placement, rtol=1e-6)
    crop = square_crop(image, tuple(case["box"]), MARGIN)
    view = center_view(crop, 32, resize=case["classifier"]["resize"], grey=grey)
    view = view[..., :1] if grey else view
    np.testing.assert_array_equal(np.reshape(answer["view"], view.shape), view)
