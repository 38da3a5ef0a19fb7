"""The transformer block of both families: its attention and feed-forward are handed in."""

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from .bounds import Bounds
from .kernels.operators import add_norm
from .recompute import second_half
from .tokens import Grid


class Block(nn.Module):
    """Pre-norm residual block: attention, then feed-forward, both with stochastic depth.

    Args:
        dim: Channels C.
        attn: Maps (tokens [B, N, C], grid, bounds) to tokens [B, N, C].
        mlp: The same signature as `attn`.
        drop_path: Probability that a sample skips a branch while training.

    Attributes:
        recompute: Keeps of `norm2` and `mlp` their input alone, see `nn.recompute`.
    """

    recompute = False  # of the class, so that a module that was pickled without it has it too

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = mlp
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor, grid: Grid, bounds: Bounds | None = None) -> Tensor:
        """Maps tokens [B, N, C] to [B, N, C]; `grid` is their (H, W)."""
        branch = self.drop_path(self.attn(self.norm1(x), grid, bounds))  # [B, N, C]
        if self.recompute and keeps_for_backward(x):
            x = x + branch
            branch = second_half(self.norm2, self.mlp, x, grid, bounds)  # [B, N, C]
        else:
            x, normed = add_norm(x, branch, self.norm2)
            branch = self.mlp(normed, grid, bounds)
        x = x + self.drop_path(branch)
        return x


def keeps_for_backward(x: Tensor) -> bool:
    """Whether autograd keeps what is computed from `x`. Graphs that are traced or compiled are told
    so by what made them; the symbols that they are traced with are no tensors."""
    return isinstance(x, Tensor) and torch.is_grad_enabled() and not torch.compiler.is_compiling()
