"""All detectors: a line for each, and nothing else to be told of a new one.

Lines are text, so that whoever asks for names alone, such as help, loads no torch. What the heads
share is in `ops` and in this folder: `docs/new-detector.md` shows how one is added.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .head import Head
    from .outputs import Decoding, RegionDetections, Sizes

DETECTORS = {  # name: module and name of its `Head`; with a dot in front, in this folder
    "retinanet": ".baselines:RETINANET",
    "faster_rcnn": ".baselines:FASTER_RCNN",
    "mask_rcnn": ".baselines:MASK_RCNN",
    "cascade_mask_rcnn": ".heads.cascade:HEAD",
    "atss": ".heads.atss:HEAD",
    "gfl": ".heads.gfl:HEAD",
    "sparse_rcnn": ".heads.sparse_rcnn:HEAD",
    "detr": ".heads.detr:HEAD",
}


def head_named(name: str) -> "Head":
    """The functions of a detector of the table."""
    module, attribute = DETECTORS[name].split(":")
    head: Head = getattr(import_module(module, __package__), attribute)
    return head


def head_of(outputs: Any) -> "Head":
    """The head, one of those with the same functions, whose network gave these outputs."""
    heads = map(head_named, DETECTORS)
    return next(head for head in heads if isinstance(outputs, head.outputs))


def detect(outputs: Any, sizes: "Sizes", decoding: "Decoding") -> "RegionDetections":
    """Detections of images of `sizes`, from what a head says of them."""
    chosen = head_of(outputs).detect
    assert chosen is not None, "this network gives detections itself"
    return chosen(outputs, sizes, decoding)
