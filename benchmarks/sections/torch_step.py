"""The training step of ConvNeXt-T, the trunk of EmoNeXt-T, in PyTorch on the same device."""

import functools
import statistics
import time

from report import Section

BATCHES = (64, 256)
RUNS, WARM_UP = 7, 3


def run(section: Section) -> None:
  try:
    import torch
  except ImportError as error:
    section.note(f"torch is not installed ({error}), so nothing was measured")
    return
  device = "cuda" if torch.cuda.is_available() else "cpu"
  section.note(f"torch {torch.__version__} on {device}; channels_last; bfloat16 by autocast")
  if device == "cpu" and not section.tiny:
    section.note("torch sees no GPU, so nothing was measured")
    return
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True
  modes = ("eager",) if section.tiny else ("eager", "compiled")
  for batch_size in (2,) if section.tiny else BATCHES:
    for mode in modes:
      for dtype in ("bfloat16", "float32") if mode == "eager" else ("bfloat16",):
        label = {"mode": mode, "dtype": dtype, "batch": batch_size}
        if section.seconds_left() < (60 if mode == "compiled" else 10) and not section.tiny:
          section.note(f"{mode}, {dtype}, batch {batch_size} was not reached")
          continue
        section.attempt(label, functools.partial(_measured, device, mode, dtype, batch_size))


def _measured(device: str, mode: str, dtype: str, batch_size: int) -> dict:
  import torch
  from peers import classifier, convnext
  from torch.nn import functional as F

  with torch.device(device):
    model = convnext.ConvNeXt().to(memory_format=torch.channels_last)
    image = torch.rand(batch_size, 3, classifier.IMAGE_SIZE, classifier.IMAGE_SIZE)
    image = image.to(memory_format=torch.channels_last)
    label = torch.randint(classifier.CLASSES, (batch_size,))
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)

  def loss_fn():
    with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
      return F.cross_entropy(model(image), label)

  loss = torch.compile(loss_fn) if mode == "compiled" else loss_fn

  def step():
    optimizer.zero_grad()
    with torch.device(device):  # for the random numbers of stochastic depth
      loss().backward()
    optimizer.step()
    if device == "cuda":
      torch.cuda.synchronize()

  start = time.perf_counter()
  step()
  first, times = time.perf_counter() - start, []
  if device == "cuda":
    torch.cuda.reset_peak_memory_stats()
  for _ in range(WARM_UP + RUNS):
    start = time.perf_counter()
    step()
    times.append(time.perf_counter() - start)
  seconds = statistics.median(times[WARM_UP:])
  row = {"images/s": batch_size / seconds, "ms": 1e3 * seconds, "first step, s": first}
  if device == "cuda":
    row["peak memory, MB"] = torch.cuda.max_memory_allocated() / 1e6
  return row
