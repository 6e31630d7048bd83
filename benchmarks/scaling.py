"""The tables of docs/scaling.md: what 8, 64 and 512 devices need, per network.

  python benchmarks/scaling.py               # prints the tables from the measured values
  python benchmarks/scaling.py --measure     # measures them again; minutes of compilation

Measured, by XLA's compiler on shapes alone and by counting: parameters, state, memory of a step,
products, layers with statistics of the whole batch. Taken from benchmarks/results: images per
second that one core prepares. Everything else is derived; the constants state the assumptions.
"""

import argparse
import json
import math
import pathlib

import jax
from devices import H100, TPU_V5E, Device
from predict import IMAGE_SIZES, PRECISE, bound, stages

from ferjax.training.sharding import state_shardings

FILE = pathlib.Path(__file__).parent / "results" / "scaling.json"
SIZES = {"emonext": "tiny", "fermam": "base", "fer_yolo_mamba": "s"}
COUNTS = (8, 64, 512)
BATCH = 64  # images of a device
DTYPE = "bfloat16"
# Images that one core prepares in a second, photographs of 256 to 640 pixels
# (results/2026-11-26-input-pipeline.md, the smallest value of the network's rows at its size).
IMAGES_PER_CORE = {"emonext": 574, "fermam": 390, "fer_yolo_mamba": 103}
# Bytes/s to and from a device, in each direction: in a host of 8, and between hosts.
LINKS = {"H100": (450e9, 50e9), "TPU v5e": (100e9, 100e9)}
# Seconds of a reduction of a few bytes over that many devices. Assumed, not measured.
LATENCY = {8: 10e-6, 64: 20e-6, 512: 40e-6}
FRACTION = 0.5  # of the rate of `predict.bound` that a device is assumed to reach
DEVICES_PER_HOST = 8
FACES = 1_000_000


def measure() -> dict[str, dict]:
  """The measured values of each network, for one device and 8 images in float32."""
  from programs import abstract_step
  from remat import OPTIONS, as_on_accelerators, products  # not needed for the tables

  found = {}
  for network, size in SIZES.items():
    with as_on_accelerators():
      traced, state = abstract_step(network, 8, size=size, averages=True)
      compiled = traced.lower().compile(OPTIONS)
    params = sum(x.size for x in jax.tree.leaves(state.params))
    memory = compiled.memory_analysis()
    found[network] = {
      "parameters": params,
      "state": sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)),
      "split": {str(n): _bytes_per_device(state, n) for n in COUNTS},
      "activations": (memory.temp_size_in_bytes - 4 * params) / 8,
      "products": products(traced.jaxpr.jaxpr) / 8,
      "statistics": len(jax.tree.leaves(state.batch_stats)) // 2,
    }
  return found


def _bytes_per_device(state, devices: int) -> int:
  """The state on each of several devices with `train.shard_state`."""
  mesh = jax.sharding.AbstractMesh((devices,), ("data",))
  shardings = state_shardings(state, mesh, shard=True)
  parts = jax.tree.map(
    lambda x, s: x.size * x.dtype.itemsize // (devices if s.spec != jax.P() else 1),
    state,
    shardings,
  )
  return sum(jax.tree.leaves(parts))


def step_seconds(network: str, device: Device) -> float:
  """The least time of a step of `BATCH` images on a device (`predict.py`)."""
  return 1e-3 * sum(
    bound(
      cost, device, DTYPE, precise=DTYPE == "bfloat16" and name.startswith(PRECISE.get(network, ()))
    ).milliseconds
    for name, cost in stages(network, BATCH).items()
  )


def reduction(parameters: int, devices: int, device: Device) -> tuple[float, float]:
  """Bytes that each device sends for the gradients' sum, and the seconds this takes at least.

  A ring sends each of the N parts N - 1 times to add up, and N - 1 times to distribute.
  """
  volume = 2 * (devices - 1) / devices * 4 * parameters
  inside, between = LINKS[device.name]
  return volume, volume / (inside if devices <= DEVICES_PER_HOST else between)


def table(network: str, found: dict, device: Device) -> list[str]:
  """One row per number of devices."""
  least = step_seconds(network, device)
  compute = least / FRACTION
  lines = [
    "| devices | images/s | of linear | images/s into a host | cores of a host for them | sent per "
    "device and step, MB | sum of gradients, ms | statistics, ms | memory, replicated, GB | split, "
    "GB | a million faces, s | device hours |",
    "| ---: |" + " ---: |" * 11,
  ]
  for devices in COUNTS:
    volume, sending = reduction(found["parameters"], devices, device)
    waiting = 2 * found["statistics"] * LATENCY[devices]
    # Gradients are added up while earlier layers compute theirs: half of a step's time hides them.
    seconds = compute + waiting + max(0.0, sending - compute / 2)
    rate = devices * BATCH / seconds
    host = rate / devices * min(devices, DEVICES_PER_HOST)
    others = 4 * found["parameters"] + BATCH * found["activations"] / (
      2 if DTYPE == "bfloat16" else 1
    )
    whole, split = found["state"] + others, found["split"][str(devices)] + others
    epoch = FACES / rate
    cores = math.ceil(host / IMAGES_PER_CORE[network])
    cells = [
      f"{devices}", f"{rate:,.0f}", f"{compute / seconds:.0%}", f"{host:,.0f}", f"{cores}",
      f"{volume / 1e6:,.0f}", f"{1e3 * sending:.1f}", f"{1e3 * waiting:.1f}",
      f"{whole / 1e9:.1f}", f"{split / 1e9:.1f}", f"{epoch:,.1f}", f"{epoch * devices / 3600:.2f}",
    ]  # fmt: skip
    lines.append("| " + " | ".join(cells) + " |")
  return lines


def smallest_batch(network: str, found: dict, devices: int, device: Device) -> int:
  """Images per device below which communication takes longer than computation."""
  each = step_seconds(network, device) / FRACTION / BATCH
  _, sending = reduction(found["parameters"], devices, device)
  waiting = 2 * found["statistics"] * LATENCY[devices]
  return math.ceil(max(2 * sending, waiting) / each)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--measure", action="store_true", help="measure again")
  if parser.parse_args().measure:
    FILE.write_text(json.dumps(measure(), indent=2) + "\n")
  measured = json.loads(FILE.read_text())
  print("| network | parameters/M | products/GFLOP | activations/MB | statistics | state/MB |")
  print("| --- | ---: | ---: | ---: | ---: | ---: |")
  for network, found in measured.items():
    print(
      f"| {network} {SIZES[network]} | {found['parameters'] / 1e6:.1f} | "
      f"{found['products'] / 1e9:.1f} | {found['activations'] / 1e6:.0f} | {found['statistics']} | "
      f"{found['state'] / 1e6:,.0f} |"
    )
  for network, found in measured.items():
    for device in (H100, TPU_V5E):
      side = IMAGE_SIZES[network]
      print(
        f"\n**{network} {SIZES[network]}**, {BATCH} images of {side} x {side} per {device.name}\n"
      )
      print("\n".join(table(network, found, device)))
      batches = ", ".join(f"{smallest_batch(network, found, n, device)} on {n}" for n in COUNTS)
      print(
        f"\nImages per device from which communication takes longer than computation: {batches}."
      )


if __name__ == "__main__":
  main()
