"""Segmenters in other people's files: which they are, told from names and shapes."""

import math
from typing import Any

from torch import Tensor

from ...errors import UserError
from ...weights.checkpoint import Checkpoint
from ...weights.describe import count_classes, find_head
from ...weights.load import name_of
from ...weights.load_detector import find_parts
from ...weights.recognise import count_rows
from .config import SEGMENTERS

PYRAMID = "neck.fpn_convs.0.conv.bias"  # whose rows count the channels of Semantic FPN's pyramid
VIT = "decode_head.transformer.vit"  # in Trans2Seg
QUERIES = f"{VIT}.cls_embed"  # [1, K, E]
HIDDEN = f"{VIT}.blocks_encoder.0.mlp.fc1.weight"  # [mlp_ratio * E, E]
GRID = f"{VIT}.blocks_decoder.0.norm4.weight"  # [side * side]
JOINED = "decode_head.lay1.block.depthwise.weight"  # [E + heads, 1, 3, 3]
LOGITS = "decode_head.pred.weight"  # [1, hidden, 1, 1]
TRANS2SEG = {QUERIES: 3, HIDDEN: 2, GRID: 1, JOINED: 4, LOGITS: 4}  # and how many axes


def holds_segmenter(checkpoint: Checkpoint) -> bool:
    """Whether a file holds Semantic FPN or Trans2Seg, whole or not."""
    signs = find_head(checkpoint.state)
    return signs is not None and signs.head in SEGMENTERS


def describe_file(checkpoint: Checkpoint, where: str) -> dict[str, Any]:
    """The record of the segmenter in a file, as `network.describe_model` would write it.

    Args:
        checkpoint: What `read_checkpoint` read.
        where: What it was read from, for errors.

    Raises:
        UserError: There is no segmenter known here, or not all of it.
    """
    found, rest, _ = find_parts(checkpoint.state, where)
    signs = find_head(rest)
    if signs is None or signs.head not in SEGMENTERS:
        raise UserError(f"{where} holds no segmenter that is known here")
    if len(found.variants) != 1:
        raise UserError(f"{where} holds {name_of(found)}: it cannot be built")
    numbers = semantic_fpn(rest, where) if signs.head == "semantic_fpn" else trans2seg(rest, where)
    count = count_classes(signs, rest)
    if not count:
        raise UserError(f"{where}: {signs.classes} is missing in it")
    return {
        "name": signs.head,
        "backbone": found.variants[0],
        "num_classes": count,
        "in_chans": found.in_chans,
        "numbers": numbers,
    }


def semantic_fpn(rest: dict[str, Tensor], where: str) -> dict[str, Any]:
    """The numbers of Semantic FPN that its shapes tell, and its published dropout."""
    if PYRAMID not in rest:
        raise UserError(f"{where}: {PYRAMID} is missing in it")
    return {"width": count_rows(rest[PYRAMID]), "dropout": 0.1}


def trans2seg(rest: dict[str, Tensor], where: str) -> dict[str, Any]:
    """The numbers of Trans2Seg, all of which its shapes tell."""
    for name, axes in TRANS2SEG.items():
        if name not in rest:
            raise UserError(f"{where}: {name} is missing in it")
        if rest[name].ndim != axes or not rest[name].numel():
            raise UserError(f"{where}: {name} is {list(rest[name].shape)} in it")
    width = rest[QUERIES].shape[2]
    heads = len(rest[JOINED]) - width
    if heads < 1 or len(rest[HIDDEN]) < width:
        raise UserError(f"{where}: {JOINED} and {HIDDEN} do not fit a width of {width}")
    blocks = {name.split(".")[4] for name in rest if name.startswith(f"{VIT}.blocks_encoder.")}
    return {
        "width": width,
        "depth": len(blocks),
        "num_heads": heads,
        "mlp_ratio": len(rest[HIDDEN]) // width,
        "hidden": rest[LOGITS].shape[1],
        "image_size": 32 * math.isqrt(len(rest[GRID])),
    }
