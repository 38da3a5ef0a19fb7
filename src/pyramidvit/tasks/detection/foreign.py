"""Detectors in other people's files: which they are, told from names and shapes."""

from dataclasses import asdict
from typing import Any

import torch

from ...errors import UserError
from ...weights.checkpoint import Checkpoint
from ...weights.describe import count_classes, find_head
from ...weights.load import check_complete, name_of
from ...weights.load_detector import find_parts
from ...weights.recognise import count_rows
from .network import rebuild
from .outputs import PUBLISHED

KNOWN = ("retinanet", "faster_rcnn", "mask_rcnn")  # whose numbers a file tells

# Whose rows count the channels of the pyramid, and the hidden layers that classify regions.
WIDTH, HIDDEN = "neck.fpn_convs.0.conv.bias", "roi_head.bbox_head.shared_fcs.0.bias"


def holds_detector(checkpoint: Checkpoint) -> bool:
    """Whether a file holds one of our detectors, whole or not."""
    signs = find_head(checkpoint.state)
    return signs is not None and signs.head in KNOWN


def describe_file(checkpoint: Checkpoint, where: str) -> dict[str, Any]:
    """The record of the detector in a file, as `network.describe_model` would write it.

    What shapes do not tell, such as the size of anchors, is taken to be as published.

    Args:
        checkpoint: What `read_checkpoint` read.
        where: What it was read from, for errors.

    Raises:
        UserError: There is no detector known here, or not all of it.
    """
    found, _, rest = find_parts(checkpoint.state, where)
    signs = find_head(rest)
    if signs is None or signs.head not in KNOWN:
        what = "no detector" if signs is None else f"{signs.head}, which is not here"
        raise UserError(f"{where} holds {what}; known are {', '.join(KNOWN)}")
    if len(found.variants) != 1:
        raise UserError(f"{where} holds {name_of(found)}: it cannot be built")
    named = {"width": WIDTH} if signs.head == "retinanet" else {"width": WIDTH, "hidden": HIDDEN}
    missing = [name for name in (*named.values(), signs.classes) if name not in rest]
    if missing:
        raise UserError(f"{where}: {missing[0]} is missing in it")
    record = {
        "name": signs.head,
        "backbone": found.variants[0],
        "num_classes": count_classes(signs, rest),
        "in_chans": found.in_chans,
        "numbers": {name: count_rows(rest[key]) for name, key in named.items()},
        "decoding": asdict(PUBLISHED),
    }
    check_shapes(record, rest, where)
    return record


def check_shapes(record: dict[str, Any], rest: dict[str, torch.Tensor], where: str) -> None:
    """Refuses a neck and heads that are not those of a record, before any memory is taken."""
    if min(record["num_classes"], *record["numbers"].values()) < 1:
        raise UserError(f"{where} holds a {record['name']} without classes or channels")
    with torch.device("meta"):
        own = rebuild(record).state_dict()
    heads = {name: value for name, value in own.items() if not name.startswith("backbone.")}
    check_complete({n: v for n, v in rest.items() if n in heads}, heads, {}, where, record["name"])
