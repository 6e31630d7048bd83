"""FERMam in PyTorch, written from ferjax's own code.

The corrected variant at its published size. Modules have the names that `export_state_dict` gives,
so the weights of ferjax load, and both sides compute the same logits.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peers import classifier
from peers.classifier import CLASSES

DESCRIPTION = "FERMam, eager, its scans as loops over positions"
VARIANTS = ("channels_last", "contiguous")
WIDTH = 512  # of a token
UNITS = (3, 4, 14)  # of the stages of IR-50
BLOCKS = (4, 6, 2)  # of the stages of MobileFaceNet
STATES = 16  # of a scan
ASFR_RANK = 8


def scan(u, dt, A, B, C, input_step):
  """Outputs [..., l, d] of the selective scan; one loop over the positions.

  Shapes: u and dt [..., l, d], A [..., d, n], B and C [..., l, n], and `input_step` the shape of dt
  or B. Everything that does not depend on the state is computed for all positions at once.
  """
  decay = torch.exp(dt[..., None] * A[..., None, :, :])
  if input_step.shape[-1] == u.shape[-1]:
    inputs = (input_step * u)[..., None] * B[..., None, :]
  else:
    inputs = u[..., None] * (input_step * B)[..., None, :]
  state, states = torch.zeros_like(inputs[..., 0, :, :]), []
  for a, b in zip(decay.unbind(-3), inputs.unbind(-3), strict=True):
    state = torch.addcmul(b, a, state)
    states.append(state)
  return torch.einsum("...ldn,...ln->...ld", torch.stack(states, -3), C)


def conv3(features, out, stride=1, bias=False, groups=1):
  return nn.Conv2d(features, out, 3, stride, 1, bias=bias, groups=groups)


class IRUnit(nn.Module):
  """Pre-normalised residual unit of IR-50."""

  def __init__(self, features, out, stride):
    super().__init__()
    self.stride, self.projects = stride, features != out
    if self.projects:
      self.shortcut_layer = nn.Sequential(
        nn.Conv2d(features, out, 1, stride, bias=False), nn.BatchNorm2d(out)
      )
    self.res_layer = nn.Sequential(
      nn.BatchNorm2d(features),
      conv3(features, out),
      nn.PReLU(out),
      conv3(out, out, stride),
      nn.BatchNorm2d(out),
    )

  def forward(self, x):
    short = self.shortcut_layer(x) if self.projects else x[:, :, :: self.stride, :: self.stride]
    return self.res_layer(x) + short


class IR50(nn.Module):
  def __init__(self):
    super().__init__()
    width = WIDTH // 8
    self.input_layer = nn.Sequential(conv3(3, width), nn.BatchNorm2d(width), nn.PReLU(width))
    features, body = width, []
    for stage, units in enumerate(UNITS):
      for i in range(units):
        body.append(IRUnit(features, width * 2**stage, 1 if i else 2))
        features = width * 2**stage
    self.body = nn.Sequential(*body)

  def forward(self, x):
    return self.body(self.input_layer(x))


class ConvBlock(nn.Module):
  """Convolution, BatchNorm, and PReLU unless `linear`."""

  def __init__(self, features, out, kernel=1, stride=1, groups=1, linear=False):
    super().__init__()
    self.conv = nn.Conv2d(features, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    self.bn = nn.BatchNorm2d(out)
    self.prelu = nn.Identity() if linear else nn.PReLU(out)

  def forward(self, x):
    return self.prelu(self.bn(self.conv(x)))


class DepthWise(nn.Module):
  def __init__(self, features, out, groups, stride=1):
    super().__init__()
    self.residual = stride == 1
    self.conv = ConvBlock(features, groups)
    self.conv_dw = ConvBlock(groups, groups, 3, stride, groups)
    self.project = ConvBlock(groups, out, linear=True)

  def forward(self, x):
    y = self.project(self.conv_dw(self.conv(x)))
    return x + y if self.residual else y


class Residual(nn.Module):
  def __init__(self, blocks, features, groups):
    super().__init__()
    self.model = nn.Sequential(*(DepthWise(features, features, groups) for _ in range(blocks)))

  def forward(self, x):
    return self.model(x)


class MobileFaceNet(nn.Module):
  def __init__(self):
    super().__init__()
    c = WIDTH // 8
    self.conv1 = ConvBlock(3, c, 3, 2)
    self.conv2_dw = ConvBlock(c, c, 3, groups=c)
    self.conv_23 = DepthWise(c, c, 2 * c, 2)
    self.conv_3 = Residual(BLOCKS[0], c, 2 * c)
    self.conv_34 = DepthWise(c, 2 * c, 4 * c, 2)
    self.conv_4 = Residual(BLOCKS[1], 2 * c, 4 * c)
    self.conv_45 = DepthWise(2 * c, 2 * c, 8 * c, 2)
    self.conv_5 = Residual(BLOCKS[2], 2 * c, 4 * c)
    self.conv_6_sep = ConvBlock(2 * c, 8 * c)

  def forward(self, x):
    for layer in self.children():
      x = layer(x)
    return x


class SS2D(nn.Module):
  """Scans along rows and columns, in both directions; tokens are [b, h, w, c]."""

  def __init__(self, width, paths=4):
    super().__init__()
    d, self.rank = 2 * width, width // 16
    self.in_proj = nn.Linear(width, 2 * d, bias=False)
    self.conv2d = conv3(d, d, bias=True, groups=d)
    self.x_proj_weight = nn.Parameter(torch.randn(paths, self.rank + 2 * STATES, d) * d**-0.5)
    self.dt_projs_weight = nn.Parameter(torch.randn(paths, d, self.rank) * self.rank**-0.5)
    self.dt_projs_bias = nn.Parameter(torch.full((paths, d), -4.0))
    rates = torch.log(torch.arange(1.0, STATES + 1))
    self.A_logs = nn.Parameter(rates.repeat(paths * d, 1))
    self.Ds = nn.Parameter(torch.ones(paths * d))
    self.out_norm = nn.LayerNorm(d)
    self.out_proj = nn.Linear(d, width, bias=False)

  def forward(self, x):
    b, h, w, _ = x.shape
    x, z = self.in_proj(x).chunk(2, -1)
    d = x.shape[-1]
    x = F.silu(self.conv2d(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    rows = x.reshape(b, h * w, d)
    columns = x.transpose(1, 2).reshape(b, h * w, d)
    u = torch.stack([rows, columns, rows.flip(1), columns.flip(1)], 1)
    y = self.scan(u)
    rows, columns = y[:, 0] + y[:, 2].flip(1), y[:, 1] + y[:, 3].flip(1)
    y = rows.view(b, h, w, d) + columns.view(b, w, h, d).transpose(1, 2)
    return self.out_proj(self.out_norm(y) * F.silu(z))

  def scan(self, u):
    paths, d = self.dt_projs_bias.shape
    projected = torch.einsum("bpld,pcd->bplc", u, self.x_proj_weight)
    dt, B, C = projected.split([self.rank, STATES, STATES], -1)
    dt = torch.einsum("bplr,pdr->bpld", dt, self.dt_projs_weight)
    dt = F.softplus(dt + self.dt_projs_bias[:, None])
    A = -torch.exp(self.A_logs).view(paths, d, STATES)
    return scan(u, dt, A, B, C, dt) + self.Ds.view(paths, 1, d) * u


class ConvSSM(nn.Module):
  """Convolutions and SS2D on halves of the channels, then a channel shuffle."""

  def __init__(self):
    super().__init__()
    c = WIDTH // 2
    self.conv_branch = nn.Sequential(
      nn.BatchNorm2d(c),
      conv3(c, c, bias=True),
      nn.BatchNorm2d(c),
      nn.ReLU(),
      conv3(c, c, bias=True),
      nn.BatchNorm2d(c),
      nn.ReLU(),
      nn.Conv2d(c, c, 1),
      nn.ReLU(),
    )
    self.ln = nn.LayerNorm(c)
    self.ss2d = SS2D(c)

  def forward(self, x):
    left, right = x.chunk(2, -1)
    left = self.conv_branch(left.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    right = self.ss2d(self.ln(right))
    return torch.stack([left, right], -1).flatten(-2) + x


class ASFR(nn.Module):
  """One row-major scan whose input step is separate from the decay's."""

  def __init__(self):
    super().__init__()
    d = 2 * WIDTH
    self.in_proj = nn.Linear(WIDTH, 2 * d, bias=False)
    self.depthwise_conv = conv3(d, d, groups=d)
    self.x_proj = nn.Linear(d, ASFR_RANK + 2 * STATES, bias=False)
    self.dt_proj = nn.Linear(ASFR_RANK, d)
    self.dt_to_N_proj = nn.Linear(d, STATES)
    self.A_log = nn.Parameter(0.02 * torch.randn(STATES))
    self.D = nn.Parameter(torch.ones(d))
    self.out_norm = nn.LayerNorm(d)
    self.out_proj = nn.Linear(d, WIDTH)
    self.dropout = nn.Dropout(0.1)

  def forward(self, x):
    b, h, w, _ = x.shape
    x, z = self.in_proj(x).chunk(2, -1)
    x = self.depthwise_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2)
    low, B, C = self.x_proj(x).split([ASFR_RANK, STATES, STATES], -1)
    dt = F.softplus(self.dt_proj(low))
    A = -torch.exp(self.A_log).expand(x.shape[-1], STATES)
    y = scan(x, dt, A, B, C, self.dt_to_N_proj(dt)) + self.D * x
    return self.dropout(self.out_proj(self.out_norm(y) * F.silu(z.flatten(1, 2)))).view(b, h, w, -1)


class Fusion(nn.Module):
  """Both branches' tokens, refined at three scales; maps are [b, h, w, c]."""

  def __init__(self):
    super().__init__()
    self.fusion_proj = nn.Linear(2 * WIDTH, WIDTH)
    self.ssm1, self.ssm2, self.ssm3 = ASFR(), ASFR(), ASFR()
    self.norm = nn.LayerNorm(WIDTH)

  def forward(self, image, landmark):
    x = self.fusion_proj(torch.cat([image, landmark], -1))
    y = self.ssm1(x)
    for side, refine in ((2, self.ssm2), (4, self.ssm3)):
      pooled = F.avg_pool2d(x.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)
      coarse = refine(pooled).permute(0, 3, 1, 2)
      y = y + F.interpolate(coarse, x.shape[1:3], mode="bilinear").permute(0, 2, 3, 1)
    return self.norm(y)


class Gate(nn.Module):
  def __init__(self):
    super().__init__()
    self.linear1, self.linear2 = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

  def forward(self, x):
    return x * torch.sigmoid(self.linear2(F.relu(self.linear1(x))))


class FERMam(nn.Module):
  """Logits of images [b, 3, h, w]."""

  def __init__(self):
    super().__init__()
    self.ir_back, self.face_landback = IR50(), MobileFaceNet()
    self.ir_layer = nn.Linear(2 * WIDTH, WIDTH)
    self.ir_ssm, self.fusion, self.se_block = ConvSSM(), Fusion(), Gate()
    self.head = nn.ModuleDict({"linear": nn.Linear(WIDTH, CLASSES)})

  def forward(self, image: Tensor) -> Tensor:
    x = self.ir_back(image[:, :, ::2, ::2]).permute(0, 2, 3, 1)
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(2, 3).flatten(3)
    x = self.ir_ssm(self.ir_layer(x))
    landmark = self.face_landback(F.avg_pool2d(image, 2)).permute(0, 2, 3, 1)
    tokens = self.fusion(x, landmark)
    return self.head["linear"](self.se_block(tokens.mean((1, 2))))


forward = functools.partial(classifier.forward, FERMam)
step = functools.partial(classifier.step, FERMam)
