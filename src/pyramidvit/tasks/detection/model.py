"""Detectors: a backbone, a feature pyramid and heads, built from plain numbers.

Parameters carry the names of released mmdetection checkpoints: backbone, neck, bbox_head.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ...backbones import pvt_v1, pvt_v2
from ...errors import UserError, nearest
from ...necks.fpn import FPN
from .heads.retinanet import RetinaNetHead
from .outputs import DenseOutputs, Sizes, Truth

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


BUILDERS: dict[str, Callable[..., SingleStageDetector]] = {
    "retinanet": build_retinanet,
}


def build_detector(
    head: str, backbone: str, num_classes: int, **numbers: Any
) -> SingleStageDetector:
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
