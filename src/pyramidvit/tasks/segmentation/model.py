"""Segmenters by name, each one visible constructor call from plain numbers.

The numbers are those of the reference's segmentation configurations (mmsegmentation 0.13), and of
Trans2Seg's middle size. Parameters carry released names: backbone, neck, decode_head.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError, nearest
from ...models import BackboneModel, create_model, list_models
from ...necks.fpn import FPN
from .heads.semantic_fpn import SemanticFPNHead
from .heads.trans2seg import Trans2SegHead
from .outputs import SegmentationOutputs


class Segmenter(nn.Module):
    """A network that gives every pixel a logit for each class.

    Args:
        backbone: Images to a list of maps.
        neck: Those to as many others.
        decode_head: Those, and the (H, W) of the images, to logits.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module, decode_head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.decode_head = decode_head

    def forward(self, images: Tensor) -> SegmentationOutputs:
        """Maps images [B, C, H, W], H and W from 32 up, to raw outputs."""
        maps = self.neck(self.backbone(images))
        logits: Tensor = self.decode_head(maps, (images.shape[2], images.shape[3]))
        return SegmentationOutputs(logits.to(torch.promote_types(logits.dtype, torch.float32)))


def build_semantic_fpn(
    backbone: str,
    num_classes: int,
    *,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    width: int = 256,
    dropout: float = 0.1,
) -> Segmenter:
    """Semantic FPN (arXiv 1901.02446); its logits have stride 4.

    Args:
        backbone: Name of a backbone.
        num_classes: Classes, 1 or more.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth; None takes the published rate.
        width: Channels of the pyramid, 2 or more; the head has half as many.
        dropout: Share of the head's channels that training leaves out before the logits.
    """
    trunk = build_backbone(backbone, in_chans, drop_path_rate, out_indices=(0, 1, 2, 3))
    return Segmenter(
        trunk,
        FPN(trunk.feature_info.channels(), width, num_outs=4, extra="pool"),
        SemanticFPNHead(num_classes, in_dim=width, dim=width // 2, dropout=dropout),
    )


def build_trans2seg(
    backbone: str,
    num_classes: int,
    *,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    width: int = 256,
    depth: int = 4,
    num_heads: int = 8,
    mlp_ratio: int = 3,
    hidden: int | None = None,
    image_size: int = 512,
) -> Segmenter:
    """Trans2Seg (arXiv 2101.08461) on the maps of stride 4 and 32; its logits have stride 1.

    Training takes memory for each class of each image: keep batches small.

    Args:
        backbone: Name of a backbone.
        num_classes: Classes, 1 or more.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth; None takes the published rate.
        width: Channels of the transformer, a multiple of 4 and of `num_heads`.
        depth: Blocks of its encoder, and of its decoder.
        num_heads: Attention heads.
        mlp_ratio: Hidden channels of its feed-forward networks over `width`.
        hidden: Channels of the convolutions behind it; None takes a quarter of `width`.
        image_size: Side in pixels of the square images at which no map of attention is resized.

    Raises:
        ValueError: `width` or `image_size` is not as said.
    """
    if width % num_heads or width % 4 or width < 4:
        raise ValueError(f"width must be a multiple of 4 and of {num_heads} heads, got {width}")
    if image_size < 32:
        raise ValueError(f"image_size must be 32 or more, got {image_size}")
    trunk = build_backbone(backbone, in_chans, drop_path_rate, out_indices=(0, 3))
    fine, coarse = trunk.feature_info.channels()
    head = Trans2SegHead(
        num_classes,
        (fine, coarse),
        dim=width,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        hidden=width // 4 if hidden is None else hidden,
        side=image_size // 32,
    )
    return Segmenter(trunk, nn.Identity(), head)


BUILDERS: dict[str, Callable[..., Segmenter]] = {
    "semantic_fpn": build_semantic_fpn,
    "trans2seg": build_trans2seg,
}


def build_segmenter(head: str, backbone: str, num_classes: int, **numbers: Any) -> Segmenter:
    """Builds the segmenter `head` on a backbone; `numbers` are those of its builder above.

    Raises:
        UserError: An unknown head or backbone.
        ValueError: A number out of its range.
    """
    if head not in BUILDERS:
        raise UserError(f"unknown segmenter {head}; nearest: {nearest(head, BUILDERS)}")
    if num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more, got {num_classes}")
    return BUILDERS[head](backbone, num_classes, **numbers)


def build_backbone(
    name: str, in_chans: int, drop_path_rate: float | None, out_indices: Sequence[int]
) -> BackboneModel:
    """The pyramid of a backbone; None takes the reference's rate, 0.1 for all segmenters.

    Raises:
        UserError: An unknown name.
    """
    names = list_models()
    if name not in names:
        raise UserError(f"unknown backbone {name}; nearest: {nearest(name, names)}")
    return create_model(
        name,
        in_chans=in_chans,
        drop_path_rate=drop_path_rate,
        features_only=True,
        out_indices=out_indices,
    )
