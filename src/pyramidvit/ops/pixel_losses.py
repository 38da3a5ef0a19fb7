"""Losses over the pixels of a batch; what is unlabelled tells nothing, and gets no gradient.

Logits are [B, K, H, W], labels integer [B, H, W] from 0 to K - 1, or UNLABELLED. All return a
scalar. Without any labelled pixel it is zero, and so are its gradients.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import UNLABELLED

WINDOW = 31  # pixels a side, in which the structure loss looks for borders


def pixel_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | None = None,
    over_all: bool = False,
) -> Tensor:
    """Mean of -class_weights[k] * log softmax(logits)[k], k being a pixel's label.

    Args:
        class_weights: [K]; None is the same as ones. The mean does not divide by them.
        over_all: Divides by the number of all pixels, as mmsegmentation 0.13 does, instead of
            that of the labelled ones.
    """
    total = F.cross_entropy(
        logits, labels.long(), class_weights, ignore_index=UNLABELLED, reduction="sum"
    )
    return total / count_pixels(labels, over_all=over_all)


def pixel_focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 2.0,
    class_weights: Tensor | None = None,
    over_all: bool = False,
) -> Tensor:
    """Cross entropy times (1 - p) ** gamma, p being the softmax of a pixel's label.

    It is the focal loss (arXiv 1708.02002) for classes that exclude each other, with
    `class_weights` for its alpha; arguments otherwise as in `pixel_cross_entropy`.
    """
    entropy = F.cross_entropy(logits, labels.long(), ignore_index=UNLABELLED, reduction="none")
    doubt = -torch.expm1(-entropy)  # 1 - p, exact where p is near 1
    total = doubt**gamma * entropy  # [B, H, W], 0 where unlabelled
    if class_weights is not None:
        total = total * class_weights[labels.long().clamp(min=0)]
    return total.sum() / count_pixels(labels, over_all=over_all)


def pixel_dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - 2 sum(p * y) / (sum(p) + sum(y)), a mean over the classes that the labels have.

    p is the softmax, y is 1 where a pixel has the class, and the sums go over the labelled pixels
    of the whole batch (arXiv 1606.04797, without squares, as nnU-Net has it, arXiv 1809.10486).
    """
    probabilities, truth = labelled_pixels(logits.softmax(dim=1), labels)  # [n, K], [n]
    sizes = torch.bincount(truth, minlength=logits.shape[1])  # [K]
    both = probabilities * F.one_hot(truth, logits.shape[1])
    overlap = 2 * both.sum(dim=0) / (probabilities.sum(dim=0) + sizes).clamp(min=1e-12)
    present = sizes > 0
    return ((1 - overlap) * present).sum() / present.sum().clamp(min=1)


def lovasz_softmax_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Lovasz-softmax (arXiv 1705.08790, equation 11): a convex surrogate of 1 - IoU.

    A mean over the classes that the labels have, of all labelled pixels of the batch together.
    """
    probabilities, truth = labelled_pixels(logits.softmax(dim=1), labels)  # [n, K], [n]
    known = probabilities.detach()
    slopes = torch.zeros_like(known)  # of the loss, by each probability
    total = known.new_zeros(())
    present = torch.bincount(truth).nonzero().flatten().tolist()
    for k in present:
        own = (truth == k).to(known)  # [n]
        errors = (own - known[:, k]).abs()
        order = largest_first(errors)
        steps = torch.empty_like(own)  # what each pixel's error counts
        steps.scatter_(0, order, jaccard_steps(own.gather(0, order)))
        slopes[:, k] = steps - 2 * own * steps  # an error grows with p, or shrinks where it is own
        total += own @ steps
    return (total + (probabilities * slopes).sum()) / max(1, len(present))


def largest_first(errors: Tensor) -> Tensor:
    """The order of errors [n], 0 or more, from the largest down.

    On a CPU by numpy in two passes of its sort by counting, from which the bits of a float32 keep
    their order: two to ten times as fast as to compare them, by the processor.
    """
    if errors.device.type != "cpu":
        return errors.argsort(descending=True)
    small_first = ~errors.float().numpy().view(np.uint32)
    order = np.argsort(small_first.astype(np.uint16), kind="stable")
    halves = (small_first >> 16).astype(np.uint16)[order]
    return torch.from_numpy(order[np.argsort(halves, kind="stable")])


def jaccard_steps(own: Tensor) -> Tensor:
    """By how much 1 - IoU grows with each further pixel [n] that is taken for wrong.

    Args:
        own: [n], 1 where a pixel is of the class, in the order in which they are taken.
    """
    taken = own.cumsum(0)  # pixels of the class among the first
    size = taken[-1:]  # all of them; [0] where there is no pixel
    union = size - taken + torch.arange(1, len(own) + 1, device=own.device)
    losses = 1 - (size - taken) / union
    return losses.diff(prepend=losses.new_zeros(1))


def structure_loss(logits: Tensor, labels: Tensor, *, weighted_entropy: bool = True) -> Tensor:
    """Weighted cross entropy plus weighted 1 - IoU of class 1, as PraNet has them.

    A pixel's weight is 1 + 5 |share - y|, y being 1 inside the object and 0 outside, and `share`
    the mean of y around it, in a window of 31 pixels that counts zeros beyond the image and where
    nothing is labelled. Both terms are taken image by image, and their mean is returned.

    Reference: PraNet (arXiv 2006.11392), after F3Net (arXiv 1911.11445). Their published code asks
    torch for `reduce="none"`, which is a mean: so its cross entropy is not weighted, and one mean
    over all pixels of the batch. Published figures are made with that.

    Args:
        logits: [B, 2, H, W]; the mask's logit is the second less the first.
        labels: 0 and 1, or UNLABELLED.
        weighted_entropy: False gives the published form.
    """
    known = labels != UNLABELLED
    scores = logits[:, 1] - logits[:, 0]  # [B, H, W]
    truth = (labels == 1).to(logits)
    share = F.avg_pool2d(truth[:, None], WINDOW, stride=1, padding=WINDOW // 2)[:, 0]
    weights = (1 + 5 * (share - truth).abs()) * known  # [B, H, W]

    entropy = F.binary_cross_entropy_with_logits(scores, truth, reduction="none")
    if weighted_entropy:
        entropy_term = sums(weights * entropy) / sums(weights).clamp(min=1e-12)  # [B]
    else:
        entropy_term = (entropy * known).sum() / count_pixels(labels, over_all=False)

    inside = scores.sigmoid()
    overlap = sums(inside * truth * weights)
    union = sums((inside + truth) * weights) - overlap
    return (entropy_term + 1 - (overlap + 1) / (union + 1)).mean()


def labelled_pixels(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The labelled pixels of a batch: their values [n, K] of a map, and labels int64 [n]."""
    known = labels != UNLABELLED
    values = values.movedim(1, -1)  # [B, H, W, K]
    if known.all():  # usual, and much cheaper than to pick all of them
        return values.flatten(0, -2), labels.flatten().long()
    return values[known], labels[known].long()


def count_pixels(labels: Tensor, *, over_all: bool) -> Tensor | int:
    """How many pixels there are, or how many are labelled; at least 1."""
    return max(1, labels.numel()) if over_all else (labels != UNLABELLED).sum().clamp(min=1)


def sums(maps: Tensor) -> Tensor:
    """Sums [B] of maps [B, H, W]."""
    return maps.sum(dim=(1, 2))
