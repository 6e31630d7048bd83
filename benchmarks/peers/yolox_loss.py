"""The loss of YOLOX in PyTorch (Ge et al., arXiv 2107.08430), image by image."""

import torch
import torch.nn.functional as F

CENTER_RADIUS = 2.5  # strides
CANDIDATES = 10  # cells per box whose IoUs give its number of cells


def decode(maps, image_size):
  """Boxes xyxy, the logits of objectness and classes [b, a, ...], and centres and strides [a]."""
  outputs, centers, strides = [], [], []
  for x in maps:
    h, w = x.shape[2:]
    stride = image_size / w
    y_index, x_index = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    index = torch.stack([x_index, y_index], -1).view(-1, 2)
    x = x.permute(0, 2, 3, 1).flatten(1, 2)
    center, size = (x[..., :2] + index) * stride, torch.exp(x[..., 2:4]) * stride
    outputs.append(torch.cat([center - size / 2, center + size / 2, x[..., 4:]], -1))
    centers.append((index + 0.5) * stride)
    strides.append(torch.full((h * w,), stride))
  outputs = torch.cat(outputs, 1)
  return outputs[..., :4], outputs[..., 4], outputs[..., 5:], torch.cat(centers), torch.cat(strides)


def iou(a, b):
  """Intersection over union of boxes [..., 4] that broadcast."""
  size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(
    min=0
  )
  intersection = size.prod(-1)
  areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
  return intersection / (areas - intersection)


@torch.no_grad()
def assign(boxes, objectness, classes, centers, strides, truth, label):
  """SimOTA for one image: the matched cells, the box of each, and the IoU with it."""
  inside = ((centers > truth[:, None, :2]) & (centers < truth[:, None, 2:])).all(-1)
  middle = (truth[:, None, :2] + truth[:, None, 2:]) / 2
  near = ((centers - middle).abs() < CENTER_RADIUS * strides[:, None]).all(-1)
  candidates = (inside | near).any(0).nonzero()[:, 0]
  both = (inside & near)[:, candidates]
  overlaps = iou(truth[:, None], boxes[candidates][None])
  p = (classes[candidates].sigmoid() * objectness[candidates, None].sigmoid()).sqrt()
  target = F.one_hot(label, p.shape[1]).to(p.dtype)[:, None].expand(-1, len(p), -1)
  cost = F.binary_cross_entropy(p[None].expand_as(target), target, reduction="none").sum(-1)
  cost = cost - 3 * torch.log(overlaps + 1e-8) + 1e5 * ~both
  largest = overlaps.topk(min(CANDIDATES, len(candidates)), 1).values
  selected = torch.zeros_like(both)
  for i, k in enumerate(largest.sum(1).int().clamp(min=1).tolist()):
    selected[i, cost[i].topk(k, largest=False).indices] = True
  count = selected.sum(0)
  owner = torch.where(count > 1, cost.argmin(0), selected.int().argmax(0))
  matched = count > 0
  owner = owner[matched]
  return candidates[matched], owner, overlaps[owner, matched.nonzero()[:, 0]]


def detection_loss(maps, truth, label, image_size):
  """The loss of a batch of boxes [b, g, 4] in pixels and labels [b, g], without padding."""
  boxes, objectness, classes, centers, strides = decode(maps, image_size)
  total, matches = boxes.new_zeros(()), 0
  target = torch.zeros_like(objectness)
  for i in range(len(truth)):
    cells, owner, overlap = assign(
      boxes[i], objectness[i], classes[i], centers, strides, truth[i], label[i]
    )
    matches += len(cells)
    target[i, cells] = 1
    total = total + 5 * (1 - iou(boxes[i, cells], truth[i, owner]) ** 2).sum()
    one_hot = F.one_hot(label[i, owner], classes.shape[-1]) * overlap[:, None]
    total = total + F.binary_cross_entropy_with_logits(classes[i, cells], one_hot, reduction="sum")
  total = total + F.binary_cross_entropy_with_logits(objectness, target, reduction="sum")
  return total / max(matches, 1)
