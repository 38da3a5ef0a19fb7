"""Detectors: a backbone, a feature pyramid and heads, built from plain numbers.

Parameters carry the names of released mmdetection checkpoints: backbone, neck, and bbox_head, or
rpn_head and roi_head.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ...backbones import pvt_v1, pvt_v2
from ...errors import UserError, nearest
from ...necks.fpn import FPN
from .heads.mask import MaskHead
from .heads.retinanet import RetinaNetHead
from .heads.roi import BoxHead, RoIHead, detect_regions, labels_of, sample_regions
from .heads.rpn import RPNHead, propose
from .outputs import (
    PUBLISHED,
    Decoding,
    DenseOutputs,
    RegionDetections,
    RegionOutputs,
    Sizes,
    Truth,
)

# Stochastic depth in the reference's detection configurations; 0.1 where none is named.
DROP_PATH_RATES = {"pvt_medium": 0.0, "pvt_large": 0.0}


class SingleStageDetector(nn.Module):
    """A detector that answers at every anchor.

    Args:
        backbone: Images to a list of maps.
        neck: Those to maps of one width.
        bbox_head: Those to outputs.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module, bbox_head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.bbox_head = bbox_head

    def forward(
        self,
        images: Tensor,
        *,
        sizes: Sizes | None = None,
        targets: Sequence[Truth] | None = None,
    ) -> DenseOutputs:
        """Maps images [B, C, H, W] to raw outputs; sizes and targets steer other detectors."""
        outputs: DenseOutputs = self.bbox_head(self.neck(self.backbone(images)))
        return outputs


class TwoStageDetector(nn.Module):
    """A detector that proposes regions and looks at them again.

    Args:
        backbone: Images to a list of maps.
        neck: Those to maps of one width.
        rpn_head: Those to objectness.
        roi_head: Regions of the maps, but for the last one, to classes, boxes and masks.
        proposals: Regions an image.
        region_samples: How many of them an image are learnt from at a time.
        low_quality: Least overlap for which an object also takes the best region that it has.
        decoding: How detections are chosen, whose masks are then drawn.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn_head: RPNHead,
        roi_head: RoIHead,
        *,
        proposals: int,
        region_samples: int,
        low_quality: float | None,
        decoding: Decoding,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.rpn_head = rpn_head
        self.roi_head = roi_head
        self.proposals = proposals
        self.region_samples = region_samples
        self.low_quality = low_quality
        self.decoding = decoding

    def forward(
        self,
        images: Tensor,
        *,
        sizes: Sizes | None = None,
        targets: Sequence[Truth] | None = None,
    ) -> RegionOutputs | RegionDetections:
        """Maps images [B, C, H, W] to detections, or with targets to what can be learnt from.

        Args:
            images: Padded at the right and the bottom.
            sizes: (H, W) of each image before padding, at whose borders boxes are cut off; None
                where nothing was padded.
            targets: One an image; they decide which regions are looked at.
        """
        sizes = [(images.shape[2], images.shape[3])] * len(images) if sizes is None else sizes
        maps = self.neck(self.backbone(images))
        dense = self.rpn_head(maps)
        if targets is None:
            return self.detect(maps[:-1], dense, sizes)
        return self.learn(maps[:-1], dense, sizes, targets)

    def detect(self, maps: Sequence[Tensor], dense: DenseOutputs, sizes: Sizes) -> RegionDetections:
        proposals = propose(dense, sizes, candidates=1000, most=self.proposals)
        logits, deltas = self.roi_head(maps, proposals.boxes, proposals.images)
        found = detect_regions(logits, deltas, proposals, sizes, self.decoding)
        masks = self.roi_head.forward_masks(maps, found.boxes, found.images, found.labels)
        return RegionDetections(found, masks)

    def learn(
        self,
        maps: Sequence[Tensor],
        dense: DenseOutputs,
        sizes: Sizes,
        targets: Sequence[Truth],
    ) -> RegionOutputs:
        proposals = propose(dense, sizes, candidates=2000, most=self.proposals)
        regions = sample_regions(
            proposals, targets, count=self.region_samples, low_quality=self.low_quality
        )
        logits, deltas = self.roi_head(maps, regions.boxes, regions.images)
        labels, _ = labels_of(regions, targets)
        objects = regions.matches >= 0
        masks = self.roi_head.forward_masks(
            maps, regions.boxes[objects], regions.images[objects], labels
        )
        return RegionOutputs(dense, regions, logits, deltas, masks)


def build_retinanet(
    backbone: str,
    num_classes: int,
    *,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    width: int = 256,
    anchor_scale: float = 4.0,
) -> SingleStageDetector:
    """RetinaNet (arXiv 1708.02002) on levels of stride 8 to 128.

    Args:
        backbone: Name of a backbone.
        num_classes: Classes, 1 or more.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth; None takes the published rate.
        width: Channels of pyramid and towers.
        anchor_scale: Side of the smallest square anchor, in strides; less for small objects.
    """
    trunk = build_backbone(backbone, in_chans, drop_path_rate, out_indices=(1, 2, 3))
    channels = trunk.feature_info.channels()
    return SingleStageDetector(
        trunk,
        FPN(channels, width, num_outs=5, extra="on_input"),
        RetinaNetHead(num_classes, (8, 16, 32, 64, 128), dim=width, anchor_scale=anchor_scale),
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
