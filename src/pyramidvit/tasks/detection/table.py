"""All detectors: a row for each, and nothing else to be told of a new one.

What a row's functions share is in `ops` and in this folder: `docs/new-detector.md` shows how a head
is added.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from ...structures import Batch, DetectionTarget
from .baseline_losses import region_terms, retinanet_terms
from .baselines import build_faster_rcnn, build_mask_rcnn, build_retinanet
from .dense_decoding import detect_dense
from .heads.atss import ATSSOutputs, atss_terms, build_atss, detect_atss
from .heads.cascade import CascadeOutputs, build_cascade_mask_rcnn, cascade_terms
from .heads.detr import DETROutputs, build_detr, detect_detr, detr_terms
from .heads.gfl import GFLOutputs, build_gfl, detect_gfl, gfl_terms
from .heads.sparse_rcnn import (
    SparseRCNNOutputs,
    build_sparse_rcnn,
    detect_sparse_rcnn,
    sparse_rcnn_terms,
)
from .outputs import Decoding, DenseOutputs, RegionDetections, RegionOutputs, Sizes

Detect = Callable[[Any, Sizes, Decoding], RegionDetections]


class Head(NamedTuple):
    """A detector.

    Attributes:
        build: (backbone, num_classes, **numbers) to the network, which has a `decoding`.
        outputs: The type of what the network says when it is to learn.
        loss: (outputs, batch) to named scalars.
        detect: (outputs, sizes, decoding) to detections; None where the network, which draws masks
            for them, gives detections itself.
    """

    build: Callable[..., nn.Module]
    outputs: type
    loss: Callable[[Any, Batch[DetectionTarget]], dict[str, Tensor]]
    detect: Detect | None = None


HEADS: dict[str, Head] = {
    "retinanet": Head(build_retinanet, DenseOutputs, retinanet_terms, detect_dense),
    "faster_rcnn": Head(build_faster_rcnn, RegionOutputs, region_terms),
    "mask_rcnn": Head(build_mask_rcnn, RegionOutputs, region_terms),
    "atss": Head(build_atss, ATSSOutputs, atss_terms, detect_atss),
    "gfl": Head(build_gfl, GFLOutputs, gfl_terms, detect_gfl),
    "sparse_rcnn": Head(
        build_sparse_rcnn, SparseRCNNOutputs, sparse_rcnn_terms, detect_sparse_rcnn
    ),
    "detr": Head(build_detr, DETROutputs, detr_terms, detect_detr),
    "cascade_mask_rcnn": Head(build_cascade_mask_rcnn, CascadeOutputs, cascade_terms),
}


def head_of(outputs: Any) -> Head:
    """The row, one of those with the same functions, whose network gave these outputs."""
    return next(head for head in HEADS.values() if isinstance(outputs, head.outputs))


def detect(outputs: Any, sizes: Sizes, decoding: Decoding) -> RegionDetections:
    """Detections of images of `sizes`, from what a head says of them."""
    chosen = head_of(outputs).detect
    assert chosen is not None, "this network gives detections itself"
    return chosen(outputs, sizes, decoding)
