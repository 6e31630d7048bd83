"""The hosts of a run: how they find each other, and how they share work.

JAX finds the hosts of TPU slices, Slurm and Open MPI 4 by itself. Everywhere else, three
environment variables name them; those of Open MPI 5 serve as the last two.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

# JAX itself reads only the first of these.
_ADDRESS, _COUNT, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_MPI_COUNT, _MPI_INDEX = "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"


class OtherHostError(RuntimeError):
  """Another process of the run ended with an error."""


@dataclasses.dataclass(frozen=True)
class Hosts:
  """The place of this process among all.

  Attributes:
    index: of this process, from 0.
    count: number of processes.
    any: whether a flag is set on any of them; waits for all, which must call it equally often.
  """

  index: int = 0
  count: int = 1
  any: Callable[[bool], bool] = lambda flag: flag

  def share(self, items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of the items: the parts are consecutive and of nearly equal length."""
    start, end = (len(items) * i // self.count for i in (self.index, self.index + 1))
    return items[start:end]

  def wait(self) -> None:
    """Waits for all processes.

    Raises:
      OtherHostError: another process ended with an error, in a block of `together`.
    """
    if self.any(False):
      raise OtherHostError("another host ended with an error, see its message; this one stops, too")

  @contextlib.contextmanager
  def together(self) -> Iterator[None]:
    """A block that all processes run, and at whose end they wait for each other.

    An error in one of them ends all: the others raise an OtherHostError when they wait next.
    """
    try:
      yield
    except OtherHostError:
      raise
    except Exception:
      self.any(True)
      raise
    self.wait()


def join(
  coordinator: str | None = None, count: int | None = None, index: int | None = None
) -> Hosts:
  """Connects this process with the others; call this before any other use of JAX.

  Args:
    coordinator: address host:port of process 0, if JAX cannot detect it.
    count: number of processes, likewise.
    index: of this process, likewise.

  Raises:
    ValueError: some of the three are missing and cannot be detected, or contradict each other.
    ConnectionError: the processes do not find each other.
  """
  import jax

  given = (coordinator, count, index)
  if len({value is None for value in given}) > 1:
    raise ValueError(
      f"coordinator, number of hosts and this host are {given}; give all three, or none if they "
      "are detected"
    )
  coordinator = coordinator or os.environ.get(_ADDRESS)
  count = _number(_COUNT, _MPI_COUNT) if count is None else count
  index = _number(_INDEX, _MPI_INDEX) if index is None else index
  try:
    jax.distributed.initialize(coordinator, count, index)
  except (ValueError, TypeError) as error:
    raise ValueError(
      f"the hosts cannot be found (coordinator {coordinator}, {count} hosts, index {index}: "
      f"{error}); JAX detects them on TPU slices, Slurm and Open MPI; elsewhere pass "
      f"--coordinator, --num_hosts and --host, or set {_ADDRESS}, {_COUNT} and {_INDEX}"
    ) from error
  except RuntimeError as error:
    raise ConnectionError(
      f"the hosts did not connect to {coordinator or 'the detected coordinator'} ({error}); check "
      "that all have started, with the same number of hosts, and that they reach its port"
    ) from error
  return Hosts(jax.process_index(), jax.process_count(), any_host)


def any_host(flag: bool) -> bool:
  """Whether `flag` is set on any process; all must call this equally often."""
  import jax

  if jax.process_count() == 1:
    return flag
  import numpy as np
  from jax.experimental import multihost_utils

  return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def _number(*variables: str) -> int | None:
  """The value of the first variable that is set."""
  for variable in variables:
    text = os.environ.get(variable)
    if text is None:
      continue
    try:
      return int(text)
    except ValueError:
      raise ValueError(f"{variable} is {text!r}; expected a whole number") from None
  return None
