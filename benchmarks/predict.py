"""What bounds a training step on accelerators, per stage, from counted operations.

  python benchmarks/predict.py [--dtype bfloat16] [--batch 64]

Prints the Markdown tables of docs/performance.md. Nothing is run or compiled: operations are
counted by `ferjax.models.cost`.

A stage takes at least the longest of three times: its products at the peak rate of the matrix
units, its memory traffic at the peak bandwidth, the exponentials of its scans at their peak rate.
A step is three times the products of inference: forward, gradient for the input, gradient for the
weights. The constants state the assumptions about traffic.
"""

import argparse
import dataclasses

from devices import H100, TPU_V5E, Device

import ferjax
from ferjax.models.cost import Cost, cost_by_part, total_cost
from ferjax.models.csp_darknet import CSPDarknet
from ferjax.models.fer_yolo_mamba import SIZES
from ferjax.models.ssm import STATE_SIZE

IMAGE_SIZES = {"emonext": 224, "fermam": 224, "fer_yolo_mamba": 320}
# How often a step reads or writes each output of a product. Forward: the product writes it, the
# statistics of the normalisation read it, normalisation and activation read and write it, the next
# product reads it. Gradient: both gradients of the next product read it or its cotangent (3) and
# write a cotangent, two passes of the normalisation read two arrays each, and one array is written.
FORWARD_PASSES, GRADIENT_PASSES = 5, 9
# Reads and writes of the scan's input, step, output and their cotangents, in float32, and of B and
# C, which are as long as the states of one channel. The gradient computes each exponential again.
SCAN_PASSES, SCAN_EXPONENTIALS = 3 + 5, 2
# Parts whose values, but not gradients, are float32 in bfloat16 (`ferjax.ops.half_gradient`).
PRECISE = {"fer_yolo_mamba": ("backbone", "neck")}


@dataclasses.dataclass(frozen=True)
class Bound:
  """The least time of one stage on one device, in ms, and what it is spent on."""

  products: float
  memory: float
  exponentials: float

  @property
  def milliseconds(self) -> float:
    return max(dataclasses.astuple(self))

  @property
  def limit(self) -> str:
    times = dataclasses.asdict(self)
    return max(times, key=times.get)


def traffic(cost: Cost, dtype: str, *, precise: bool) -> int:
  """Bytes that a training step moves."""
  scanned = cost.scan_updates // STATE_SIZE
  # Outputs of products, without that of the scan and without its steps, which `SCAN_PASSES` has.
  products = cost.activations - 2 * scanned
  width = 2 if dtype == "bfloat16" else 4
  passes = FORWARD_PASSES * (4 if precise else width) + GRADIENT_PASSES * width
  return passes * products + SCAN_PASSES * 4 * scanned


def bound(cost: Cost, device: Device, dtype: str, *, precise: bool) -> Bound:
  forward = device.precise if precise else device.peak(dtype)
  flops = 2 * cost.multiply_adds
  return Bound(
    products=1e3 * (flops / forward + 2 * flops / device.peak(dtype)),
    memory=1e3 * traffic(cost, dtype, precise=precise) / device.bandwidth,
    exponentials=1e3 * SCAN_EXPONENTIALS * cost.scan_updates / device.exponentials,
  )


def stages(network: str, batch_size: int) -> dict[str, Cost]:
  """Name of each stage -> the cost of its inference; the detector's backbone by its stages."""
  side = IMAGE_SIZES[network]
  shape = (batch_size, side, side, 3)
  parts = cost_by_part(ferjax.create_model(network, num_classes=7), shape)
  if network == "fer_yolo_mamba":
    depth, width = SIZES["s"]
    del parts["backbone"]
    grouped: dict[str, Cost] = {}
    for name, cost in cost_by_part(CSPDarknet(width, depth), shape).items():
      stage = "backbone " + name.split("_")[0]
      grouped[stage] = grouped.get(stage, Cost()) + cost
    parts = grouped | parts
  return {name: cost for name, cost in parts.items() if cost.multiply_adds}


def table(network: str, batch_size: int, dtype: str, devices: tuple[Device, ...]) -> list[str]:
  """A Markdown table with a row per stage, and their sum."""
  parts = stages(network, batch_size)
  head = ["stage", "GFLOP", "MB", "FLOP/byte"]
  head += [f"{device.name}, ms" for device in devices] + ["bound by"]
  lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 2) + " --- |"]
  totals, moved = [0.0] * len(devices), 0
  for name, cost in parts.items():
    precise = dtype == "bfloat16" and name.startswith(PRECISE.get(network, ()))
    bounds = [bound(cost, device, dtype, precise=precise) for device in devices]
    totals = [t + b.milliseconds for t, b in zip(totals, bounds, strict=True)]
    moved += traffic(cost, dtype, precise=precise)
    limits = ", ".join(dict.fromkeys(b.limit for b in bounds))
    times = [b.milliseconds for b in bounds]
    lines.append(_row(name, cost, traffic(cost, dtype, precise=precise), times, limits))
  lines.append(_row("all", total_cost(parts), moved, totals, ""))
  rates = [f"{1e3 * batch_size / t:,.0f}" for t in totals]
  lines.append("| images/s, at most | | | | " + " | ".join(rates) + " | |")
  return lines


def _row(name: str, cost: Cost, moved: int, times: list[float], limits: str) -> str:
  flops = 3 * cost.flops
  cells = [name, f"{flops / 1e9:,.1f}", f"{moved / 1e6:,.0f}", f"{flops / moved:,.0f}"]
  return "| " + " | ".join([*cells, *(f"{t:.2f}" for t in times), limits]) + " |"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
  parser.add_argument("--batch", type=int, default=64)
  arguments = parser.parse_args()
  for network in IMAGE_SIZES:
    side = IMAGE_SIZES[network]
    print(f"\n**{network}**, {arguments.batch} images of {side} x {side}, {arguments.dtype}\n")
    print("\n".join(table(network, arguments.batch, arguments.dtype, (H100, TPU_V5E))))


if __name__ == "__main__":
  main()
