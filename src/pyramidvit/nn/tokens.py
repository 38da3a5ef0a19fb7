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

    Not by way of [B, C, H*W]: of one image alone that leaves a stride by which torch takes the map
    for a plain one, and copies it in every convolution.
    """
    return tokens.reshape(tokens.shape[0], *grid, tokens.shape[2]).permute(0, 3, 1, 2)


def to_tokens(x: Tensor) -> Tensor:
    """Views a map [B, C, H, W] as tokens [B, H*W, C]."""
    return x.flatten(2).transpose(1, 2)
