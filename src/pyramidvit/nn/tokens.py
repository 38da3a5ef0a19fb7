"""The two layouts inside a stage, and the changes between them.

Shape letters used across `nn` and `backbones`: B batch, C channels, H and W the token grid,
N = H*W tokens (one more where a class token leads), M tokens left after spatial reduction.

Tokens [B, N, C] lie in memory exactly as a channels-last map [B, C, H, W] does, so both functions
are views: no data moves, and convolutions see the layout that is fastest on CPUs and GPUs.
"""

from torch import Tensor

Grid = tuple[int, int]  # (H, W) of the tokens, row by row


def to_map(tokens: Tensor, grid: Grid) -> Tensor:
    """Views tokens [B, H*W, C] as a channels-last map [B, C, H, W].

    The sides are told apart before they are moved: then a batch of one image has the stride by
    which torch knows the layout. With another one it copies the map to the other layout and back.
    """
    return tokens.reshape(tokens.shape[0], *grid, tokens.shape[2]).permute(0, 3, 1, 2)


def to_tokens(x: Tensor) -> Tensor:
    """Views a map [B, C, H, W] as tokens [B, H*W, C]."""
    return x.flatten(2).transpose(1, 2)
