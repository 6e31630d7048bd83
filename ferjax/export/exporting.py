"""Exports a trained network to a file."""

import os
import pathlib
import pkgutil

from ferjax.export.options import FORMATS, PARAMETERS, QUANTIZE, ExportOptions
from ferjax.output import atomic_path
from ferjax.trained import TrainedNetwork
from ferjax.weights.opening import Step, open_weights


def export_network(
  source: str | os.PathLike | TrainedNetwork,
  format: str,
  output: str | os.PathLike,
  *,
  step: Step = None,
  options: ExportOptions | None = None,
) -> str:
  """Writes a trained network as one file, atomically.

  Args:
    source, step: as for `ferjax.weights.open_weights`.
    format: one of `FORMATS`.
    output: the file, which is replaced if it exists; its name ends in the suffix of the format.
    options: those that the format has.

  Returns:
    A line about the file, such as the largest difference from JAX, or "".

  Raises:
    FileNotFoundError, ValueError: as `open_weights`.
    ValueError: unknown format, another suffix, an option that does not apply or is out of range,
      or the file does not compute what JAX does.
    ImportError: a library is missing; the message names the command that installs it.
    OSError: the file cannot be written.
  """
  options = options or ExportOptions()
  output = pathlib.Path(output)
  check_export(format, output, options)
  opened = open_weights(source, step=step)
  writer = pkgutil.resolve_name(FORMATS[format].writer)
  with atomic_path(output) as partial:
    return writer(opened, partial, options)


def check_export(format: str, output: pathlib.Path, options: ExportOptions) -> None:
  """Raises a ValueError for what is wrong without opening the network."""
  if format not in FORMATS:
    raise ValueError(f"the format is {format!r}; known: {', '.join(FORMATS)}")
  chosen = FORMATS[format]
  if output.suffix != chosen.suffix:
    raise ValueError(
      f"the file is {str(output)!r}; expected a name that ends in {chosen.suffix} for the format "
      f"{format}"
    )
  for name, value in options.given().items():
    if name not in chosen.options:
      having = [other for other, its in FORMATS.items() if name in its.options]
      raise ValueError(
        f"{name} is {value}, but does not apply to the format {format}; it applies to "
        f"{' and '.join(having)}"
      )
  if options.parameters not in PARAMETERS:
    raise ValueError(f"parameters is {options.parameters!r}; expected {' or '.join(PARAMETERS)}")
  _check_quantization(options)


def _check_quantization(options: ExportOptions) -> None:
  if options.quantize not in ("", *QUANTIZE):
    raise ValueError(f"quantize is {options.quantize!r}; expected one of {', '.join(QUANTIZE)}")
  if options.quantize and options.raw:
    raise ValueError(
      f"quantize is {options.quantize!r}, but does not apply to raw outputs: what a quantised file "
      "loses is measured on faces; omit raw"
    )
  if options.data_set and not options.quantize:
    raise ValueError(
      f"data_set is {options.data_set!r}, but is only for quantised files: add quantize, one of "
      f"{', '.join(QUANTIZE)}, or omit data_set"
    )
  if options.split and not options.data_set:
    raise ValueError(f"split is {options.split!r}, but no data set is named: add data_set")
