"""The contact sheet of composed scenes."""

import numpy as np
from PIL import Image

from ferjax.data.composed.sheet import COLUMNS, ROWS, main


def test_command(tmp_path):
  (tmp_path / "photos").mkdir()
  for number in range(30):
    Image.new("RGB", (40, 40), (60, 60, 60)).save(tmp_path / f"photos/{number}.png")
  for name in ("fear", "anger"):
    (tmp_path / "faces/train" / name).mkdir(parents=True)
    Image.new("RGB", (24, 24), (200, 0, 0)).save(tmp_path / "faces/train" / name / "0.png")
  files = [
    f"--backgrounds={tmp_path / 'photos'}",
    f"--dir={tmp_path / 'faces'}",
    f"--sheet={tmp_path / 'out.png'}",
    *("--faces=image_folder", "--class-names=fear, anger", "--size=48"),
  ]
  (tmp_path / "faces/val").symlink_to(tmp_path / "faces/train")
  main(files)
  with Image.open(tmp_path / "out.png") as image:
    pixels = np.asarray(image)
  assert pixels.shape == (ROWS * 52, COLUMNS * 52, 3)
  assert (pixels == (255, 255, 0)).all(axis=2).any()  # a box
  main([*files, "--grey", "--split=val"])
  with Image.open(tmp_path / "out.png") as image:
    pixels = np.asarray(image).astype(int)
  # Yellow boxes and grey scenes: the red faces are grey too.
  np.testing.assert_array_equal(pixels[..., 0], pixels[..., 1])
