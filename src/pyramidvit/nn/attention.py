"""Spatial-reduction attention (SRA): every token asks, few tokens answer.

PVT v1, section 3.3: keys and values are read from a grid shrunk by a strided convolution.
PVT v2, section 3.2: "linear" SRA pools the grid to 7x7 instead, so that cost grows with N only.

Parameter names are those of the released checkpoints: q, kv (rows: keys, then values), proj, and
sr, norm for the reduction.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bounds import Bounds
from .tokens import Grid, to_map, to_tokens

FEW_KEYS = 64  # all shares of attention of so many are small beside the tokens


class SpatialReductionAttention(nn.Module):
    """Multi-head attention over a token grid that a convolution shrinks `sr_ratio` times per side.

    Args:
        dim: Channels C, a multiple of `num_heads`.
        num_heads: Attention heads.
        sr_ratio: Kernel and stride of the reduction; 1 keeps every token and adds no parameters.
    """

    def __init__(self, dim: int, num_heads: int, sr_ratio: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.sr: nn.Conv2d | None = None
        if sr_ratio > 1:
            self.sr = nn.Conv2d(dim, dim, kernel_size=sr_ratio, stride=sr_ratio)
            self.norm = nn.LayerNorm(dim)  # eps 1e-5; the block's norms use 1e-6, as released

    def forward(self, x: Tensor, grid: Grid, bounds: Bounds | None = None) -> Tensor:
        """Maps tokens [B, N, C] to [B, N, C]; `grid` is their (H, W).

        Own parts are whole windows of the reduction, so with `bounds` it is enough that no token
        asks one from beyond them.
        """
        source = x
        if self.sr is not None:
            small = self.sr(to_map(x, grid))  # [B, C, H / sr_ratio, W / sr_ratio]
            source, grid = self.norm(to_tokens(small)), (small.shape[2], small.shape[3])
        mask = None if bounds is None else bounds.inside(grid).flatten(2)[:, None]  # [B, 1, 1, M]
        x = self.proj(attend(self.q(x), self.kv(source), self.num_heads, mask))
        return x


class LinearSpatialReductionAttention(nn.Module):
    """Multi-head attention whose keys and values are read from the grid averaged to `pool`x`pool`.

    Args:
        dim: Channels C, a multiple of `num_heads`.
        num_heads: Attention heads.
        pool: Side of the pooled grid, 7 in the paper; M = pool * pool whatever N is.
    """

    def __init__(self, dim: int, num_heads: int, pool: int = 7) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.pool = nn.AdaptiveAvgPool2d(pool)
        self.sr = nn.Conv2d(dim, dim, kernel_size=1)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, grid: Grid, bounds: Bounds | None = None) -> Tensor:
        """Maps tokens [B, N, C] to [B, N, C]; `grid` is their (H, W). Pools own parts alone."""
        whole = to_map(x, grid)
        if bounds is None:
            pooled = self.pool(whole)  # [B, C, pool, pool]
        else:
            pooled = torch.cat([self.pool(part) for part in bounds.parts(whole)])
        pooled = self.sr(pooled)
        source = F.gelu(self.norm(to_tokens(pooled)))  # [B, M, C]
        x = self.proj(attend(self.q(x), self.kv(source), self.num_heads))
        return x


def attend(q: Tensor, kv: Tensor, num_heads: int, mask: Tensor | None = None) -> Tensor:
    """Softmax attention of queries [B, N, C] on keys and values [B, M, 2C]; returns [B, N, C].

    With a `mask`, bool [B, 1, 1, M], only those of the keys count that it says.
    """
    k, v = kv.chunk(2, dim=-1)  # [B, M, C] each
    q, k, v = (split_heads(x, num_heads) for x in (q, k, v))  # [B, heads, N or M, C / heads]
    if mask is None and is_slow_to_learn(q, k):
        scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)  # [B, heads, N, M]
        x: Tensor = scores.softmax(dim=3, dtype=torch.float32).to(v.dtype) @ v
    else:
        x = F.scaled_dot_product_attention(q, k, v, mask)  # [B, heads, N, C / heads]
    return x.transpose(1, 2).flatten(2)


def is_slow_to_learn(q: Tensor, k: Tensor) -> bool:
    """Whether torch's own attention would take two to eight times as long in training.

    In bfloat16 on a CPU the backward pass of its fused kernel does (torch 2.15). Written out, all
    shares of attention are kept for it, so that is only for few keys.
    """
    if not (q.requires_grad and torch.is_grad_enabled()):
        return False
    return q.dtype == torch.bfloat16 and q.device.type == "cpu" and k.shape[2] <= FEW_KEYS


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    batch, tokens, dim = x.shape
    return x.view(batch, tokens, num_heads, dim // num_heads).transpose(1, 2)
