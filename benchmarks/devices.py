"""Peak rates of accelerators, from their data sheets, without sparsity."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Device:
  """Peak rates of one chip.

  Attributes:
    name: for tables.
    bfloat16: FLOP/s of matrix products of bfloat16, accumulated in float32.
    float32: FLOP/s of matrix products of float32 at JAX's default precision: TF32 on GPUs, one pass
      of bfloat16 on TPUs.
    precise: FLOP/s of those at `jax.lax.Precision.HIGH`: TF32 on GPUs, three passes on TPUs.
    bandwidth: of its memory, bytes/s.
    exponentials: per second.
  """

  name: str
  bfloat16: float
  float32: float
  precise: float
  bandwidth: float
  exponentials: float

  def peak(self, dtype: str) -> float:
    """FLOP/s of matrix products of "bfloat16" or "float32"."""
    return self.bfloat16 if dtype == "bfloat16" else self.float32


# A multiprocessor has 128 units for sums and products of float32, and 16 for exponentials; a
# TPU core computes one exponential in each of its 8 x 128 lanes per cycle (1.5 GHz).
H100 = Device("H100", 989e12, 495e12, 495e12, 3.35e12, 66.9e12 / 2 / 128 * 16)
H200 = Device("H200", 989e12, 495e12, 495e12, 4.8e12, 66.9e12 / 2 / 128 * 16)
A100 = Device("A100", 312e12, 156e12, 156e12, 2.04e12, 19.5e12 / 2 / 128 * 16)
TPU_V5E = Device("TPU v5e", 197e12, 197e12, 197e12 / 3, 0.82e12, 8 * 128 * 1.5e9)

# Part of `jax.Device.device_kind` -> the device.
_KINDS = {"H100": H100, "H200": H200, "A100": A100, "TPU v5 lite": TPU_V5E, "TPU v5e": TPU_V5E}


def find(device_kind: str) -> Device | None:
  """The device of this kind, such as "NVIDIA H100 80GB HBM3"; None if it is not known."""
  return next((device for part, device in _KINDS.items() if part in device_kind), None)
