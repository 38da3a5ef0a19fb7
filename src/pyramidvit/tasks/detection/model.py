"""Detectors by name, each one visible constructor call from plain numbers.

The numbers are those of the reference's detection configurations (mmdetection 2.13).
"""

from collections.abc import Callable, Sequence
from typing import Any

from ...backbones import pvt_v1, pvt_v2
from ...errors import UserError, nearest
from ...necks.fpn import FPN
from .detectors import SingleStageDetector, TwoStageDetector
from .heads.mask import MaskHead
from .heads.retinanet import RetinaNetHead
from .heads.roi import BoxHead, RoIHead
from .heads.rpn import RPNHead
from .outputs import PUBLISHED, Decoding

# Stochastic depth in the reference's detection configurations; 0.1 where none is named.
DROP_PATH_RATES = {"pvt_medium": 0.0, "pvt_large": 0.0}


def build_retinanet(
    backbone: str,
    num_classes: int,
    *,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    width: int = 256,
    anchor_scale: float = 4.0,
    decoding: Decoding = PUBLISHED,
) -> SingleStageDetector:
    """RetinaNet (arXiv 1708.02002) on levels of stride 8 to 128.

    Args:
        backbone: Name of a backbone.
        num_classes: Classes, 1 or more.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth; None takes the published rate.
        width: Channels of pyramid and towers.
        anchor_scale: Side of the smallest square anchor, in strides; less for small objects.
        decoding: How detections are chosen.
    """
    trunk = build_backbone(backbone, in_chans, drop_path_rate, out_indices=(1, 2, 3))
    channels = trunk.feature_info.channels()
    return SingleStageDetector(
        trunk,
        FPN(channels, width, num_outs=5, extra="on_input"),
        RetinaNetHead(num_classes, (8, 16, 32, 64, 128), dim=width, anchor_scale=anchor_scale),
        decoding=decoding,
    )


def build_mask_rcnn(
    backbone: str,
    num_classes: int,
    *,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    width: int = 256,
    hidden: int = 1024,
    anchor_scale: float = 8.0,
    proposals: int = 1000,
    region_samples: int = 512,
    low_quality: float | None = 0.5,
    masks: bool = True,
    decoding: Decoding = PUBLISHED,
) -> TwoStageDetector:
    """Mask R-CNN (arXiv 1703.06870): proposals on levels of stride 4 to 64, regions up to 32.

    Args:
        backbone: Name of a backbone.
        num_classes: Classes, 1 or more.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth; None takes the published rate.
        width: Channels of pyramid and heads.
        hidden: Width of the hidden layers that classify regions.
        anchor_scale: Side of the square anchor, in strides; less for small objects.
        proposals: Regions an image.
        region_samples: How many of them an image are learnt from at a time.
        low_quality: Least overlap for which an object also takes the best region that it has.
        masks: Whether masks are drawn.
        decoding: How detections are chosen.
    """
    trunk = build_backbone(backbone, in_chans, drop_path_rate, out_indices=(0, 1, 2, 3))
    channels = trunk.feature_info.channels()
    return TwoStageDetector(
        trunk,
        FPN(channels, width, num_outs=5, extra="pool"),
        RPNHead((4, 8, 16, 32, 64), dim=width, anchor_scale=anchor_scale),
        RoIHead(
            BoxHead(num_classes, width, hidden),
            MaskHead(num_classes, width) if masks else None,
            (4, 8, 16, 32),
        ),
        proposals=proposals,
        region_samples=region_samples,
        low_quality=low_quality,
        decoding=decoding,
    )


def build_faster_rcnn(backbone: str, num_classes: int, **numbers: Any) -> TwoStageDetector:
    """Faster R-CNN (arXiv 1506.01497): Mask R-CNN's other numbers, without masks.

    The papers train none; as in mmdetection, regions of low quality are not taken.
    """
    numbers = {"low_quality": None, "masks": False, **numbers}
    return build_mask_rcnn(backbone, num_classes, **numbers)


Detector = SingleStageDetector | TwoStageDetector

BUILDERS: dict[str, Callable[..., Detector]] = {
    "retinanet": build_retinanet,
    "faster_rcnn": build_faster_rcnn,
    "mask_rcnn": build_mask_rcnn,
}


def build_detector(head: str, backbone: str, num_classes: int, **numbers: Any) -> Detector:
    """Builds the detector `head` on a backbone; `numbers` are those of its builder above.

    Raises:
        UserError: An unknown head or backbone.
        ValueError: A number out of its range.
    """
    if head not in BUILDERS:
        raise UserError(f"unknown detector {head}; nearest: {nearest(head, BUILDERS)}")
    if num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more, got {num_classes}")
    return BUILDERS[head](backbone, num_classes, **numbers)


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
