"""The transformer block of both families: its attention and feed-forward are handed in."""

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from .bounds import Bounds
from .tokens import Grid


class Block(nn.Module):
    """Pre-norm residual block: attention, then feed-forward, both with stochastic depth.

    Args:
        dim: Channels C.
        attn: Maps (tokens [B, N, C], grid, bounds) to tokens [B, N, C].
        mlp: The same signature as `attn`.
        drop_path: Probability that a sample skips a branch while training.
    """

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = mlp
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor, grid: Grid, bounds: Bounds | None = None) -> Tensor:
        """Maps tokens [B, N, C] to [B, N, C]; `grid` is their (H, W)."""
        x = x + self.drop_path(self.attn(self.norm1(x), grid, bounds))
        x = x + self.drop_path(self.mlp(self.norm2(x), grid, bounds))
        return x
