"""Inference and training of a classifier in PyTorch: what the peers of classifiers share."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

CLASSES, IMAGE_SIZE = 7, 224


def _build(make: Callable[[], nn.Module], variant: str, batch_size: int):
  torch.manual_seed(0)
  layout = torch.channels_last if variant == "channels_last" else torch.contiguous_format
  image = torch.rand(batch_size, 3, IMAGE_SIZE, IMAGE_SIZE).to(memory_format=layout)
  return make().to(memory_format=layout), image


def forward(make: Callable[[], nn.Module], variant: str, batch_size: int):
  model, image = _build(make, variant, batch_size)
  model.eval()

  def run():
    with torch.inference_mode():
      model(image)

  return run


def step(make: Callable[[], nn.Module], variant: str, batch_size: int):
  model, image = _build(make, variant, batch_size)
  label = torch.randint(CLASSES, (batch_size,))
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)

  def run():
    optimizer.zero_grad()
    F.cross_entropy(model(image), label).backward()
    optimizer.step()

  return run
