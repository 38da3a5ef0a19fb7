"""Sums of losses over pairs of outputs and targets; who calls divides them."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss


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
