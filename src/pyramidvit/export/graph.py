"""From a network to a graph for any batch and size, its normalisation inside.

A graph differs from the network in one thing: adaptive pooling, whose bins depend on the size of
the map. ONNX has no operator for it, and exporters write down the bins of the size they saw. So it
is written out here as two matrix products, whose matrices are computed from the sizes.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

# Of the images in a graph, in pixels: below, some grid has one cell, which broadcasts unlike any
# other, so that torch.export asks for a graph of its own. ONNX asks for none: its graphs go to 32.
MIN_SIDE = 64
EXAMPLE = (2, 96, 128)  # batch and size that a graph is made with


class Exportable(nn.Module):
    """A network that takes pictures as they are, and gives a tuple of tensors.

    Args:
        network: Normalised images [B, 3, H, W] to a tensor, or to several.
        mean: Of each channel of the images, for values from 0 to 1.
        std: The same, of the standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps float32 images [B, 3, H, W] of values from 0 to 1 to the network's outputs."""
        outputs = self.network((images - self.mean) / self.std)
        return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


class AverageBins(nn.Module):
    """What `nn.AdaptiveAvgPool2d(side)` computes, in operators that every runtime has.

    Args:
        side: Bins in each direction.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] to the means of its bins [B, C, side, side]."""
        rows, columns = averages(self.side, x.shape[2]), averages(self.side, x.shape[3])
        return rows.to(x) @ x @ columns.to(x).T


def averages(bins: int, count: int) -> Tensor:
    """The float32 matrix [bins, count] that takes means of `count` values in `bins` bins.

    Bin i has the values from floor(i * count / bins) to below ceil((i + 1) * count / bins); bins
    overlap where `count` is no multiple of `bins`.
    """
    index = torch.arange(bins)[:, None]  # [bins, 1]
    start = index * count // bins
    end = ((index + 1) * count + bins - 1) // bins
    place = torch.arange(count)  # [count]
    inside = (place >= start) & (place < end)  # [bins, count]
    return inside.float() / (end - start)


def write_out_bins(network: nn.Module) -> nn.Module:
    """A copy of a network in which adaptive pooling is written out."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.AdaptiveAvgPool2d):
                side: Any = child.output_size
                setattr(parent, name, AverageBins(side))
    return network


@torch.no_grad()
def capture(network: nn.Module) -> ExportedProgram:
    """The graph of an `Exportable` in evaluation mode, for any batch, height and width."""
    batch, height, width = EXAMPLE
    sides = (Dim(name, min=MIN_SIDE) for name in ("height", "width"))
    dims = dict(zip((0, 2, 3), (Dim("batch", min=1), *sides), strict=True))
    images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    return torch.export.export(network, (images,), dynamic_shapes={"images": dims}, strict=False)
