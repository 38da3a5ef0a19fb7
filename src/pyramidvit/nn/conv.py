"""Convolutions of necks and heads, named as in released detection checkpoints."""

from collections import OrderedDict

from torch import nn


def conv_layer(in_chans: int, dim: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution under the name `conv`, padded so that stride 1 keeps the size."""
    conv = nn.Conv2d(in_chans, dim, kernel, stride, padding=kernel // 2)
    return nn.Sequential(OrderedDict(conv=conv))


def conv_tower(in_chans: int, dim: int, depth: int) -> nn.ModuleList:
    """3x3 convolutions, each followed by a ReLU; run them one after the other."""
    tower = nn.ModuleList()
    for i in range(depth):
        layer = conv_layer(dim if i else in_chans, dim, kernel=3)
        layer.add_module("activation", nn.ReLU(inplace=True))
        tower.append(layer)
    return tower
