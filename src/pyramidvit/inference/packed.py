"""A trunk with its parts exchanged for ones whose weights are packed; torch alone is needed.

The copy runs the same code as the trunk: what is exchanged are linear layers, convolutions, and
activations that the layer before them does already.
"""

import copy
from typing import Any

import torch
from torch import nn

from ..backbones.trunk import Trunk
from ..errors import UserError
from ..nn.attention import LinearSpatialReductionAttention, SpatialReductionAttention
from ..nn.feed_forward import ConvFeedForward, FeedForward
from ..nn.patch_embed import PatchEmbed
from .onednn import Activation, PackedConv, PackedLinear, has_operators
from .trunk import check_device

Attention = SpatialReductionAttention | LinearSpatialReductionAttention


def check(trunk: Trunk) -> None:
    """Refuses where the route cannot be taken.

    Raises:
        UserError: Saying why.
    """
    check_device(trunk, "packed")
    if not has_operators(torch.float32):
        raise UserError("route packed: this torch has not the oneDNN operators that it needs")


def share(trunk: Trunk, dtype: torch.dtype) -> Trunk:
    """A copy in evaluation mode that computes in `dtype`; float32 numbers are shared with it."""
    kept = [*trunk.parameters(), *trunk.buffers()] if dtype == torch.float32 else []
    memo: dict[int, Any] = {id(each): each for each in kept}
    copied: Trunk = copy.deepcopy(trunk, memo).to(dtype).eval()
    copied.set_recompute("none")
    return copied


def pack(trunk: Trunk, dtype: torch.dtype) -> Trunk:
    """A copy in evaluation mode that computes in `dtype` with packed weights."""
    packed = share(trunk, dtype)
    for part in list(packed.modules()):
        if isinstance(part, Attention):
            pack_attention(part)
        elif isinstance(part, ConvFeedForward):
            first: Activation = "relu" if isinstance(part.relu, nn.ReLU) else "none"
            exchange(part, fc1=PackedLinear(part.fc1, first), relu=nn.Identity())
            exchange(part.dwconv, dwconv=PackedConv(part.dwconv.dwconv, "gelu"))
            exchange(part, act=nn.Identity(), fc2=PackedLinear(part.fc2))
        elif isinstance(part, FeedForward):
            exchange(part, fc1=PackedLinear(part.fc1, "gelu"), act=nn.Identity())
            exchange(part, fc2=PackedLinear(part.fc2))
        elif isinstance(part, PatchEmbed):
            exchange(part, proj=PackedConv(part.proj))
    return packed


def pack_attention(part: Attention) -> None:
    exchange(part, q=PackedLinear(part.q), kv=PackedLinear(part.kv), proj=PackedLinear(part.proj))
    if part.sr is not None:
        exchange(part, sr=PackedConv(part.sr))


def exchange(parent: nn.Module, **parts: nn.Module) -> None:
    """Puts other parts in the places of those of the same names."""
    for name, part in parts.items():
        setattr(parent, name, part)
