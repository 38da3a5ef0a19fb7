"""How far the logits of pixels are from their labels."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import UserError
from ...ops.pixel_losses import (
    lovasz_softmax_loss,
    pixel_cross_entropy,
    pixel_dice_loss,
    pixel_focal_loss,
    structure_loss,
)
from ...structures import UNLABELLED, Batch, Classes, SegmentationTarget
from ...task import Loss
from .config import SegmentationOptions, loss_terms
from .outputs import SegmentationOutputs

Term = Callable[[Tensor, Tensor], Tensor]  # (logits [B, K, H, W], labels [B, H, W]) to a scalar


def build_loss(options: SegmentationOptions, labels: Sequence[int], classes: Classes) -> Loss:
    """The loss terms that the options name; their sum is minimised.

    Args:
        options: `loss` names terms of LOSSES, joined by "+"; `class_weights` and `mean_over` are
            those of cross entropy and focal loss, and play no part in the others.
        labels: None: an image has no single one.
        classes: One a logit. Of two, `structure` takes for the object the one that is not called
            background, or else the second.

    Raises:
        UserError: An unknown term, one twice, one that is for two classes alone, or weights of
            other classes.
    """
    names, num_classes = loss_terms(options), len(classes)
    for name in names:
        if name.startswith("structure") and num_classes != 2:
            raise UserError(
                f"loss {name} is for an object and its background, 2 classes:"
                f" the data has {num_classes}"
            )
    weights = torch.tensor(options.class_weights) if options.class_weights else None
    if weights is not None and len(weights) != num_classes:
        raise UserError(
            f"class_weights must be {num_classes} numbers, one a class, got {len(weights)}"
        )
    terms = {
        name: find_term(
            name, weights, options.unbias, options.mean_over == "all", int(classes.background != 1)
        )
        for name in names
    }
    return partial(loss, terms=terms)


def find_term(
    name: str, class_weights: Tensor | None, unbias: float, over_all: bool, object_class: int
) -> Term:
    """A function from logits and labels to the loss of that name.

    Weights w make the best logits those of p(class) * w. Where the loss is that of logits + log(w),
    what is added takes this upon itself, and the network's own logits are those of p.
    """
    if name in ("cross_entropy", "focal"):
        function = pixel_cross_entropy if name == "cross_entropy" else pixel_focal_loss

        def weighted(logits: Tensor, labels: Tensor) -> Tensor:
            if class_weights is None:
                return function(logits, labels, over_all=over_all)
            weights = class_weights.to(logits)
            if unbias:
                logits = logits + unbias * weights.log().view(-1, 1, 1)
            return function(logits, labels, class_weights=weights, over_all=over_all)

        return weighted
    if name in ("structure", "structure_published"):
        corrected = name == "structure"
        return partial(structure_loss, weighted_entropy=corrected, object_class=object_class)
    return {"dice": pixel_dice_loss, "lovasz": lovasz_softmax_loss}[name]


def loss(
    outputs: SegmentationOutputs, batch: Batch[SegmentationTarget], *, terms: dict[str, Term]
) -> dict[str, Tensor]:
    """Each of the terms, on logits that are resized bilinearly to the images' padded size.

    Nothing counts where an image is padded or unlabelled: a batch without labels has loss zero.
    """
    size = (batch.images.shape[2], batch.images.shape[3])
    logits = outputs.logits
    if logits.shape[2:] != size:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    labels = stack_labels(batch.targets, size)
    return {name: term(logits, labels) for name, term in terms.items()}


def stack_labels(targets: Sequence[SegmentationTarget], size: tuple[int, int]) -> Tensor:
    """The maps of a batch as int64 [B, H, W], UNLABELLED to the right of and below each image."""
    stacked = torch.full((len(targets), *size), UNLABELLED, device=targets[0].labels.device)
    for place, target in zip(stacked, targets, strict=True):
        height, width = target.labels.shape
        place[:height, :width] = target.labels
    return stacked
