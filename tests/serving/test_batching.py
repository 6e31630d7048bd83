import asyncio

import pytest

from ferjax.serving.batching import Batcher, batching


def _run(tasks, run, *, batch_size=3, batch_wait=0.0):
  """The results or errors of concurrent tasks, which get a batcher."""

  async def main():
    async with batching(Batcher(run, batch_size=batch_size, batch_wait=batch_wait)) as batcher:
      return await asyncio.gather(*(task(batcher) for task in tasks), return_exceptions=True)

  return asyncio.run(asyncio.wait_for(main(), 20))


def test_results_are_those_of_the_items():
  batches = []

  async def square(batch):
    batches.append(list(batch))
    await asyncio.sleep(0)
    return [x * x for x in batch]

  tasks = [lambda batcher, i=i: batcher.submit(i) for i in range(8)]
  assert _run(tasks, square) == [i * i for i in range(8)]
  assert batches == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_a_batch_waits_for_more_items():
  sizes = []

  async def run(batch):
    sizes.append(len(batch))
    return batch

  async def late(batcher):
    await asyncio.sleep(0.01)
    return await batcher.submit("late")

  tasks = [lambda batcher: batcher.submit("early"), late]
  assert _run(tasks, run, batch_size=2, batch_wait=20.0) == ["early", "late"]
  assert _run(tasks, run, batch_size=2, batch_wait=0.0) == ["early", "late"]
  assert sizes == [2, 1, 1]


def test_an_error_belongs_to_its_batch():
  async def run(batch):
    return [1 // x for x in batch]

  tasks = [lambda batcher, x=x: batcher.submit(x) for x in (1, 0, 1)]
  first, second, third = _run(tasks, run, batch_size=2)
  assert isinstance(first, ZeroDivisionError)
  assert isinstance(second, ZeroDivisionError)
  assert third == 1


@pytest.mark.parametrize("others", [0, 1])
def test_cancelled_items_are_dropped(others):
  seen = []

  async def run(batch):
    seen.extend(batch)
    return batch

  async def impatient(batcher):
    async with asyncio.timeout(0):
      return await batcher.submit("impatient")

  tasks = [impatient, *[lambda batcher: batcher.submit("patient")] * others]
  error, *results = _run(tasks, run, batch_wait=0.01)
  assert isinstance(error, TimeoutError)
  assert results == seen == ["patient"] * others
