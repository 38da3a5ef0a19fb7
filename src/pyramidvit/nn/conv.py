"""Convolutions of necks and heads, named as in released detection checkpoints."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from .bounds import Bounds, clear, grid_of, join


def conv_layer(in_chans: int, dim: int, kernel: int) -> nn.Sequential:
    """A convolution under the name `conv`, padded so that it keeps the size."""
    conv = nn.Conv2d(in_chans, dim, kernel, padding=kernel // 2)
    return nn.Sequential(OrderedDict(conv=conv))


def halving_conv(in_chans: int, dim: int) -> nn.Sequential:
    """A 3x3 convolution of stride 2 under the name `conv`, padded by one cell.

    The padding goes before it: of a map of one column, torch 2.15's own leaves parts of the
    weights' gradient in bfloat16 on a CPU as they were in memory, which may be anything.
    """
    return nn.Sequential(
        OrderedDict(border=nn.ZeroPad2d(1), conv=nn.Conv2d(in_chans, dim, 3, stride=2))
    )


def conv_tower(in_chans: int, dim: int, depth: int) -> nn.ModuleList:
    """3x3 convolutions, each followed by a ReLU; run them one after the other."""
    tower = nn.ModuleList()
    for i in range(depth):
        layer = conv_layer(dim if i else in_chans, dim, kernel=3)
        layer.add_module("activation", nn.ReLU(inplace=True))
        tower.append(layer)
    return tower


def norm_tower(in_chans: int, dim: int, depth: int) -> nn.Sequential:
    """3x3 convolutions without bias, each followed by group norm (arXiv 1803.08494) and a ReLU.

    A group has 8 channels, as with the published width of 256, or more where `dim` does not divide
    so: with fewer, the groups of a map of one cell would have nothing to compare.
    """
    groups = math.gcd(dim, max(1, dim // 8))
    tower = nn.Sequential()
    for i in range(depth):
        layer = OrderedDict(
            conv=nn.Conv2d(dim if i else in_chans, dim, 3, padding=1, bias=False),
            gn=nn.GroupNorm(groups, dim),
            activation=nn.ReLU(inplace=True),
        )
        tower.append(nn.Sequential(layer))
    return tower


def run_tower(tower: nn.Sequential, x: Tensor, bounds: Bounds | None = None) -> Tensor:
    """Runs a `norm_tower` on maps [B, in_chans, H, W]; its norms see own parts alone."""
    if bounds is None:
        out: Tensor = tower(x)
        return out
    x = clear(x, bounds)
    for layer in tower:
        conv, norm, activation = layer.children()
        parts = [norm(part) for part in bounds.parts(conv(x))]
        x = activation(join(parts, grid_of(x)))  # zeros beyond the parts
    return x


class Scale(nn.Module):
    """One factor that is learnt, 1 at first, under the name `scale`."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale
