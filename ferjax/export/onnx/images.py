"""Images on which an exported file is tried, and the inputs of its program for them."""

import pathlib
from collections.abc import Sequence

import numpy as np

from ferjax.data.classification.views import center_view
from ferjax.data.image import decode, letterbox, luma
from ferjax.data.image_files import list_images
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.data.synthetic.scenes import MIN_IMAGE_SIZE, SyntheticScenes
from ferjax.trained import TrainedNetwork


def example_images(
  opened: TrainedNetwork, paths: Sequence[str], *, most: int, drawings: int
) -> list[np.ndarray]:
  """Images u8[h w 3] of the user's, or drawings of what the network is for.

  Args:
    opened: the network.
    paths: files and folders; empty for drawings.
    most: the images of the paths at most, evenly spaced.
    drawings: the number of drawings.

  Raises:
    OSError, ImageError: an image cannot be read.
    ValueError: the paths contain no image.
  """
  if paths:
    files: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
      files += list_images(path, recursive=False).files if path.is_dir() else [path]
    if not files:
      raise ValueError(f"--images is {' '.join(paths)}, without an image; expected at least one")
    return [decode(path) for path in files[:: -(-len(files) // most)]]
  size = max(opened.meta["image_size"], MIN_IMAGE_SIZE)
  kind = SyntheticScenes if opened.meta["task"] == "detection" else SyntheticFaces
  source = kind(drawings, image_size=size, seed=0)
  # Not all of them square.
  return [source[i]["image"][i % 4 * size // 8 :] for i in range(drawings)]


def kind_of_images(paths: Sequence[str]) -> str:
  """A word for the images of `example_images`."""
  return "images" if paths else "drawings"


def program_inputs(opened: TrainedNetwork, images: Sequence[np.ndarray]) -> list[np.ndarray]:
  """The arguments of the program for a batch of images."""
  meta = opened.meta
  if meta["task"] == "classification":
    options = {"resize": meta["resize"], "grey": meta["grey"]}
    views = np.stack([center_view(image, meta["image_size"], **options) for image in images])
    return [views[..., :1] if meta["grey"] else views]
  squares, placements = zip(*(letterbox(x, meta["image_size"]) for x in images), strict=True)
  squares = [luma(square) for square in squares] if meta["grey"] else squares
  return [np.stack(squares), np.stack(placements)]
