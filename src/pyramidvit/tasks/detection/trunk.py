"""The backbone of a detector, by name."""

from collections.abc import Sequence

from ...backbones import pvt_v1, pvt_v2
from ...errors import UserError, nearest

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
