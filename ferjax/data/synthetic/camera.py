"""The camera of the drawings."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

SUPERSAMPLE = 3  # canvas pixels per pixel and axis


def photograph(
  rng: np.random.Generator, canvas: Image.Image, size: int
) -> UInt8[np.ndarray, "{size} {size} 3"]:
  """Simulates a camera: light, blur, noise.

  Args:
    rng: source of all choices.
    canvas: the painted scene, `SUPERSAMPLE` times as large.
    size: side of the image, pixels.
  """
  image = canvas.reduce(SUPERSAMPLE)
  radius = rng.uniform(0, 1.0) * size / 160 if rng.random() < 0.35 else 0.0
  if radius > 0:
    image = image.filter(ImageFilter.GaussianBlur(radius))
  pixels = np.asarray(image, np.float32)
  across, down = rng.uniform(-0.3, 0.3, 2)
  ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
  light = np.float32(rng.uniform(0.65, 1.15)) + across * ramp[None, :] + down * ramp[:, None]
  tint = rng.normal(1, 0.05, 3).astype(np.float32)
  noise = rng.standard_normal((size, size, 1), np.float32) * np.float32(rng.uniform(0, 7))
  pixels = pixels * (light[..., None].astype(np.float32) * tint) + noise
  return np.clip(pixels, 0, 255).astype(np.uint8)
