"""Writes ONNX files, and refuses those that do not answer like JAX."""

import json
import pathlib
from typing import Any

import jax

from ferjax._version import __version__
from ferjax.export.description import KEY, describe
from ferjax.export.onnx.checksum import BLANK, with_checksum
from ferjax.export.onnx.comparison import DTYPE, compare
from ferjax.export.onnx.libraries import require
from ferjax.export.onnx.simplification import simplify
from ferjax.export.onnx.smaller import labelled_data, make_smaller
from ferjax.export.onnx.suppression import suppress
from ferjax.export.onnx.translate import BATCH, translate
from ferjax.export.onnx.values import Builder, Value
from ferjax.export.options import ExportOptions
from ferjax.export.programs import Program, candidates_program, prediction_program, raw_program
from ferjax.trained import TrainedNetwork

KIND = "onnx"


def write(opened: TrainedNetwork, file: pathlib.Path, options: ExportOptions) -> str:
  """Writes the program of prediction, or the network alone, for any batch size.

  Returns:
    The largest difference from JAX; what a smaller file gains and loses, if one is asked for.

  Raises:
    ValueError: the network has an operation without a translation, or the file does not answer like
      JAX. Others as for `ferjax.export.export_network`.
  """
  for library in ("onnx", "onnxruntime"):
    require(library)
  source = labelled_data(opened, options)
  program = (raw_program if options.raw else prediction_program)(opened, options, DTYPE)
  variables = opened.variables()
  try:
    builder, cells = _graph(opened, program, variables, raw=options.raw)
  except NotImplementedError as error:
    raise ValueError(
      f"{opened.name} cannot be written as ONNX: there is no translation of {error}. The format "
      "stablehlo takes every network"
    ) from error
  description = describe(
    opened,
    KIND,
    settings=program.settings,
    raw=options.raw,
    inputs=program.inputs,
    outputs=program.outputs,
    versions={"ferjax": __version__, "jax": jax.__version__, "onnx": require("onnx").__version__},
    sha256=BLANK,
  )
  model = builder.graph.to_model({KEY: json.dumps(description, allow_nan=False)}, __version__)
  file.write_bytes(with_checksum(model.SerializeToString()))
  compared = compare(file, opened, program, variables, cells, options)
  if not options.quantize:
    return compared
  return f"{compared}\n{make_smaller(file, opened, options, source)}"


def _graph(
  opened: TrainedNetwork, program: Program, variables: dict[str, Any], *, raw: bool
) -> tuple[Builder, dict[str, str]]:
  """The graph, and the names of the tensors with a detector's candidates."""
  if raw or opened.meta["task"] == "classification":
    builder, outputs = translate(
      lambda *arguments: program.function(variables, *arguments), program.arguments
    )
    candidates: dict[str, Value] = {}
  else:
    function = candidates_program(opened, DTYPE)
    inputs = {name: program.arguments[name] for name in ("image", "placement")}
    builder, candidates = translate(lambda *arrays: function(variables, *arrays), inputs)
    outputs = suppress(builder, candidates, **program.settings)
  for name, value in outputs.items():
    shape = [size if isinstance(size, int) else BATCH for size in value.shape]
    builder.graph.add_output(name, builder.name_of(value), value.dtype, shape)
  cells = {name: builder.name_of(value) for name, value in candidates.items()}
  simplify(builder.graph, cells.values())
  return builder, cells
