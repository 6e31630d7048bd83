"""Rematerialisation: a gradient computes intermediate results again instead of storing them.

Each network has an option `remat`. "stage" stores the inputs of the network's stages only, and
"block" those of the blocks within them; "none" stores everything. A training step then takes less
memory, and time for a second forward pass. Parameters, outputs and gradients are the same.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

REMAT = ("none", "stage", "block")


def rematerialises(model: nn.Module) -> bool:
  """Whether the network has the option, and uses it."""
  return getattr(model, "remat", "none") != "none"


def call(module: nn.Module, *inputs: Any, train: bool, recompute: bool) -> Any:
  """`module(*inputs, train=train)`; see `call_function`."""

  def function(module, *inputs):
    return module(*inputs, train=train)

  return call_function(function, module, *inputs, recompute=train and recompute)


def call_function(
  function: Callable[..., Any], module: nn.Module, *inputs: Any, recompute: bool
) -> Any:
  """`function(module, *inputs)`; with `recompute`, its gradient stores the inputs only.

  `function` may create submodules of `module`.
  """
  if not recompute or module.is_initializing():
    return function(module, *inputs)
  return nn.remat(function)(module, *inputs)
