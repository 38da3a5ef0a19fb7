"""Detectors in other people's files: which they are, told from names and shapes."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from ...weights.checkpoint import Checkpoint
from ...weights.describe import count_classes, find_head
from ...weights.load import check_complete, name_of
from ...weights.load_detector import COUNTER, find_parts
from ...weights.recognise import count_rows
from .network import rebuild
from .table import head_named

PYRAMID, BOXES = "neck.fpn_convs.0.conv.bias", "roi_head.bbox_head"
LAYERS = "bbox_head.transformer.encoder.layers"

# The numbers of a detector's builder that a file tells: each is counted by the rows of a parameter.
ROWS: dict[str, dict[str, str]] = {
    "retinanet": {"width": PYRAMID},
    "faster_rcnn": {"width": PYRAMID, "hidden": f"{BOXES}.shared_fcs.0.bias"},
    "mask_rcnn": {"width": PYRAMID, "hidden": f"{BOXES}.shared_fcs.0.bias"},
    "cascade_mask_rcnn": {"width": PYRAMID, "hidden": f"{BOXES}.0.shared_fcs.0.bias"},
    "atss": {"width": PYRAMID},
    "gfl": {"width": PYRAMID},
    "sparse_rcnn": {
        "width": PYRAMID,
        "hidden": f"{BOXES}.0.ffn.layers.0.0.bias",
        "proposals": "rpn_head.init_proposal_bboxes.weight",
    },
    "detr": {
        "width": "bbox_head.input_proj.bias",
        "hidden": f"{LAYERS}.0.ffns.0.layers.0.0.bias",
        "queries": "bbox_head.query_embedding.weight",
    },
}
# And one, `depth`, by names: whatever stands for the asterisk is counted.
DEPTHS = {"sparse_rcnn": f"{BOXES}.*.fc_cls.bias", "detr": f"{LAYERS}.*.norms.0.bias"}
MAX_DEPTH = 100  # of a network that is built to compare shapes; published are 6


def holds_detector(checkpoint: Checkpoint) -> bool:
    """Whether a file holds one of our detectors, whole or not."""
    signs = find_head(checkpoint.state)
    return signs is not None and signs.head in ROWS


def describe_file(checkpoint: Checkpoint, where: str) -> dict[str, Any]:
    """The record of the detector in a file, as `network.describe_model` would write it.

    What shapes do not tell, such as the size of anchors, is taken to be as published.

    Args:
        checkpoint: What `read_checkpoint` read.
        where: What it was read from, for errors.

    Raises:
        UserError: There is no detector known here, or not all of it.
    """
    found, rest, _ = find_parts(checkpoint.state, where)
    signs = find_head(rest)
    if signs is None or signs.head not in ROWS:
        what = "no detector" if signs is None else f"{signs.head}, which is not here"
        raise UserError(f"{where} holds {what}; known are {', '.join(ROWS)}")
    if len(found.variants) != 1:
        raise UserError(f"{where} holds {name_of(found)}: it cannot be built")
    missing = [name for name in (*ROWS[signs.head].values(), signs.classes) if name not in rest]
    if missing:
        raise UserError(f"{where}: {missing[0]} is missing in it")
    record = {
        "name": signs.head,
        "backbone": found.variants[0],
        "num_classes": count_classes(signs, rest),
        "in_chans": found.in_chans,
        "numbers": read_numbers(signs.head, rest),
        "decoding": asdict(
            inspect.signature(head_named(signs.head).build).parameters["decoding"].default
        ),
    }
    check_shapes(record, rest, where)
    return record


def read_numbers(head: str, rest: Mapping[str, Tensor]) -> dict[str, int]:
    """The numbers of a detector's builder that its neck and heads tell."""
    numbers = {name: count_rows(rest[key]) for name, key in ROWS[head].items()}
    if head in DEPTHS:
        layer = re.escape(DEPTHS[head]).replace(r"\*", r"\d+")
        numbers["depth"] = sum(re.fullmatch(layer, name) is not None for name in rest)
    return numbers


def check_shapes(record: dict[str, Any], rest: dict[str, Tensor], where: str) -> None:
    """Refuses a neck and heads that are not those of a record, before any memory is taken."""
    head, numbers = record["name"], record["numbers"]
    if min(record["num_classes"], *numbers.values()) < 1:
        raise UserError(f"{where} holds a {head} without classes or channels")
    if numbers.get("depth", 0) > MAX_DEPTH:
        raise UserError(f"{where} holds a {head} of {numbers['depth']} layers: too many")
    try:
        with torch.device("meta"):
            own = rebuild(record).state_dict()
    except (ValueError, AssertionError) as error:  # channels that cannot be split into groups
        raise UserError(f"{where} holds a {head} that cannot be built: {error}") from error
    heads = {name: value for name, value in own.items() if not name.startswith("backbone.")}
    needed = {name: value for name, value in heads.items() if not name.endswith(COUNTER)}
    check_complete({n: v for n, v in rest.items() if n in needed}, needed, {}, where, head)
