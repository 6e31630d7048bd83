"""Collects the items of concurrent tasks into batches."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, NoReturn, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
  """Collects the items of concurrent tasks, and runs a function on one batch at a time.

  While a batch runs, the items of the next one arrive.
  """

  def __init__(
    self,
    run: Callable[[list[Item]], Awaitable[list[Result]]],
    *,
    batch_size: int,
    batch_wait: float,
  ):
    """Call `work` in a task of its own, or use `batching`.

    Args:
      run: returns the results of 1 to `batch_size` items, in their order.
      batch_size: maximum number of items per batch.
      batch_wait: seconds that a batch waits for more items after its first.
    """
    self._run = run
    self._batch_size = batch_size
    self._batch_wait = batch_wait
    self._queue: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue()

  async def submit(self, item: Item) -> Result:
    """The result for an item, or the error of its batch.

    An item whose task is cancelled before its batch starts is dropped.
    """
    future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    self._queue.put_nowait((item, future))
    return await future

  async def work(self) -> NoReturn:
    """Runs batches until it is cancelled."""
    while True:
      if batch := await self._next_batch():
        run = self._run([item for item, _ in batch])
        (outcome,) = await asyncio.gather(run, return_exceptions=True)
        for row, (_, future) in enumerate(batch):
          if future.done():  # its task was cancelled in the meantime
            continue
          if isinstance(outcome, BaseException):
            future.set_exception(outcome)
          else:
            future.set_result(outcome[row])

  async def _next_batch(self) -> list[tuple[Item, asyncio.Future[Result]]]:
    batch = [await self._queue.get()]
    with contextlib.suppress(TimeoutError):
      async with asyncio.timeout(self._batch_wait):
        while len(batch) < self._batch_size:
          batch.append(await self._queue.get())
    return [(item, future) for item, future in batch if not future.done()]


@contextlib.asynccontextmanager
async def batching(batcher: Batcher[Item, Result]) -> AsyncIterator[Batcher[Item, Result]]:
  """Lets a batcher work while the context lasts."""
  working = asyncio.create_task(batcher.work())
  try:
    yield batcher
  finally:
    working.cancel()
    await asyncio.wait([working])
