"""What both families share around their stages: the walk over them, and timm's habits.

A family (`pvt_v1.py`, `pvt_v2.py`) says how a stage is built and run; the class here is abstract.
Parameters keep their released names: patch_embed1..4, block1..4, norm1..4, head.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypedDict, get_args

import torch
import torch.fx
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..nn.block import Block
from ..nn.bounds import Bounds
from ..nn.tokens import Grid
from .features import FeatureInfo
from .hub import HubModel

Recompute = Literal["none", "feed_forward", "blocks"]

MIN_SIZE = 32  # the last stage has stride 32
STRIDES = (4, 8, 16, 32)

# What the released weights were trained on, in the words of timm's pretrained_cfg.
INPUT = {
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "first_conv": "patch_embed1.proj",
}


class PyramidSize(Protocol):
    """What this file asks of a row of a family's table."""

    @property
    def dims(self) -> tuple[int, ...]: ...


class PyramidOptions(TypedDict, total=False):
    """What the builders of a pyramid take: see the families' pyramid classes."""

    in_chans: int
    drop_path_rate: float
    out_indices: Sequence[int]


class Trunk(nn.Module, HubModel):
    """The stages of a pyramid vision transformer, without what reads them.

    Args:
        size: A row of the family's table.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth of the last block.
        out_indices: Which maps are wanted, 0 to 3; no stage is built beyond the last one.

    Attributes:
        class_names: What the outputs of a classifier mean, where it is known.
        pretrained_cfg: The input that the released weights expect, in timm's words.

    Raises:
        ValueError: `out_indices` is empty, not increasing, or outside 0 to 3.
    """

    sizes: ClassVar[Mapping[str, Any]]  # the family's table
    size_type: ClassVar[type[Any]]  # the class of its rows
    recompute: Recompute = "none"  # of the class, so that an older pickled model has it too

    def __init__(
        self,
        size: PyramidSize,
        in_chans: int,
        drop_path_rate: float,
        out_indices: Sequence[int],
    ) -> None:
        super().__init__()
        if list(out_indices) != sorted(set(out_indices) & {0, 1, 2, 3}) or not out_indices:
            raise ValueError(
                f"out_indices must be increasing numbers from 0 to 3, got {out_indices}"
            )
        self.size = size
        self.in_chans = in_chans
        self.drop_path_rate = drop_path_rate
        self.out_indices = tuple(out_indices)
        self.num_stages = max(out_indices) + 1
        self.num_features = self.head_hidden_size = size.dims[self.num_stages - 1]
        self.class_names: tuple[str, ...] | None = None
        self.pretrained_cfg: dict[str, Any] = {**INPUT, "input_size": (in_chans, 224, 224)}
        self.feature_info = FeatureInfo(
            {
                "num_chs": size.dims[i],
                "reduction": STRIDES[i],
                "module": f"block{i + 1}",
                "index": i,
            }
            for i in out_indices
        )

    @property
    def default_cfg(self) -> dict[str, Any]:
        """timm's older name of `pretrained_cfg`."""
        return self.pretrained_cfg

    def options(self) -> dict[str, Any]:
        """The keyword arguments that build this model again, beside its size."""
        return {
            "in_chans": self.in_chans,
            "drop_path_rate": self.drop_path_rate,
            "out_indices": self.out_indices,
        }

    def forward_stage(self, index: int, x: Tensor, bounds: Bounds | None) -> Tensor:
        """Maps [B, C, H, W] of the stage before to [B, C', H/2, W/2] (the first one to H/4)."""
        raise NotImplementedError

    def forward_maps(
        self, images: Tensor, num_stages: int, bounds: Bounds | None = None
    ) -> list[Tensor]:
        """Runs the first `num_stages` stages on `images` [B, in_chans, H, W]; their maps."""
        check_size(images)
        x = images.contiguous(memory_format=torch.channels_last)
        maps = []
        for index in range(num_stages):
            x = self.forward_stage(index, x, bounds)  # [B, C_i, H / stride_i, W / stride_i]
            maps.append(x)
        return maps

    def forward_padded(self, images: Tensor, bounds: Bounds | None) -> list[Tensor]:
        """A pyramid's maps of images that are padded further than each would be alone.

        Apart from `forward`, whose graphs take images and nothing else.

        Args:
            images: [B, in_chans, H, W], padded at the right and the bottom to multiples of 32.
            bounds: See `nn.bounds.find_bounds`. Each image's own part of a map is then as of the
                image alone; with None, as in `forward`, padding leaks in.
        """
        maps = self.forward_maps(images, self.num_stages, bounds)
        return [maps[i] for i in self.out_indices]

    def run_blocks(
        self, index: int, tokens: Tensor, grid: Grid, bounds: Bounds | None = None
    ) -> Tensor:
        """Runs the blocks of a stage on tokens [B, N, C]."""
        for block in getattr(self, f"block{index + 1}"):
            if self.recompute == "blocks" and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, grid, bounds, use_reentrant=False)
            else:
                tokens = block(tokens, grid, bounds)
        return tokens

    def drop_stages(self, num_stages: int) -> None:
        """Keeps the first `num_stages` stages; what belongs to no stage works on the last only."""
        for name, _ in [*self.named_children(), *self.named_parameters(recurse=False)]:
            if name == "cls_token" or (name[-1].isdigit() and int(name[-1]) > num_stages):
                delattr(self, name)
        self.num_stages = num_stages
        self.num_features = self.head_hidden_size = self.size.dims[num_stages - 1]

    @property
    def grad_checkpointing(self) -> bool:
        """Whether blocks are computed again, in timm's words."""
        return self.recompute == "blocks"

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes each block in the backward pass instead of keeping its activations."""
        self.set_recompute("blocks" if enable else "none")

    def set_recompute(self, what: Recompute) -> None:
        """Says what training computes again in the backward pass instead of keeping it.

        Args:
            what: "none", "feed_forward" (each block's second half: its norm and its feed-forward
                network, whose hidden tensors are most of what a model keeps), or "blocks".

        Raises:
            ValueError: It is none of these.
        """
        if what not in get_args(Recompute):
            raise ValueError(f"recompute must be one of {get_args(Recompute)}, got {what}")
        self.recompute = what
        for module in self.modules():
            if isinstance(module, Block):
                module.recompute = what == "feed_forward"

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that take no weight decay beside biases and other 1-D ones."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that put parameters into layers from input to output, in timm's form.

        A layer is a block, the first one of a stage with the patch embedding before it; `coarse`
        makes it a whole stage. What no pattern names (head, last norm, class token) comes last.
        """
        if coarse:
            blocks: Any = r"^(?:patch_embed|pos_embed|block|norm)(\d)"
        else:
            blocks = [
                (r"^block(\d)\.(\d+)", None),
                (r"^(?:patch_embed|pos_embed)(\d)", (0,)),
            ]
            for stage in range(1, self.num_stages):  # v2: a norm closes a stage with its last block
                last = len(getattr(self, f"block{stage}")) - 1
                blocks.append((rf"^norm({stage})\.", (last,)))
        return {"stem": r"^(?:patch_embed|pos_embed)1", "blocks": blocks}


@torch.fx.wrap  # traced as one call: a graph cannot decide on shapes
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
