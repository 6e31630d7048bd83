"""Synthetic crops of one face with a known expression, from a seed and an index.

For the demo, tests and benchmarks of classifiers, without a data set. Results on these images say
nothing about people. docs/synthetic.md describes the drawings.
"""

import functools
import operator
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
from jaxtyping import Float

from ferjax import expressions
from ferjax.data.classification.augment import FaceExample
from ferjax.data.synthetic.scenes import MIN_IMAGE_SIZE, face_factors, render_face


class SyntheticFaces:
  """A source of `num_examples` synthetic faces; each record depends only on (seed, index).

  Record i shows class `i % k`, so all k occur equally often. It contains `image` u8[s s 3] and
  `label` f32[k] (one-hot).
  """

  task = "classification"

  def __init__(
    self,
    num_examples: int,
    *,
    image_size: int,
    seed: int,
    class_names: Sequence[str] = expressions.SEVEN_EXPRESSIONS,
    intensity: tuple[float, float] = (0.5, 1.0),
  ):
    """Checks the arguments; images are rendered on access.

    Args:
      num_examples: Number of records.
      image_size: Side of the square images, in pixels.
      seed: Not negative; use different ones for training and validation.
      class_names: A subset of `expressions.EXPRESSIONS`.
      intensity: Range of the expressions' intensity, within 0..1; not used for neutral.

    Raises:
      ValueError: For an argument outside the ranges above.
    """
    for name, value, least in (
      ("num_examples", num_examples, 0),
      ("seed", seed, 0),
      ("image_size", image_size, MIN_IMAGE_SIZE),
    ):
      if value < least:
        raise ValueError(f"{name} is {value}; expected {least} or more")
    if not class_names or len(set(class_names)) < len(class_names):
      raise ValueError(f"class names are {tuple(class_names)}; expected at least one, none twice")
    for name in class_names:
      expressions.index_of(name)
    if not 0 <= intensity[0] <= intensity[1] <= 1:
      raise ValueError(f"intensity is {intensity}; expected (low, high) with 0 <= low <= high <= 1")
    self.class_names = tuple(class_names)
    self.skipped: list[str] = []
    self._num_examples = num_examples
    self._size = image_size
    self._seed = seed
    self._intensity = intensity

  def __len__(self) -> int:
    return self._num_examples

  def __getitem__(self, index: SupportsIndex) -> FaceExample:
    index = self._checked(index)
    image = render_face(*self._choices(index))
    label = index % len(self.class_names)
    return {"image": image, "label": np.eye(len(self.class_names), dtype=np.float32)[label]}

  def _choices(self, index: int) -> tuple[str, float, int, np.random.Generator]:
    """The arguments of `render_face`."""
    rng = np.random.default_rng((self._seed, index))
    intensity = float(rng.uniform(*self._intensity))
    return self.class_names[index % len(self.class_names)], intensity, self._size, rng

  def origin(self, index: SupportsIndex) -> str:
    """The name of a record in messages."""
    return f"synthetic face {self._checked(index)} of seed {self._seed}"

  @property
  def labels(self) -> Float[np.ndarray, "n k"]:
    """The labels of all records, in order; renders nothing."""
    num_classes = len(self.class_names)
    return np.eye(num_classes, dtype=np.float32)[np.arange(self._num_examples) % num_classes]

  @functools.cached_property
  def attributes(self) -> dict[str, list[str]]:
    """The controlled factors of all records; see `ferjax.data.sources.AttributedSource`."""
    factors = [face_factors(*self._choices(i)) for i in range(self._num_examples)]
    return {name: [x[name] for x in factors] for name in (factors[0] if factors else ())}

  def _checked(self, index: SupportsIndex) -> int:
    index = operator.index(index)
    if not 0 <= index < self._num_examples:
      raise IndexError(f"face {index} of {self._num_examples}; expected 0 <= index < length")
    return index
