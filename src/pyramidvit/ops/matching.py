"""Which object each anchor or proposal is to learn, and which of them are taken as a sample."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from .boxes import centres_of, paired_iou, side_distances

BACKGROUND = -1
IGNORED = -2

HOPELESS = 1e9  # a cost above all others

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


def match_nearest(levels: Sequence[Tensor], boxes: Tensor, *, nearest: int = 9) -> Tensor:
    """Matches anchors with the boxes [n, 4] of objects by a limit that each object sets (ATSS).

    On each level the `nearest` anchors whose centres are closest to an object's are its
    candidates. It gets those that overlap it at least as much as the candidates do on average, plus
    one standard deviation, and whose centres lie within it, by a hundredth of a pixel. An anchor
    that several objects want goes to the one that it overlaps most, all others are background.

    Reference: arXiv 1912.02424, algorithm 1, and mmdetection 2.13's ATSSAssigner.

    Args:
        levels: Anchors [N_l, 4] of each level.
        boxes: See above.
        nearest: See above.

    Returns:
        int64 [N], over all levels: the number of the object, or BACKGROUND.
    """
    anchors = torch.cat(tuple(levels))
    best = anchors.new_zeros(len(anchors))
    owner = torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    chunk = max(1, PAIRS_AT_ONCE // max(1, len(anchors)))
    for start in range(0, len(boxes) if len(anchors) else 0, chunk):
        wanted = wanted_overlaps(levels, boxes[start : start + chunk], nearest)  # [n', N]
        value, index = wanted.max(dim=0)
        owner = torch.where(value > best, index + start, owner)
        best = torch.maximum(value, best)
    return owner


def wanted_overlaps(levels: Sequence[Tensor], boxes: Tensor, nearest: int) -> Tensor:
    """Overlaps [n, N] of objects with the anchors that they want, and 0 with all others."""
    anchors, middles = torch.cat(tuple(levels)), centres_of(boxes)[:, None]
    candidates, first = [], 0
    for level in levels:
        distances = (centres_of(level) - middles).square().sum(dim=-1)  # [n, N_l]
        closest = distances.topk(min(nearest, len(level)), largest=False).indices
        candidates.append(closest + first)
        first += len(level)
    chosen = torch.cat(candidates, dim=1)  # [n, C]

    near = anchors[chosen]  # [n, C, 4]
    overlaps = paired_iou(near, boxes[:, None])
    limits = overlaps.mean(dim=1, keepdim=True)
    if chosen.shape[1] > 1:  # of one value there is no deviation
        limits = limits + overlaps.std(dim=1, keepdim=True)
    within = side_distances(centres_of(near), boxes[:, None]).amin(dim=-1) > 0.01
    wanted = torch.where((overlaps >= limits) & within, overlaps, 0)
    return overlaps.new_zeros(len(boxes), len(anchors)).scatter(1, chosen, wanted)


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


@torch.no_grad()
def match_one_to_one(cost: Tensor) -> Tensor:
    """Gives each object a query of its own, so that the pairs' costs have the least sum.

    Where there are more objects than queries, every query gets an object and some objects none.
    Numbers that are not finite count as a very high cost.

    Args:
        cost: [Q, n] of every query with every object.

    Returns:
        int64 [Q]: the number of the object, or BACKGROUND.
    """
    # Loaded late: it takes half a second, and few detectors are learnt so.
    from scipy.optimize import linear_sum_assignment

    finite = torch.nan_to_num(cost.double(), nan=HOPELESS, posinf=HOPELESS, neginf=HOPELESS)
    queries, objects = map(torch.from_numpy, linear_sum_assignment(finite.cpu().numpy()))
    matches = torch.full((len(cost),), BACKGROUND)
    matches[queries] = objects
    return matches.to(cost.device)
