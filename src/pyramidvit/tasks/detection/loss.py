"""How far a detector is from what it is to learn: each head has its own terms."""

from typing import Any

from torch import Tensor

from ...structures import Batch, DetectionTarget
from .table import head_of


def loss(outputs: Any, batch: Batch[DetectionTarget]) -> dict[str, Tensor]:
    """The loss terms of a detector, whose sum is minimised.

    Args:
        outputs: Of the images of the batch, made with its truths where the detector takes any.
        batch: Its images may be without objects, one or all.

    Raises:
        UserError: Masks are to be learnt, and an image's objects have none.
    """
    return head_of(outputs).loss(outputs, batch)
