"""The baseline detectors, each one visible constructor call from plain numbers.

The numbers are those of the reference's detection configurations (mmdetection 2.13).
"""

from functools import partial

from ...necks.fpn import FPN
from .baseline_losses import region_terms, retinanet_terms
from .dense_decoding import detect_dense
from .detectors import SingleStageDetector, TwoStageDetector
from .head import Head
from .heads.mask import MaskHead
from .heads.retinanet import RetinaNetHead
from .heads.roi import BoxHead, RoIHead
from .heads.rpn import RPNHead
from .outputs import PUBLISHED, Decoding, DenseOutputs, RegionOutputs
from .trunk import Padding, build_backbone


def build_retinanet(
    backbone: str,
    num_classes: int,
    *,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    width: int = 256,
    anchor_scale: float = 4.0,
    decoding: Decoding = PUBLISHED,
    padding: Padding = "published",
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
        padding: "masked" keeps what lies beyond an image's own padding from changing its answers.
    """
    trunk = build_backbone(backbone, in_chans, drop_path_rate, out_indices=(1, 2, 3))
    channels = trunk.feature_info.channels()
    return SingleStageDetector(
        trunk,
        FPN(channels, width, num_outs=5, extra="on_input"),
        RetinaNetHead(num_classes, (8, 16, 32, 64, 128), dim=width, anchor_scale=anchor_scale),
        decoding=decoding,
        padding=padding,
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
    candidates: int = 1000,
    proposals: int = 1000,
    region_samples: int = 512,
    low_quality: float | None = 0.5,
    masks: bool = True,
    decoding: Decoding = PUBLISHED,
    padding: Padding = "published",
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
        candidates: Anchors of a level that proposals are chosen from; twice as many in training.
        proposals: Regions an image.
        region_samples: How many of them an image are learnt from at a time.
        low_quality: Least overlap for which an object also takes the best region that it has.
        masks: Whether masks are drawn.
        decoding: How detections are chosen.
        padding: "masked" keeps what lies beyond an image's own padding from changing its answers.
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
        candidates=candidates,
        proposals=proposals,
        region_samples=region_samples,
        low_quality=low_quality,
        decoding=decoding,
        padding=padding,
    )


# Faster R-CNN (arXiv 1506.01497): Mask R-CNN's other numbers, without masks. The papers train none;
# as in mmdetection, regions of low quality are not taken.
build_faster_rcnn = partial(build_mask_rcnn, low_quality=None, masks=False)

RETINANET = Head(build_retinanet, DenseOutputs, retinanet_terms, detect_dense)
FASTER_RCNN = Head(build_faster_rcnn, RegionOutputs, region_terms)
MASK_RCNN = Head(build_mask_rcnn, RegionOutputs, region_terms, learns_masks=True)
