"""Sums of losses over pairs of outputs and targets; who calls divides them."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss


def focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the focal loss (arXiv 1708.02002), with its gamma of 2 and alpha of 0.25.

    Args:
        logits: [n, K], each a yes or no of its own.
        labels: int64 [n], from 0 to K - 1, or negative where all K are to say no.
    """
    truth = torch.zeros_like(logits)
    objects = labels >= 0
    truth[objects, labels[objects]] = 1
    total: Tensor = sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=2, reduction="sum")
    return total


def l1_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Sum of absolute differences."""
    return (outputs - targets).abs().sum()


def objectness_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the cross entropy of logits [n, 1] with labels [n], negative for no object."""
    truth = (labels >= 0).to(logits)[:, None]
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")


def quality_focal_loss(logits: Tensor, labels: Tensor, qualities: Tensor) -> Tensor:
    """Sum of the quality focal loss (arXiv 2006.04388, equation 5), with its beta of 2.

    Args:
        logits: [n, K], each the quality of an object of a class.
        labels: int64 [n], from 0 to K - 1, or negative where all K are to say 0.
        qualities: [n], from 0 to 1, what the label's own logit is to say.
    """
    truth = torch.zeros_like(logits)
    objects = labels >= 0
    truth[objects, labels[objects]] = qualities[objects].to(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (entropy * (truth - logits.sigmoid()).square()).sum()


def distribution_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The distribution focal loss (arXiv 2006.04388, equation 6) of each row; [n].

    Args:
        logits: [n, R + 1], of the values 0 to R.
        targets: [n], from 0 to below R: what the distribution is to have as its mean, with all its
            weight on the two whole numbers around it.
    """
    below = targets.long()
    share = targets - below
    lower = F.cross_entropy(logits, below, reduction="none")
    upper = F.cross_entropy(logits, below + 1, reduction="none")
    return lower * (1 - share) + upper * share


def giou_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Sum of 1 - GIoU (arXiv 1902.09630) of boxes [n, 4] in pixels, row by row."""
    total: Tensor = generalized_box_iou_loss(outputs, targets, reduction="sum")
    return total


def smooth_l1_loss(outputs: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Sum of absolute differences less beta / 2, but half their squares over beta up to beta."""
    return F.smooth_l1_loss(outputs, targets, beta=beta, reduction="sum")
