"""The two feed-forward networks: plain (v1) and convolutional (v2)."""

from torch import Tensor, nn

from .bounds import Bounds, clear
from .kernels.operators import conv_gelu, fast
from .tokens import Grid, to_map, to_tokens


class FeedForward(nn.Module):
    """Two linear layers around a GELU (PVT v1, section 3.1)."""

    def __init__(self, dim: int, mlp_ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim * mlp_ratio)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(dim * mlp_ratio, dim)

    def forward(self, x: Tensor, grid: Grid, bounds: Bounds | None = None) -> Tensor:
        """Maps tokens [B, N, C] to [B, N, C]; every token alone, so nothing else plays a part."""
        x = self.fc2(self.act(self.fc1(x)))
        return x


class ConvFeedForward(nn.Module):
    """A feed-forward network with a 3x3 depth-wise convolution inside (PVT v2, section 3.3).

    The zero padding of that convolution is what tells a v2 model where a token lies.

    Args:
        dim: Channels C.
        mlp_ratio: Hidden channels over C.
        relu_first: Puts a ReLU behind `fc1`. The released b2_li has one, the papers do not say so.
    """

    def __init__(self, dim: int, mlp_ratio: int, *, relu_first: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim * mlp_ratio)
        self.relu = nn.ReLU() if relu_first else nn.Identity()
        self.dwconv = DepthwiseConv(dim * mlp_ratio)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(dim * mlp_ratio, dim)

    def forward(self, x: Tensor, grid: Grid, bounds: Bounds | None = None) -> Tensor:
        """Maps tokens [B, N, C] to [B, N, C]; `grid` is their (H, W)."""
        x = self.relu(self.fc1(x))  # [B, N, mlp_ratio * C]
        if fast(x):
            x = self.dwconv.with_gelu(x, grid, bounds)
        else:
            x = self.act(self.dwconv(x, grid, bounds))
        x = self.fc2(x)
        return x


class DepthwiseConv(nn.Module):
    """A 3x3 depth-wise convolution on tokens; nested once more to carry its released name."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def forward(self, x: Tensor, grid: Grid, bounds: Bounds | None = None) -> Tensor:
        return to_tokens(self.dwconv(clear(to_map(x, grid), bounds)))

    def with_gelu(self, x: Tensor, grid: Grid, bounds: Bounds | None = None) -> Tensor:
        """The convolution and a GELU in one kernel, where there is one."""
        x = to_tokens(clear(to_map(x, grid), bounds))  # [B, N, C]
        bias = self.dwconv.bias
        assert bias is not None
        out: Tensor = conv_gelu(x, self.dwconv.weight, bias, *grid)
        return out
