"""Cross entropy with soft targets."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...structures import Batch, Classes, MixedTarget
from ...task import Loss
from .balance import class_weights
from .config import ClassificationOptions


def build_loss(options: ClassificationOptions, labels: Sequence[int], classes: Classes) -> Loss:
    """`loss` with the classes' weights, where the options ask for them.

    Args:
        options: `class_weights` says whether.
        labels: Those of the training images.
        classes: One a logit.
    """
    weights = class_weights(options, labels, len(classes))

    def weighted(logits: Tensor, batch: Batch[MixedTarget]) -> dict[str, Tensor]:
        return loss(logits, batch, None if weights is None else weights.to(logits.device))

    return weighted


def loss(
    logits: Tensor, batch: Batch[MixedTarget], class_weights: Tensor | None = None
) -> dict[str, Tensor]:
    """Mean over the batch of -sum_k(class_weights[k] * weights[k] * log softmax(logits)[k]).

    It is torch's cross entropy with probabilities as targets, in float32. The mean divides by the
    number of images, whatever their classes weigh: so every image counts alike in every batch, and
    processes that share a batch get the gradient that one would. Of a mixed image each class's
    share is weighed by itself, and so is what label smoothing gives to every class.

    Args:
        logits: [B, K].
        batch: Its targets hold weights [K] each.
        class_weights: [K]; None is the same as ones.
    """
    weights = torch.stack([t.weights for t in batch.targets])  # [B, K]
    return {"cross_entropy": F.cross_entropy(logits.float(), weights, class_weights)}
