"""The backbone of a detector, by name, and how its maps are read."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor

from ...backbones import pvt_v1, pvt_v2
from ...errors import UserError, nearest
from ...nn.bounds import Bounds, find_bounds
from ...ops.regions import Level
from .outputs import Sizes

# "published": what an image is told depends on how far it is padded; "masked": it does not.
Padding = Literal["published", "masked"]

# Stochastic depth in the reference's detection configurations; 0.1 where none is named.
DROP_PATH_RATES = {"pvt_medium": 0.0, "pvt_large": 0.0}


def build_backbone(
    name: str, in_chans: int, drop_path_rate: float | None, out_indices: Sequence[int]
) -> pvt_v1.PVTv1Pyramid | pvt_v2.PVTv2Pyramid:
    """The pyramid of a backbone, with the drop path rate of the reference's detectors for None.

    Raises:
        UserError: An unknown name.
    """
    names = [*pvt_v1.SIZES, *pvt_v2.SIZES]
    if name not in names:
        raise UserError(f"unknown backbone {name}; nearest: {nearest(name, names)}")
    rate = DROP_PATH_RATES.get(name, 0.1) if drop_path_rate is None else drop_path_rate
    build = getattr(pvt_v1 if name in pvt_v1.SIZES else pvt_v2, name)
    built: pvt_v1.PVTv1Pyramid | pvt_v2.PVTv2Pyramid = build(
        in_chans=in_chans, drop_path_rate=rate, out_indices=out_indices
    )
    return built


def check_padding(padding: Padding) -> Padding:
    """The padding itself.

    Raises:
        ValueError: There is no such padding.
    """
    if padding not in get_args(Padding):
        raise ValueError(f"padding must be one of {get_args(Padding)}, got {padding!r}")
    return padding


def bounds_of(images: Tensor, sizes: Sizes | None, padding: Padding) -> Bounds | None:
    """What is each image's own; None where nothing is to be told apart.

    Args:
        images: [B, C, H, W], padded at the right and the bottom.
        sizes: (H, W) of each before padding; None where nothing was padded.
        padding: Whether it is told apart at all.

    Raises:
        ValueError: Images that are to be told apart are padded to no multiple of 32.
    """
    return find_bounds(sizes, images) if padding == "masked" else None


def read_maps(backbone: Any, images: Tensor, bounds: Bounds | None) -> list[Tensor]:
    """A backbone's maps of images [B, C, H, W]; with `bounds` it must be one of ours."""
    maps: list[Tensor]
    maps = backbone(images) if bounds is None else backbone.forward_padded(images, bounds)
    return maps


def own_parts(maps: Sequence[Tensor], bounds: Bounds | None) -> Sequence[Level]:
    """Maps as `ops.regions.pool_regions` takes them: whole, or cut into the images' own parts."""
    return maps if bounds is None else [bounds.parts(x) for x in maps]
