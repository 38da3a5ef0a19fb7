"""What a detector costs: multiply-adds of one image, exact and as the papers count them.

The papers' GFLOPs come from the reference's detection/get_flops.py: mmcv 1.3's counter of layers,
and a closed form for the attention of the backbone (`backbones.operations`), at 1280x800 (height,
width). A multiply-add is one operation. Of neck and heads the counter takes, beside products,

- one for each number that a convolution's bias is added to, none for a linear layer's;
- two for each number that a layer or group norm puts out, one for a ReLU's but for that of the
  proposals.

It does not know the cascade's batch normalisation over several GPUs, attention layers of torch's
own, and products of two things that were computed. So the papers' figures leave out the attention
of DETR and of Sparse R-CNN, and what the latter's regions are multiplied with; the exact figure has
them. Neither has anything for cutting out regions, resizing maps and choosing boxes.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from ...backbones.operations import count_operations as count_backbone
from .heads.roi import BOX_SIDE, MASK_SIDE
from .heads.rpn import RPNHead
from .heads.sparse_rcnn import SIDE, SparseRCNN

PUBLISHED_SIZE = (1280, 800)  # (H, W)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorOperations:
    """The cost of one image; every number is a count of operations, not a time.

    Attributes:
        macs: Multiply-adds of all products, those of attention included.
        published: The papers' figure, which counts as this module's docstring says.
    """

    macs: int
    published: int


def count_operations(
    model: nn.Module, size: tuple[int, int] = PUBLISHED_SIZE
) -> DetectorOperations:
    """Counts the operations of a detector on one image of `size` (height, width).

    Nothing is computed: a copy of the model runs on shapes alone. A two-stage detector looks at as
    many regions as it proposes, and draws as many masks as it may find.
    """
    copied: Any = copy.deepcopy(model).to("meta").eval().requires_grad_(requires_grad=False)
    weight = copied.backbone.get_parameter("patch_embed1.proj.weight")  # [C, in_chans, k, k]
    rule = PapersRule()
    pass_over(copied.backbone, rule, set(COSTS))  # which has a count of its own
    for layer in copied.modules():
        if isinstance(layer, RPNHead):
            pass_over(layer, rule, {F.relu})
    with torch.no_grad(), FlopCounterMode(display=False) as products, rule:
        run_on_shapes(copied, weight.new_empty(1, weight.shape[1], *size))
    return DetectorOperations(
        macs=products.get_total_flops() // 2,
        published=count_backbone(copied.backbone, size).published + rule.count,
    )


def run_on_shapes(model: Any, images: Tensor) -> None:
    """Runs a detector without numbers, from which would follow which regions it looks at: the
    layers that look at regions get empty ones."""
    if not hasattr(model, "roi_head"):
        model(images)
        return
    maps = model.neck(model.backbone(images))
    dim = maps[0].shape[1]
    if isinstance(model, SparseRCNN):
        _, features = model.rpn_head([tuple(images.shape[2:])])  # [1, Q, C]
        for stage in model.roi_head.bbox_head:
            regions = images.new_empty(features.shape[1], dim, SIDE, SIDE)
            _, _, features = stage(features, regions)
        return
    model.rpn_head(maps)
    for head in each(model.roi_head.bbox_head):
        head(images.new_empty(model.proposals, dim, BOX_SIDE, BOX_SIDE))
    found = model.decoding.max_detections
    labels = torch.zeros(found, dtype=torch.int64, device="meta")
    for head in each(model.roi_head.mask_head):
        head(images.new_empty(found, dim, MASK_SIDE, MASK_SIDE), labels)


def each(head: nn.Module | None) -> Iterable[Any]:
    """One head, those of all stages, or none."""
    if isinstance(head, nn.ModuleList):
        return head
    return [] if head is None else [head]


def of_convolution(result: Tensor, x: Tensor, weight: Tensor, bias: Any = None, *_: Any) -> int:
    return prod(result.shape) * (prod(weight.shape[1:]) + (bias is not None))


def of_upsampling(result: Tensor, x: Tensor, weight: Tensor, bias: Any = None, *_: Any) -> int:
    products = prod(x.shape) * prod(weight.shape[1:])  # weight [C_in, C_out, k, k]
    return products + (prod(result.shape) if bias is not None else 0)


def of_linear(result: Tensor, x: Tensor, weight: Tensor, *_: Any) -> int:
    return prod(x.shape) * len(weight)


def of_norm(result: Tensor, *_: Any) -> int:
    return 2 * prod(result.shape)


def of_relu(result: Tensor, *_: Any) -> int:
    return prod(result.shape)


COSTS: dict[Callable[..., Any], Callable[..., int]] = {
    F.conv2d: of_convolution,
    F.conv_transpose2d: of_upsampling,
    F.linear: of_linear,
    F.layer_norm: of_norm,
    F.group_norm: of_norm,  # but not batch normalisation: see above
    F.relu: of_relu,
}


class PapersRule(TorchFunctionMode):
    """Counts operations as mmcv's counter would, while its `with` lasts.

    Attributes:
        count: Operations so far.
        silent: Functions that are passed over now.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.silent: set[Callable[..., Any]] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))  # what it calls itself is not seen here
        if func in COSTS and func not in self.silent:
            self.count += COSTS[func](result, *args)
        return result


def pass_over(layer: nn.Module, rule: PapersRule, functions: set[Callable[..., Any]]) -> None:
    """Counts none of these functions within a layer."""

    def start(*_: Any) -> None:
        rule.silent = functions

    def stop(*_: Any) -> None:
        rule.silent = set()

    layer.register_forward_pre_hook(start)
    layer.register_forward_hook(stop)
