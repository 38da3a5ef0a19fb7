"""The published initialisation of both families (reference: classification/pvt.py, pvt_v2.py)."""

import math

from torch import nn


def init_linear_and_norm(module: nn.Module) -> None:
    """Linear layers from a normal of std 0.02 with bias 0, norms at identity; both families.

    Convolutions are left alone: v1 keeps torch's default for them.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)  # cut at +-2, i.e. practically never
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def init_conv_fan_out(module: nn.Module) -> None:
    """Convolutions from a normal of variance 2 / fan-out with bias 0; v2 only."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
