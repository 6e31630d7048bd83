"""StableHLO: the program of prediction, serialised by `jax.export`, with its description.

The file is a zip archive, which every language reads without a library of ours: `description.json`,
`program.jax`, and `variables.safetensors` if the program takes its parameters as an argument. Its
checksums find damage, and a member can be read without the others.
"""

import hashlib
import json
import pathlib
import zipfile
from typing import Any

import jax
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export
from safetensors import SafetensorError

from ferjax._version import __version__
from ferjax.archives import DAMAGED_ARCHIVE, check_archive
from ferjax.compiler_options import compiler_options
from ferjax.export.description import damaged, describe, read_description
from ferjax.export.exported_file import ExportedFile
from ferjax.export.foreign_calls import check_calls
from ferjax.export.options import ExportOptions
from ferjax.export.programs import Program, prediction_program
from ferjax.trained import TrainedNetwork

KIND = "stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")
_DESCRIPTION, _PROGRAM, _VARIABLES = "description.json", "program.jax", "variables.safetensors"
_SEPARATOR = "/"


def write(opened: TrainedNetwork, file: pathlib.Path, options: ExportOptions) -> str:
  """Writes the program of prediction for any batch size, for CPUs, CUDA GPUs and TPUs.

  Errors are those of `ferjax.export.export_network`.
  """
  program = prediction_program(opened, options)
  variables = opened.variables()
  function, arguments = program.function, _arguments(program)
  if options.parameters == "inside":
    function = lambda *inputs: program.function(variables, *inputs)  # noqa: E731
  else:
    arguments = (jax.tree.map(_shape_of, variables), *arguments)
  exported = export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
  description = describe(
    opened,
    KIND,
    settings=program.settings,
    inputs=program.inputs,
    outputs=program.outputs,
    parameters=options.parameters,
    versions={"ferjax": __version__, "jax": jax.__version__},
  )
  with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr(_DESCRIPTION, json.dumps(description, indent=2, allow_nan=False))
    archive.writestr(_PROGRAM, bytes(exported.serialize()))
    if options.parameters == "arguments":
      flat: dict[str, Any] = flatten_dict(jax.device_get(variables), sep=_SEPARATOR)
      archive.writestr(_VARIABLES, safetensors.numpy.save(flat))
  return f"platforms {', '.join(PLATFORMS)}; parameters: {options.parameters}"


def _arguments(program: Program) -> tuple[jax.ShapeDtypeStruct, ...]:
  (batch,) = export.symbolic_shape("b")
  return tuple(
    jax.ShapeDtypeStruct(tuple(batch if size == "b" else size for size in shape), dtype)
    for shape, dtype in program.arguments.values()
  )


def _shape_of(x: jax.Array) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype)


def read(file: pathlib.Path) -> ExportedFile:
  """Reads a file that `write` wrote.

  Raises:
    OSError: it cannot be read.
    ValueError: it is damaged, another kind of file, or a newer version wrote it.
  """
  name = str(file)
  digest = hashlib.sha256(file.read_bytes()).hexdigest()
  try:
    check_archive(file)
  except ValueError as error:
    raise damaged(name, str(error)) from error
  try:
    with zipfile.ZipFile(file) as archive:
      members = {member: archive.read(member) for member in archive.namelist()}
  except DAMAGED_ARCHIVE as error:
    raise damaged(name, f"it is no complete zip archive ({error})") from error
  description = read_description(members.get(_DESCRIPTION), name)
  if _PROGRAM not in members:
    raise damaged(name, f"it has no {_PROGRAM}")
  try:
    exported = export.deserialize(bytearray(members[_PROGRAM]))
    check_calls(exported)
    flat = safetensors.numpy.load(members[_VARIABLES]) if _VARIABLES in members else None
  except (*DAMAGED_ARCHIVE, SafetensorError, StopIteration) as error:
    raise damaged(name, f"its program cannot be read ({error})") from error
  program = jax.jit(exported.call, compiler_options=compiler_options())
  variables = ()
  if flat is not None:
    variables = (jax.device_put(unflatten_dict(flat, sep=_SEPARATOR)),)

  def call(*inputs: Any) -> dict[str, Any]:
    return jax.device_get(program(*variables, *inputs))

  return ExportedFile(description, call, digest)
