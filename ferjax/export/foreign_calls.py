"""Refuses exported programs that call code outside of themselves.

A program can name any function that is registered in the process, and call it with pointers of its
own: that of Python callbacks, for instance, which would then run code that the file's author chose.
"""

from jax import export
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters.mlir import make_ir_context

# The check of a symbolic batch size, and kernels, whose code is inside the program and runs on the
# accelerator.
_ALLOWED = {"shape_assertion", "tpu_custom_call", "__gpu$xla.gpu.triton"}


def check_calls(exported: export.Exported) -> None:
  """Raises a ValueError for a program that cannot be read, or calls other functions."""
  called: set[str] = set()

  def visit(operation: ir.Operation) -> ir.WalkResult:
    if operation.name == "stablehlo.custom_call":
      called.add(ir.StringAttr(operation.attributes["call_target_name"]).value)
    return ir.WalkResult.ADVANCE

  with make_ir_context() as context:
    try:
      module = stablehlo.deserialize_portable_artifact(context, exported.mlir_module_serialized)
    except ir.MLIRError as error:
      raise ValueError(str(error)) from error
    module.operation.walk(visit)
  if foreign := called - _ALLOWED:
    raise ValueError(
      f"it calls {', '.join(sorted(foreign))}, which can run any code; an exported network does not"
    )
