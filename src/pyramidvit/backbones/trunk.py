"""What both families share around their stages: the walk over them, and timm's habits.

A family (`pvt_v1.py`, `pvt_v2.py`) says how a stage is built and run; both classes here are
abstract. Parameters keep their released names: patch_embed1..4, block1..4, norm1..4, head.
"""

from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..nn.tokens import Grid

MIN_SIZE = 32  # the last stage has stride 32
STRIDES = (4, 8, 16, 32)


class PyramidOptions(TypedDict, total=False):
    """What the builders of a pyramid take: see the families' pyramid classes."""

    in_chans: int
    drop_path_rate: float
    out_indices: Sequence[int]


class FeatureInfo(list[dict[str, Any]]):
    """One record a map (num_chs, reduction, module), with timm's ways to ask for a column."""

    def channels(self) -> list[int]:
        return [row["num_chs"] for row in self]

    def reduction(self) -> list[int]:
        return [row["reduction"] for row in self]

    def module_name(self) -> list[str]:
        return [row["module"] for row in self]


class Trunk(nn.Module):
    """The stages of a pyramid vision transformer, without what reads them.

    Args:
        dims: Channels of the four maps.
        out_indices: Which maps are wanted, 0 to 3; no stage is built beyond the last one.

    Raises:
        ValueError: `out_indices` is empty, not increasing, or outside 0 to 3.
    """

    def __init__(self, dims: Sequence[int], out_indices: Sequence[int]) -> None:
        super().__init__()
        if list(out_indices) != sorted(set(out_indices) & {0, 1, 2, 3}) or not out_indices:
            raise ValueError(
                f"out_indices must be increasing numbers from 0 to 3, got {out_indices}"
            )
        self.out_indices = tuple(out_indices)
        self.num_stages = max(out_indices) + 1
        self.num_features = dims[self.num_stages - 1]
        self.grad_checkpointing = False
        self.feature_info = FeatureInfo(
            {"num_chs": dims[i], "reduction": STRIDES[i], "module": f"block{i + 1}", "index": i}
            for i in out_indices
        )

    def forward_stage(self, index: int, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] of the stage before to [B, C', H/2, W/2] (the first one to H/4)."""
        raise NotImplementedError

    def forward_maps(self, images: Tensor, num_stages: int) -> list[Tensor]:
        """Runs the first `num_stages` stages on `images` [B, in_chans, H, W]; their maps."""
        check_size(images)
        x = images.contiguous(memory_format=torch.channels_last)
        maps = []
        for index in range(num_stages):
            x = self.forward_stage(index, x)  # [B, C_i, H / stride_i, W / stride_i]
            maps.append(x)
        return maps

    def run_blocks(self, index: int, tokens: Tensor, grid: Grid) -> Tensor:
        """Runs the blocks of a stage on tokens [B, N, C]."""
        for block in getattr(self, f"block{index + 1}"):
            if self.grad_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, grid, use_reentrant=False)
            else:
                tokens = block(tokens, grid)
        return tokens

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that take no weight decay beside biases and other 1-D ones."""
        return set()


class Classifier(Trunk):
    """A trunk under a linear head: logits [B, num_classes] from images [B, in_chans, H, W]."""

    head: nn.Module
    num_classes: int

    def forward_features(self, images: Tensor) -> Tensor:
        """The last normalised features, from which `forward_head` makes logits."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits [B, num_classes] from `forward_features`, or with `pre_logits` their input."""
        raise NotImplementedError

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The final features and the maps of chosen stages, as timm's method of that name.

        Args:
            images: [B, in_chans, H, W].
            indices: Stages 0 to 3, negative from the end; a number n means the last n; None all.
            norm: Applies the final norm to the last map (v1; a v2 map is always normalised).
            stop_early: Runs no stage beyond the last one asked for; with `intermediates_only`.
            output_fmt: Only "NCHW".
            intermediates_only: Returns the maps alone.

        Returns:
            (features, maps) or maps; a map is [B, C_i, H / stride_i, W / stride_i].

        Raises:
            ValueError: Another `output_fmt`, a stage outside 0 to 3, or `stop_early` with features.
        """
        if output_fmt != "NCHW":
            raise ValueError(f'output_fmt must be "NCHW", got {output_fmt!r}')
        if stop_early and not intermediates_only:
            raise ValueError("stop_early leaves no final features: set intermediates_only too")
        wanted = pick_stages(indices)
        if stop_early and max(wanted) < 3:
            maps = self.forward_maps(images, max(wanted) + 1)
            return [maps[i] for i in wanted]
        features, maps = self.forward_all(images, norm)
        chosen = [maps[i] for i in wanted]
        return chosen if intermediates_only else (features, chosen)

    def forward_all(self, images: Tensor, norm: bool) -> tuple[Tensor, list[Tensor]]:
        """`forward_features` together with all four maps."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [B, in_chans, H, W], H and W from 32 up, to logits [B, num_classes]."""
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        """The head: a linear layer, or an identity where `num_classes` is 0."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Puts a fresh head for `num_classes` classes in place; 0 leaves pooled features."""
        like = next(self.parameters())
        self.num_classes = num_classes
        self.head = build_head(self.num_features, num_classes).to(like.device, like.dtype)


def build_head(dim: int, num_classes: int) -> nn.Module:
    """A linear classifier with the published initialisation, or an identity for 0 classes."""
    if num_classes < 0:
        raise ValueError(f"num_classes must be 0 or more, got {num_classes}")
    if num_classes == 0:
        return nn.Identity()
    head = nn.Linear(dim, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head


def pick_stages(indices: int | Sequence[int] | None) -> list[int]:
    """Turns timm's ways to name stages into numbers from 0 to 3."""
    if indices is None:
        return [0, 1, 2, 3]
    if isinstance(indices, int):
        picked = list(range(4 - indices, 4))
    else:
        picked = [i + 4 if i < 0 else i for i in indices]
    if not picked or not set(picked) <= {0, 1, 2, 3}:
        raise ValueError(f"indices must name stages 0 to 3, got {indices}")
    return picked


def check_size(images: Tensor) -> None:
    """Raises ValueError for images that are not [B, in_chans, H, W] with sides from 32 up."""
    if images.ndim != 4:
        raise ValueError(f"images must be [batch, channels, H, W], got shape {list(images.shape)}")
    if images.shape[2] < MIN_SIZE or images.shape[3] < MIN_SIZE:
        height, width = images.shape[2:]
        raise ValueError(f"images must be at least {MIN_SIZE}x{MIN_SIZE}, got {height}x{width}")


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Rates from 0 to `rate`, linear over all blocks, one list a stage."""
    total = sum(depths)
    rates = iter([rate * i / max(total - 1, 1) for i in range(total)])
    return [[next(rates) for _ in range(depth)] for depth in depths]
