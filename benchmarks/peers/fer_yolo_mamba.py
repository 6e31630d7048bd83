"""FER-YOLO-Mamba-s in PyTorch, written from ferjax's own code.

The corrected variant at its published size, with the loss of YOLOX. Modules have the names that
`export_state_dict` gives, so the weights of ferjax load, and both sides compute the same maps and
the same loss. The peer `fer_yolo_mamba_no_scan` is the same network without its recurrence.
"""

import torch
import torch.nn.functional as F
from torch import nn

from peers.fermam import STATES, scan
from peers.yolox_loss import detection_loss

DESCRIPTION = "FER-YOLO-Mamba-s, eager, its scans as loops over positions"
VARIANTS = ("channels_last", "contiguous")
IMAGE_SIZE, CLASSES = 320, 7
WIDTH = 32  # of the stem
FACES = 8  # in an image
PATHS = 8


class ConvNormAct(nn.Module):
  """Convolution without bias, BatchNorm, SiLU."""

  def __init__(self, features, out, kernel=1, stride=1):
    super().__init__()
    self.conv = nn.Conv2d(features, out, kernel, stride, (kernel - 1) // 2, bias=False)
    self.bn = nn.BatchNorm2d(out, eps=1e-3, momentum=0.03)

  def forward(self, x):
    return F.silu(self.bn(self.conv(x)), inplace=True)


class Focus(nn.Module):
  def __init__(self):
    super().__init__()
    self.conv = ConvNormAct(12, WIDTH, 3)

  def forward(self, x):
    return self.conv(torch.cat([x[:, :, i::2, j::2] for j in (0, 1) for i in (0, 1)], 1))


class Bottleneck(nn.Module):
  def __init__(self, features, shortcut):
    super().__init__()
    self.conv1, self.conv2 = ConvNormAct(features, features), ConvNormAct(features, features, 3)
    self.shortcut = shortcut

  def forward(self, x):
    y = self.conv2(self.conv1(x))
    return x + y if self.shortcut else y


class CSPLayer(nn.Module):
  def __init__(self, features, bottlenecks, shortcut=True):
    super().__init__()
    hidden = features // 2
    self.conv1, self.conv2 = ConvNormAct(features, hidden), ConvNormAct(features, hidden)
    self.conv3 = ConvNormAct(features, features)
    self.m = nn.Sequential(*(Bottleneck(hidden, shortcut) for _ in range(bottlenecks)))

  def forward(self, x):
    return self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], 1))


class SpatialPyramidPooling(nn.Module):
  def __init__(self, features):
    super().__init__()
    self.conv1 = ConvNormAct(features, features // 2)
    self.conv2 = ConvNormAct(2 * features, features)

  def forward(self, x):
    pooled = [self.conv1(x)]
    for _ in range(3):  # repeated 5x5 max pooling equals 9x9 and 13x13
      pooled.append(F.max_pool2d(pooled[-1], 5, 1, 2))
    return self.conv2(torch.cat(pooled, 1))


class CSPDarknet(nn.Module):
  def __init__(self):
    super().__init__()
    c = WIDTH
    self.stem = Focus()
    self.dark2 = nn.Sequential(ConvNormAct(c, 2 * c, 3, 2), CSPLayer(2 * c, 1))
    self.dark3 = nn.Sequential(ConvNormAct(2 * c, 4 * c, 3, 2), CSPLayer(4 * c, 3))
    self.dark4 = nn.Sequential(ConvNormAct(4 * c, 8 * c, 3, 2), CSPLayer(8 * c, 3))
    self.dark5 = nn.Sequential(
      ConvNormAct(8 * c, 16 * c, 3, 2),
      SpatialPyramidPooling(16 * c),
      CSPLayer(16 * c, 1, shortcut=False),
    )

  def forward(self, x):
    c3 = self.dark3(self.dark2(self.stem(x)))
    c4 = self.dark4(c3)
    return c3, c4, self.dark5(c4)


def skew(x, sign):
  """Rolls row i of [b, h, w, d] by i columns, for h = w: out[i, j] = x[i, (j + sign * i) % w]."""
  b, h, w, d = x.shape
  rows = torch.cat([x, x], 2).flatten(1, 2)
  if sign > 0:
    return F.pad(rows, (0, 0, 0, h)).view(b, h, 2 * w + 1, d)[:, :, :w]
  return rows[:, w : w + h * (2 * w - 1)].view(b, h, 2 * w - 1, d)[:, :, :w]


class SS2D(nn.Module):
  """Scans along rows, columns and both diagonals, in both directions; tokens are [b, h, w, c]."""

  def __init__(self, width, recurrent):
    super().__init__()
    d, self.rank, self.recurrent = 2 * width, -(-width // 16), recurrent
    self.in_proj = nn.Linear(width, 2 * d, bias=False)
    self.conv2d = nn.Conv2d(d, d, 3, padding=1, groups=d)
    self.x_proj_weight = nn.Parameter(torch.randn(PATHS, self.rank + 2 * STATES, d) * d**-0.5)
    self.dt_projs_weight = nn.Parameter(torch.randn(PATHS, d, self.rank) * self.rank**-0.5)
    self.dt_projs_bias = nn.Parameter(torch.full((PATHS, d), -4.0))
    self.A_logs = nn.Parameter(torch.log(torch.arange(1.0, STATES + 1)).repeat(PATHS * d, 1))
    self.Ds = nn.Parameter(torch.ones(PATHS * d))
    self.out_norm = nn.LayerNorm(d)
    self.out_proj = nn.Linear(d, width, bias=False)

  def forward(self, x):
    b, h, w, _ = x.shape
    x, z = self.in_proj(x).chunk(2, -1)
    d = x.shape[-1]
    x = F.silu(self.conv2d(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    maps = [x, x.transpose(1, 2), skew(x, 1).transpose(1, 2), skew(x, -1).transpose(1, 2)]
    rows, columns, diagonal, antidiagonal = (m.reshape(b, h * w, d) for m in maps)
    paths = [rows, columns, rows.flip(1), columns.flip(1)]
    paths += [diagonal, antidiagonal, diagonal.flip(1), antidiagonal.flip(1)]
    y = self.scan(torch.stack(paths, 1))
    merge = lambda k: y[:, k] + y[:, k + 2].flip(1)  # noqa: E731
    turned = [merge(k).view(b, w, h, d).transpose(1, 2) for k in (1, 4, 5)]
    y = merge(0).view(b, h, w, d) + turned[0] + skew(turned[1], -1) + skew(turned[2], 1)
    return self.out_proj(self.out_norm(y) * F.silu(z))

  def scan(self, u):
    d = u.shape[-1]
    projected = torch.einsum("bpld,pcd->bplc", u, self.x_proj_weight)
    dt, B, C = projected.split([self.rank, STATES, STATES], -1)
    dt = torch.einsum("bplr,pdr->bpld", dt, self.dt_projs_weight)
    dt = F.softplus(dt + self.dt_projs_bias[:, None])
    D = self.Ds.view(PATHS, 1, d)
    if not self.recurrent:  # as if every state were zero before its position
      return u * (D + dt * (B * C).sum(-1, keepdim=True))
    return scan(u, dt, -torch.exp(self.A_logs).view(PATHS, d, STATES), B, C, dt) + D * u


class ABMLP(nn.Module):
  """Channel attention."""

  def __init__(self, c):
    super().__init__()
    dense = lambda a, b: nn.Linear(a, b, bias=False)  # noqa: E731
    self.fc = nn.Sequential(
      dense(c, c // 16), nn.ReLU(), dense(c // 16, c // 16), nn.ReLU(), dense(c // 16, c)
    )

  def forward(self, x):
    return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]


class VSSBlock(nn.Module):
  """FER-YOLO-VSS: convolutions and SS2D, each on half of the channels."""

  def __init__(self, c, recurrent):
    super().__init__()
    self.frm = nn.Sequential(
      nn.Conv2d(c // 2, c // 4, 1, bias=False),
      nn.BatchNorm2d(c // 4),
      nn.ReLU(),
      ABMLP(c // 4),
      nn.Conv2d(c // 4, c // 2, 1, bias=False),
      nn.BatchNorm2d(c // 2),
    )
    self.ln_1 = nn.LayerNorm(c // 2)
    self.self_attention = SS2D(c // 2, recurrent)
    self.finalconv11 = nn.Conv2d(c, c, 1)

  def forward(self, x):
    left, right = x.chunk(2, 1)
    tokens = right.permute(0, 2, 3, 1)
    tokens = tokens + self.self_attention(self.ln_1(tokens))
    return self.finalconv11(torch.cat([self.frm(left), tokens.permute(0, 3, 1, 2)], 1)) + x


class Neck(nn.Module):
  """The backbone, and its maps joined from coarse to fine and back."""

  def __init__(self, recurrent):
    super().__init__()
    fine, coarse = 4 * WIDTH, 8 * WIDTH
    self.backbone = CSPDarknet()
    self.lateral_conv0 = ConvNormAct(16 * WIDTH, coarse)
    self.reduce_conv1 = ConvNormAct(2 * coarse, fine)
    self.reduce_conv111 = ConvNormAct(2 * fine, fine, 3)
    self.bu_conv2 = ConvNormAct(2 * fine, fine, 3, 2)
    self.bu_conv1 = ConvNormAct(2 * fine, coarse, 3, 2)
    vss = lambda c: nn.Sequential(VSSBlock(c, recurrent))  # noqa: E731
    self.C3_p4, self.C3_p3 = vss(2 * coarse), vss(2 * fine)
    self.C3_n3, self.C3_n4 = vss(2 * fine), vss(2 * coarse)

  def forward(self, x):
    c3, c4, c5 = self.backbone(x)
    up = lambda x: F.interpolate(x, scale_factor=2, mode="nearest")  # noqa: E731
    p5 = self.lateral_conv0(c5)
    p4 = self.reduce_conv1(self.C3_p4(torch.cat([up(p5), c4], 1)))
    p3 = self.C3_p3(torch.cat([up(p4), c3], 1))
    out4 = self.C3_n3(torch.cat([self.bu_conv2(p3), p4], 1))
    out5 = self.C3_n4(torch.cat([self.bu_conv1(out4), p5], 1))
    return self.reduce_conv111(p3), out4, out5


class Head(nn.Module):
  """Maps [b, 5 + classes, h, w] of three levels: box, objectness, classes."""

  def __init__(self):
    super().__init__()
    c, levels = 4 * WIDTH, (4 * WIDTH, 8 * WIDTH, 16 * WIDTH)
    branch = lambda: nn.Sequential(ConvNormAct(c, c, 3), ConvNormAct(c, c, 3))  # noqa: E731
    predict = lambda out: nn.ModuleList(nn.Conv2d(c, out, 1) for _ in levels)  # noqa: E731
    self.stems = nn.ModuleList(ConvNormAct(width, c) for width in levels)
    self.cls_convs = nn.ModuleList(branch() for _ in levels)
    self.reg_convs = nn.ModuleList(branch() for _ in levels)
    self.cls_preds, self.reg_preds, self.obj_preds = predict(CLASSES), predict(4), predict(1)

  def forward(self, maps):
    outputs = []
    for i, x in enumerate(maps):
      x = self.stems[i](x)
      box = self.reg_convs[i](x)
      parts = (
        self.reg_preds[i](box),
        self.obj_preds[i](box),
        self.cls_preds[i](self.cls_convs[i](x)),
      )
      outputs.append(torch.cat(parts, 1))
    return outputs


class FerYoloMamba(nn.Module):
  """Raw maps of normalised images [b, 3, h, w]."""

  def __init__(self, recurrent=True):
    super().__init__()
    self.backbone, self.head = Neck(recurrent), Head()

  def forward(self, image):
    return self.head(self.backbone(image))


def build(variant, batch_size, recurrent=True):
  torch.manual_seed(0)
  layout = torch.channels_last if variant == "channels_last" else torch.contiguous_format
  image = torch.rand(batch_size, 3, IMAGE_SIZE, IMAGE_SIZE).to(memory_format=layout)
  model = FerYoloMamba(recurrent)
  for module in model.modules():
    if isinstance(module, nn.Conv2d):
      nn.init.normal_(module.weight, std=0.02)
  return model.to(memory_format=layout), image


def forward(variant: str, batch_size: int, recurrent: bool = True):
  model, image = build(variant, batch_size, recurrent)
  model.eval()

  def run():
    with torch.inference_mode():
      model(image)

  return run


def step(variant: str, batch_size: int, recurrent: bool = True):
  model, image = build(variant, batch_size, recurrent)
  side = 0.1 + 0.4 * torch.rand(batch_size, FACES, 1)
  corner = torch.rand(batch_size, FACES, 2) * (1 - side)
  boxes = IMAGE_SIZE * torch.cat([corner, corner + side], -1)
  label = torch.randint(CLASSES, (batch_size, FACES))
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)

  def run():
    optimizer.zero_grad()
    detection_loss(model(image), boxes, label, IMAGE_SIZE).backward()
    optimizer.step()

  return run
