"""Feature pyramid network (arXiv 1612.03144): gives every map of a backbone the deeper ones' view.

Reference: mmdetection 2.13, whose parameter names are kept: lateral_convs, fpn_convs.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.bounds import Bounds, clear
from ..nn.conv import conv_layer, halving_conv

Extra = Literal["pool", "on_input", "on_lateral", "on_output"]


class FPN(nn.Module):
    """Maps a backbone's maps to as many of one width, and further ones of half the size each.

    Args:
        in_channels: Channels of the incoming maps, from the largest map to the smallest.
        dim: Channels of all outgoing maps.
        num_outs: How many maps go out, at least as many as come in.
        extra: Where the further maps come from. "pool": every second value of the one before.
            Otherwise strided convolutions, the first on the last incoming map ("on_input"), on
            its lateral map ("on_lateral") or on its outgoing map ("on_output"), the others each
            on the one before.

    Raises:
        ValueError: Fewer maps out than in.
    """

    def __init__(
        self, in_channels: Sequence[int], dim: int = 256, *, num_outs: int, extra: Extra
    ) -> None:
        super().__init__()
        if num_outs < len(in_channels):
            raise ValueError(f"num_outs must be {len(in_channels)} or more, got {num_outs}")
        self.extra = extra
        self.num_extra = num_outs - len(in_channels)
        self.lateral_convs = nn.ModuleList(conv_layer(c, dim, kernel=1) for c in in_channels)
        self.fpn_convs = nn.ModuleList(conv_layer(dim, dim, kernel=3) for _ in in_channels)
        if extra != "pool":
            for i in range(self.num_extra):
                source = in_channels[-1] if i == 0 and extra == "on_input" else dim
                self.fpn_convs.append(halving_conv(source, dim))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor], bounds: Bounds | None = None) -> list[Tensor]:
        """Maps [B, C_i, H_i, W_i] in, from large to small; `num_outs` of [B, dim, H_i, W_i] out.

        With `bounds`, what goes out is each image's own as far as what comes in is.
        """
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for i in range(len(laterals) - 1, 0, -1):
            size = laterals[i - 1].shape[2:]
            laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], size)  # nearest
        outs = [conv(clear(x, bounds)) for conv, x in zip(self.fpn_convs, laterals, strict=False)]

        source = {"on_input": maps, "on_lateral": laterals}.get(self.extra, outs)[-1]
        for i in range(self.num_extra):
            if self.extra == "pool":
                outs.append(outs[-1][:, :, ::2, ::2])
            else:
                source = outs[-1] if i else source
                outs.append(self.fpn_convs[len(maps) + i](clear(source, bounds)))
        return outs
