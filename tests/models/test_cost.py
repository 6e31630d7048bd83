"""Costs compared with hand-computed and published numbers."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

import ferjax
from ferjax.models import emonext
from ferjax.models.cost import (
  FLOPS_PER_SCAN_UPDATE,
  Cost,
  compiled_cost,
  cost_by_part,
  total_cost,
)
from ferjax.models.emonext import EmoNeXt
from ferjax.models.layers import Conv
from ferjax.models.ssm import ASFR, SS2D
from ferjax.ops.selective_scan import selective_scan


class Wrapper(nn.Module):
  """Wraps a function of an image as a network."""

  function: object

  @nn.compact
  def __call__(self, image, *, train):
    return self.function(image)


def cost(function, *shape):
  return total_cost(cost_by_part(Wrapper(function), shape))


CONVOLUTIONS = {
  # 6 x 4 outputs of 5 channels, each from 3 x 3 x 4 inputs, including padding.
  "padded": (Conv(5, 3), 6 * 4 * 5, 3 * 3 * 4),
  "strided": (Conv(5, 3, 2), 3 * 2 * 5, 3 * 3 * 4),
  "pointwise": (Conv(5), 6 * 4 * 5, 4),
  "valid": (nn.Conv(5, (3, 2), padding="VALID"), 4 * 3 * 5, 3 * 2 * 4),
  "grouped": (nn.Conv(6, (3, 3), feature_group_count=2), 6 * 4 * 6, 3 * 3 * 2),
  "depthwise": (Conv(4, 3, depthwise=True), 6 * 4 * 4, 3 * 3),
  "depthwise in another way": (nn.Conv(4, (3, 3), feature_group_count=4), 6 * 4 * 4, 3 * 3),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name):
  layer, outputs, per_output = CONVOLUTIONS[name]
  found = cost(layer.clone(parent=None), 2, 6, 4, 4)
  assert found.multiply_adds == 2 * outputs * per_output
  assert found.activations == 2 * outputs
  assert found.flops == 2 * found.multiply_adds
  assert found.scan_updates == 0


def test_matrix_products():
  assert cost(nn.Dense(7), 2, 3, 5, 4).multiply_adds == 2 * 3 * 5 * 4 * 7
  scores = cost(lambda x: jnp.einsum("bhqc,bhkc->bhqk", x, x), 2, 3, 5, 4)
  assert (scores.multiply_adds, scores.activations) == (2 * 3 * 5 * 5 * 4, 2 * 3 * 5 * 5)


def square(x):
  """4 x 4 x 4 = 64 multiply-adds for an input of 4 x 4."""
  return x @ x


def test_loops_and_branches():
  def loop(x, times):
    return lax.scan(lambda h, _: (square(h), None), x[0, 0], length=times)[0]

  def nested(x):
    return lax.scan(lambda h, _: (loop(h[None, None], 3), None), x[0, 0], length=5)[0]

  def branches(x):
    return lax.cond(x.sum() > 0, lambda h: loop(h[None, None], 2), square, x[0, 0])

  def unknown(x):
    return lax.while_loop(lambda h: h.sum() < 9, square, x[0, 0])

  def recomputed(x):
    return jax.checkpoint(jax.jit(square))(x[0, 0])

  expected = {nested: 5 * 3 * 64, branches: 2 * 64, recomputed: 64}
  for function, multiply_adds in expected.items():
    assert cost(function, 1, 1, 4, 4).multiply_adds == multiply_adds
  with pytest.raises(ValueError, match="no fixed length"):
    cost(unknown, 1, 1, 4, 4)


def test_unused_operations_cost_nothing():
  def function(image):
    nn.Dense(9, name="idle")(image)
    return nn.Dense(3, name="busy")(image)

  parts = cost_by_part(Wrapper(function), (1, 1, 1, 4))
  assert parts == {"busy": Cost(15, 15, 12, 0, 3), "idle": Cost(parameters=45)}
  assert list(parts) == ["busy", "idle"]


def test_operations_outside_the_parts():
  def function(image):
    return square(nn.Dense(4, name="dense")(image)[0, 0])

  parts = cost_by_part(Wrapper(function), (1, 1, 4, 4))
  assert parts["dense"].multiply_adds == 4 * 4 * 4
  assert parts["elsewhere"] == Cost(multiply_adds=64, activations=16)


def test_scans():
  """Of 35 positions, not a whole number of chunks, with 16 states each."""
  four_paths = cost(SS2D(num_paths=4, parent=None), 2, 5, 7, 32)
  assert four_paths.scan_updates == 2 * 4 * 35 * 64 * 16
  inner, rank = 64, 2
  dense = 32 * 2 * inner + inner * 9 + 4 * inner * (rank + 32) + 4 * rank * inner + inner * 32
  assert four_paths.multiply_adds == 2 * 35 * dense
  one_path = cost(lambda x: ASFR(name="asfr")(x, train=False), 2, 5, 7, 32)
  assert one_path.scan_updates == 2 * 35 * 64 * 16
  assert one_path.flops == 2 * one_path.multiply_adds + 7 * one_path.scan_updates


def test_flops_of_an_update_match_xla():
  """With one position, because XLA counts a loop body once.

  The sequential method computes exponentials itself, from many operations.
  """
  d, n = 256, 16
  shapes = [(1, d), (1, d), (d, n), (1, n), (1, n)]
  arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  scan = functools.partial(selective_scan, method="associative")
  found = jax.jit(scan).lower(*arrays).compile().cost_analysis()
  operations = found["flops"] + found["transcendentals"]
  inputs = d  # dt * u
  assert operations == pytest.approx(FLOPS_PER_SCAN_UPDATE * d * n + inputs, rel=0.01)


def convnext(depths, widths, side):
  """(multiply-adds, activations) of the trunk of a ConvNeXt, from its description."""
  cells = (side // 4) ** 2
  multiply_adds, activations = cells * 4 * 4 * 3 * widths[0], cells * widths[0]
  for i, (depth, c) in enumerate(zip(depths, widths, strict=True)):
    if i:
      cells //= 4
      multiply_adds += cells * 2 * 2 * widths[i - 1] * c
      activations += cells * c
    multiply_adds += depth * cells * c * (7 * 7 + 4 * c + 4 * c)
    activations += depth * cells * (c + 4 * c + c)
  return multiply_adds, activations


def test_trunk_of_emonext():
  parts = cost_by_part(EmoNeXt(7, "tiny"), (1, 224, 224, 3))
  trunk = [x for name, x in parts.items() if name.startswith(("stem", "stage", "downsample"))]
  found = functools.reduce(Cost.__add__, trunk)
  multiply_adds, activations = convnext(*emonext.SIZES["tiny"][:2], 224)
  gates = [c + c // 16 for c in (192, 384, 768)]
  assert found.multiply_adds == multiply_adds + sum(2 * c * (c // 16) for c in (192, 384, 768))
  assert found.activations == activations + sum(gates)


# Table 1 of Liu et al., arXiv 2201.03545: multiply-adds (there called FLOPs) at 224 pixels.
@pytest.mark.parametrize(
  ("size", "published"),
  [("tiny", 4.5), ("small", 8.7), ("base", 15.4), ("large", 34.4), ("xlarge", 60.9)],
)
def test_published_multiply_adds_of_convnext(size, published):
  multiply_adds, _ = convnext(*emonext.SIZES[size][:2], 224)
  assert multiply_adds / 1e9 == pytest.approx(published, abs=0.06)


# The released programs, counted with PyTorch on a side of 320 and 224 pixels: G, two decimals.
RELEASED = {
  "fer_yolo_mamba": (320, 3.31, Cost(10_256_772, 10_256_772, scan_updates=98_304_000)),
  "fermam": (224, 5.93, Cost(26_874_791, 26_874_791 - 3 * 1024, scan_updates=2_572_288)),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_programs(name):
  side, multiply_adds, expected = RELEASED[name]
  model = ferjax.create_model(name, num_classes=7, variant="released")
  found = total_cost(cost_by_part(model, (1, side, side, 3)))
  assert round(found.multiply_adds / 1e9, 2) == multiply_adds
  assert (found.parameters, found.executed) == (expected.parameters, expected.executed)
  assert found.scan_updates == expected.scan_updates


def test_attention_of_emonext_is_for_training():
  parts = cost_by_part(EmoNeXt(7, "atto"), (1, 64, 64, 3))
  c = 320
  assert parts.pop("attention") == Cost(parameters=3 * (c * c + c) + 2 * c)
  assert all(x.executed == x.parameters > 0 for x in parts.values())


def test_modes_of_fermam_omit_a_branch():
  shape = (1, 64, 64, 3)
  create = functools.partial(ferjax.create_model, "fermam", num_classes=7, size="nano")
  both, conv, ssm = (
    cost_by_part(create(mode=mode), shape)["conv_ssm"] for mode in ("both", "conv_only", "ssm_only")
  )
  assert both.executed == both.parameters == conv.executed + ssm.executed
  assert both.multiply_adds == conv.multiply_adds + ssm.multiply_adds
  assert (conv.scan_updates, ssm.scan_updates) == (0, both.scan_updates)


def test_costs_of_a_batch_are_those_of_its_images():
  one, three = (total_cost(cost_by_part(EmoNeXt(7, "atto"), (b, 64, 64, 3))) for b in (1, 3))
  assert three == one * 3 + Cost(parameters=-2 * one.parameters, executed=-2 * one.executed)


def test_images_that_do_not_fit():
  with pytest.raises(ValueError, match="48 x 64 pixels; both sides must be divisible by 32"):
    cost_by_part(EmoNeXt(7, "atto"), (1, 48, 64, 3))


class Small(nn.Module):
  @nn.compact
  def __call__(self, image, *, train):
    x = nn.Dense(256, use_bias=False)(image)
    x = nn.BatchNorm(use_running_average=not train)(x)
    return nn.Dense(8, use_bias=False)(x)


def test_compiled():
  found = compiled_cost(Small(), (2, 16, 16, 64))
  products = 2 * 2 * 16 * 16 * (64 * 256 + 256 * 8)
  assert products < found.flops < 1.1 * products
  hidden = 4 * 2 * 16 * 16 * 256  # bytes of the map, needed by both programs
  assert hidden <= found.inference_bytes <= 3 * hidden
  assert hidden <= found.gradient_bytes <= 6 * hidden


def test_xla_counts_the_body_of_a_loop_once():
  """As docs/cost.md states for the scan."""

  def loop(x):
    return lax.scan(lambda h, _: (square(h), None), x, length=10)[0]

  shape = jax.ShapeDtypeStruct((64, 64), jnp.float32)
  flops = jax.jit(loop).lower(shape).compile().cost_analysis()["flops"]
  assert flops == pytest.approx(2 * 64**3, rel=1e-3)
