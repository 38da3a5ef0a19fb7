"""Detectors by name."""

from typing import Any

from ...errors import UserError, nearest
from .table import DETECTORS, head_named


def build_detector(head: str, backbone: str, num_classes: int, **numbers: Any) -> Any:
    """Builds the detector `head` on a backbone; `numbers` are those of its builder in the table.

    Returns:
        A network whose parameters have the names of the reference's released files; its type is the
        builder's.

    Raises:
        UserError: An unknown head or backbone.
        ValueError: A number out of its range.
    """
    if head not in DETECTORS:
        raise UserError(f"unknown detector {head}; nearest: {nearest(head, DETECTORS)}")
    if num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more, got {num_classes}")
    built: Any = head_named(head).build(backbone, num_classes, **numbers)
    built.num_classes = num_classes  # told here for all: each head has other layers
    return built
