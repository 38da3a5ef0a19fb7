"""oneDNN by torch's own but private operators, which `torch.compile` uses too; called here alone.

A weight is packed once, in the order in which the processor reads it, where torch would do so at
every call; and an activation behind a product is computed before its results leave the cache.
Where an operator is missing, or is not what it was, the layers here compute the same by
public means.
"""

import functools
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["none", "relu", "gelu"]
NO_SCALARS: list[Any] = []


class PackedLinear(nn.Module):
    """A linear layer, and what follows it.

    Args:
        linear: The layer whose numbers are taken, in the dtype in which it shall compute.
        activation: Of its results.
    """

    def __init__(self, linear: nn.Linear, activation: Activation = "none") -> None:
        super().__init__()
        self.activation = activation
        self.bias = None if linear.bias is None else linear.bias.detach()
        weight = linear.weight.detach()  # [out, in]
        self.packs = has_operators(weight.dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self.packs else weight

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., in] to [..., out]."""
        if not self.packs:
            return activate(F.linear(x, self.weight, self.bias), self.activation)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, self.activation, NO_SCALARS, "none"
        )
        return found


class PackedConv(nn.Module):
    """A convolution with zero padding, and what follows it.

    Args:
        conv: The layer whose numbers are taken, in the dtype in which it shall compute.
        activation: Of its results.
    """

    def __init__(self, conv: nn.Conv2d, activation: Activation = "none") -> None:
        super().__init__()
        self.activation = activation
        self.geometry: Any = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.bias = None if conv.bias is None else conv.bias.detach()
        weight = conv.weight.detach()  # [out, in / groups, height, width]
        self.packs = has_operators(weight.dtype)
        self.weight = (
            torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry)
            if self.packs
            else weight
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, in, H, W] to [B, out, H', W']."""
        padding, stride, dilation, groups = self.geometry
        if not self.packs:
            x = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
            return activate(x, self.activation)
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.geometry, self.activation, NO_SCALARS, "none"
        )
        return found


def activate(x: Tensor, activation: Activation) -> Tensor:
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x) if activation == "gelu" else x


@functools.cache
def has_operators(dtype: torch.dtype) -> bool:
    """Whether the private operators are there, and compute what they are taken for."""
    ours = torch.ops.mkldnn
    square = torch.arange(64, dtype=torch.float32).view(8, 8).sin().to(dtype)  # [8, 8]
    x = torch.arange(128, dtype=torch.float32).view(1, 8, 4, 4).cos().to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    tokens, kernel = x.flatten(2).transpose(1, 2), square[:, None, :3, None].expand(-1, 1, 3, 3)
    geometry: Any = ((1, 1), (1, 1), (1, 1), 8)
    try:
        packed = ours._reorder_linear_weight(square)
        plain = ours._linear_pointwise(tokens, packed, None, "relu", NO_SCALARS, "none")
        packed = ours._reorder_convolution_weight(kernel.contiguous(), *geometry)
        map_ = ours._convolution_pointwise(x, packed, None, *geometry, "gelu", NO_SCALARS, "none")
    except (AttributeError, RuntimeError, TypeError):
        return False
    pairs = (
        (plain, F.relu(F.linear(tokens, square))),
        (map_, F.gelu(F.conv2d(x, kernel, padding=1, groups=8))),
    )
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    return all(torch.allclose(a, b, tolerance, tolerance) for a, b in pairs)
