"""ConvNeXt-T, the trunk of EmoNeXt-T, in PyTorch (Liu et al., arXiv 2201.03545).

It has no spatial transformer, squeeze-and-excitation or attention, which EmoNeXt adds.
"""

import functools
import itertools

import torch
from torch import nn
from torch.nn import functional as F

from peers import classifier
from peers.classifier import CLASSES

DESCRIPTION = "ConvNeXt-T body, eager"
VARIANTS = ("channels_last", "contiguous")
DEPTHS, WIDTHS = (3, 3, 9, 3), (96, 192, 384, 768)
DROP_PATH_RATE = 0.1


class ChannelNorm(nn.LayerNorm):
  """LayerNorm over the channels of [b c h w]."""

  def forward(self, x):
    return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
  def __init__(self, width: int, drop_path_rate: float):
    super().__init__()
    self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
    self.norm = nn.LayerNorm(width, eps=1e-6)
    self.expand = nn.Linear(width, 4 * width)
    self.project = nn.Linear(4 * width, width)
    self.gamma = nn.Parameter(torch.full((width,), 1e-6))
    self.drop_path_rate = drop_path_rate

  def forward(self, x):
    y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
    y = self.gamma * self.project(F.gelu(self.expand(y)))
    y = y.permute(0, 3, 1, 2)
    if self.training and self.drop_path_rate:
      kept = 1 - self.drop_path_rate
      y = y * (torch.rand(len(y), 1, 1, 1) < kept) / kept
    return x + y


class ConvNeXt(nn.Module):
  def __init__(self):
    super().__init__()
    rates = iter(torch.linspace(0, DROP_PATH_RATE, sum(DEPTHS)).tolist())
    layers = [nn.Conv2d(3, WIDTHS[0], 4, stride=4), ChannelNorm(WIDTHS[0], eps=1e-6)]
    for i, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
      if i > 0:
        layers += [ChannelNorm(WIDTHS[i - 1], eps=1e-6)]
        layers += [nn.Conv2d(WIDTHS[i - 1], width, 2, stride=2)]
      layers += [Block(width, rate) for rate in itertools.islice(rates, depth)]
    self.body = nn.Sequential(*layers)
    self.norm = nn.LayerNorm(WIDTHS[-1], eps=1e-6)
    self.head = nn.Linear(WIDTHS[-1], CLASSES)

  def forward(self, x):
    return self.head(self.norm(self.body(x).mean((2, 3))))


forward = functools.partial(classifier.forward, ConvNeXt)
step = functools.partial(classifier.step, ConvNeXt)
