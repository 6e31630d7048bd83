"""Saves a trained network as a weights file."""

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from ferjax._version import __version__
from ferjax.trained import TrainedNetwork, network_meta
from ferjax.weights.file import FORMAT, SUFFIX, Description, WeightsFile, write_weights
from ferjax.weights.opening import Step, open_weights
from ferjax.weights.settings import check_settings

_VALIDATION = "validation"  # the metrics in a checkpoint


def save_weights(
  source: str | os.PathLike | TrainedNetwork,
  output: str | os.PathLike,
  *,
  step: Step = None,
  name: str | None = None,
  data: str | None = None,
  licence: str | None = None,
  metrics: Mapping[str, Mapping[str, float]] | None = None,
  settings: Mapping[str, Any] | None = None,
  image_size: int | None = None,
  dtype: str = "float16",
) -> WeightsFile:
  """Saves the variables of inference, which are the moving averages if there are any.

  What is not given is taken from the source: a checkpoint has validation metrics, a weights file
  has everything.

  Args:
    source, step: as for `open_weights`.
    output: the file, which is replaced if it exists; its name ends in `.safetensors`.
    name: of the weights; None for the name of the file without the suffix.
    data: the training data.
    licence: of the weights.
    metrics: evaluated set -> name -> value; added to those of the source. Values that are not
      finite are left out.
    settings: of prediction, which replace its defaults: `score_threshold` and `iou_threshold`
      (0..1) of a detector; of a classifier `crop_margin`, as for
      `ferjax.weights.settings.check_margin`, `flip`, `logit_adjustment` and `temperature`, as for
      `ferjax.inference.classification.ExpressionClassifier`.
    image_size: side of a detector's input, pixels; the caller knows what the network takes.
    dtype: of the kernels in the file: "float16", or "float32" for twice the size and every bit.

  Raises:
    FileNotFoundError, ValueError: as `open_weights`.
    ValueError: another suffix, a setting of another task or out of range, or an image size for
      another task than detection.
    OSError: the file cannot be written.
  """
  output = pathlib.Path(output)
  if output.suffix != SUFFIX:
    raise ValueError(f"the weights file is {str(output)!r}; expected a name that ends in {SUFFIX}")
  opened = open_weights(source, step=step)
  meta = opened.meta
  check_settings(meta["task"], settings or {})
  if image_size is not None and meta["task"] != "detection":
    raise ValueError(
      f"image_size is {image_size}, but {opened.name} is for {meta['task']}, and takes images of "
      f"{meta['image_size']} pixels only; omit image_size"
    )
  known = meta["metrics"] if isinstance(opened, WeightsFile) else {_VALIDATION: meta["metrics"]}
  description: Description = {
    **network_meta(meta),
    "image_size": meta["image_size"] if image_size is None else image_size,
    "format": FORMAT,
    "name": name or output.stem,
    "settings": {**opened.settings, **(settings or {})},
    "data": meta.get("data", "") if data is None else data,
    "licence": meta.get("licence", "") if licence is None else licence,
    "metrics": _finite({**known, **(metrics or {})}),
    "selection": meta["selection"],
    "step": meta["step"],
    "epoch": meta["epoch"],
    "versions": {"ferjax": __version__},
  }
  return write_weights(output, description, jax.device_get(opened.variables()), dtype=dtype)


def _finite(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
  """Sets with at least one finite value; JSON has no others, such as the recall of no examples."""
  found = {
    of: {name: float(value) for name, value in values.items() if math.isfinite(value)}
    for of, values in metrics.items()
  }
  return {of: values for of, values in found.items() if values}
