"""Segmenters in other people's files: which they are, told from names and shapes."""

from typing import Any

from ...errors import UserError
from ...weights.checkpoint import Checkpoint
from ...weights.describe import count_classes, find_head
from ...weights.load import name_of
from ...weights.load_detector import find_parts
from ...weights.recognise import count_rows

WIDTH = "neck.fpn_convs.0.conv.bias"  # whose rows count the channels of the pyramid


def holds_segmenter(checkpoint: Checkpoint) -> bool:
    """Whether a file holds Semantic FPN, whole or not."""
    signs = find_head(checkpoint.state)
    return signs is not None and signs.head == "semantic_fpn"


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
    if signs is None or signs.head != "semantic_fpn":
        raise UserError(f"{where} holds no segmenter that is known here")
    if len(found.variants) != 1:
        raise UserError(f"{where} holds {name_of(found)}: it cannot be built")
    count = count_classes(signs, rest)
    if WIDTH not in rest or not count:
        raise UserError(
            f"{where}: {WIDTH if WIDTH not in rest else signs.classes} is missing in it"
        )
    return {
        "name": signs.head,
        "backbone": found.variants[0],
        "num_classes": count,
        "in_chans": found.in_chans,
        "numbers": {"width": count_rows(rest[WIDTH]), "dropout": 0.1},
    }
