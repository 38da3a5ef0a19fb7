"""Patch embeddings: a strided convolution that turns a map into fewer, wider tokens."""

from torch import Tensor, nn

from .bounds import Bounds, clear
from .tokens import Grid, to_tokens


class PatchEmbed(nn.Module):
    """Cuts the map into patches that touch (v1) or overlap (v2), one token each.

    v1 (section 3.1): kernel = stride, no padding; rows and columns that fill no patch are lost.
    v2 (section 3.1): kernel = 2 * stride - 1, padding = stride - 1; nothing is lost.

    Args:
        in_chans: Channels of the incoming map.
        dim: Channels C of the tokens.
        stride: Downsampling, 4 in the first stage and 2 in the others.
        overlapping: True for v2.
    """

    def __init__(self, in_chans: int, dim: int, stride: int, *, overlapping: bool) -> None:
        super().__init__()
        kernel = 2 * stride - 1 if overlapping else stride
        self.proj = nn.Conv2d(in_chans, dim, kernel, stride, padding=kernel // 2 * overlapping)
        self.norm = nn.LayerNorm(dim)  # eps 1e-5; the block's norms use 1e-6, as released

    def forward(self, x: Tensor, bounds: Bounds | None = None) -> tuple[Tensor, Grid]:
        """Maps [B, in_chans, H, W] to tokens [B, N, C] and their grid (H / stride, W / stride)."""
        x = self.proj(clear(x, bounds))  # [B, C, H / stride, W / stride]
        return self.norm(to_tokens(x)), (x.shape[2], x.shape[3])
