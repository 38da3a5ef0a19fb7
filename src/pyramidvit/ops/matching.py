"""Which object each anchor or proposal is to learn, and which of them are taken as a sample."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

BACKGROUND = -1
IGNORED = -2

PAIRS_AT_ONCE = 1 << 21  # overlaps in memory at a time: 1,000 objects meet 200,000 anchors


def match_boxes(
    anchors: Tensor,
    boxes: Tensor,
    *,
    foreground: float,
    background: float,
    low_quality: float | None = None,
) -> Tensor:
    """Matches anchors [N, 4] with the boxes [n, 4] of objects by their overlap (IoU).

    An anchor gets the object that it overlaps most, if that is `foreground` or more; below
    `background` it is background, between the two it is ignored. With `low_quality`, each object
    whose best overlap is at least that much also gets all anchors which reach exactly that best
    one; where objects compete for an anchor so, the later one has it.

    Since ties count, the last bit of an overlap does: anchors are float32 always, and so are
    overlaps with float32 boxes, as in the reference (mmdetection 2.13, MaxIoUAssigner). Unlike
    there, an object that overlaps no anchor gets none, instead of all that it does not touch.

    Returns:
        int64 [N]: the number of the object, BACKGROUND or IGNORED.
    """
    best = anchors.new_zeros(len(anchors))
    owner = torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    claim = owner.clone()
    chunk = max(1, PAIRS_AT_ONCE // max(1, len(anchors)))
    for start in range(0, len(boxes) if len(anchors) else 0, chunk):
        overlap = box_iou(boxes[start : start + chunk], anchors)  # [n', N]
        value, index = overlap.max(dim=0)
        owner = torch.where(value > best, index + start, owner)
        best = torch.maximum(value, best)
        if low_quality is not None:
            claim = torch.maximum(claim, claims(overlap, low_quality, start))

    matches = torch.where(best >= foreground, owner, IGNORED)
    matches = torch.where(best < background, BACKGROUND, matches)
    return torch.where(claim >= 0, claim, matches)


def claims(overlap: Tensor, least: float, start: int) -> Tensor:
    """For each anchor the last object of a chunk that it suits best, or BACKGROUND; int64 [N]."""
    top = overlap.amax(dim=1, keepdim=True)  # [n', 1]
    claimed = (overlap == top) & (top >= least) & (top > 0)
    numbers = torch.arange(start, start + len(overlap), device=overlap.device)[:, None]
    return torch.where(claimed, numbers, BACKGROUND).amax(dim=0)


def sample_matches(matches: Tensor, count: int, share: float) -> tuple[Tensor, Tensor]:
    """Draws at most `count` of `matches` [N], at most `share` of them objects, the rest background.

    Where objects are few, background fills their places. Draws from torch's own generator.

    Returns:
        (places of objects int64 [p], places of background int64 [q]).
    """
    objects = draw((matches >= 0).nonzero().flatten(), int(count * share))
    background = draw((matches == BACKGROUND).nonzero().flatten(), count - len(objects))
    return objects, background


def draw(places: Tensor, count: int) -> Tensor:
    """`count` of the places at random, or all of them, in their order, where there are no more."""
    if len(places) <= count:
        return places
    return places[torch.randperm(len(places), device=places.device)[:count]]
