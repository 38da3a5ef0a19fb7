"""What COCO's figures do not tell: PASCAL VOC's precision, the best score to cut at, and which
class is taken for which.

Shape letters: m detections and n objects of an image, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .records import Found, ImageRecord, Truth

WRONG, UNCOUNTED = -1, -2
OVERLAP = 0.5  # that a detection needs with its object
NO_CUT = 0.5  # the score to cut at where nothing was found rightly


def overlaps(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas [m, n] that two lists of boxes share, as shares of their unions and of the first."""
    start = np.maximum(boxes[:, None, :2], others[None, :, :2])
    end = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (end - start).clip(0).prod(axis=2)
    first = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    second = (others[:, 2:] - others[:, :2]).prod(axis=1)[None]
    union = first + second - shared
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(union > 0, shared / union, 0), np.where(first > 0, shared / first, 0)


def match_pascal(
    boxes: np.ndarray, truth: np.ndarray, difficult: np.ndarray, overlap: float = OVERLAP
) -> np.ndarray:
    """The object that each detection of a class finds, by the rules of PASCAL VOC's devkit.

    A detection means the object that it overlaps most. A second one for the same object is wrong,
    and those of difficult objects are not counted.

    Args:
        boxes: [m, 4], the best first.
        truth: [n, 4].
        difficult: bool [n].
        overlap: The IoU that is enough.

    Returns:
        int64 [m]: the object's number, WRONG or UNCOUNTED.
    """
    found = np.full(len(boxes), WRONG)
    if not len(truth):
        return found
    shares = overlaps(boxes, truth)[0]
    taken = set()
    for row, best in enumerate(shares.argmax(axis=1).tolist()):
        if shares[row, best] < overlap:
            continue
        if difficult[best]:
            found[row] = UNCOUNTED
        elif best not in taken:
            found[row] = best
            taken.add(best)
    return found


def match_coco(boxes: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """The object that each detection finds, by COCO's rules at overlap 0.5.

    A detection takes the object it overlaps most of those that are free; one that finds none, but
    lies in a crowd by half, is not counted. Arguments and result as for `match_pascal`.
    """
    found = np.full(len(boxes), WRONG)
    if not len(truth):
        return found
    shares, inside = overlaps(boxes, truth)
    in_crowd = np.asarray((inside[:, crowd] >= OVERLAP).any(axis=1))
    free = np.ones(len(truth), dtype=bool)
    free[crowd] = False
    for row in range(len(boxes)):
        best = int(np.where(free, shares[row], -1).argmax())
        if free[best] and shares[row, best] >= OVERLAP:
            found[row] = best
            free[best] = False
        elif in_crowd[row]:
            found[row] = UNCOUNTED
    return found


def match_classes(found: Found, truth: Truth) -> np.ndarray:
    """`match_coco` within each class: int64 [m], numbers of objects of the image."""
    matches = np.full(len(found.labels), WRONG)
    for label in np.unique(found.labels):
        rows, objects = found.labels == label, np.flatnonzero(truth.labels == label)
        part = match_coco(found.boxes[rows], truth.boxes[objects], truth.crowd[objects])
        hit = part >= 0
        part[hit] = objects[part[hit]]
        matches[rows] = part
    return matches


def pascal_ap(
    images: Sequence[ImageRecord], num_classes: int, overlap: float = OVERLAP
) -> np.ndarray:
    """PASCAL VOC's average precision of each class since 2010, the area below the whole curve.

    Objects that are flagged as crowd are taken for difficult ones; the flag is the same, "not to be
    counted", and the rule of matching is each benchmark's own.

    Returns:
        float64 [K] in percent; NaN for a class without countable objects.
    """
    counts = np.zeros(num_classes, np.int64)
    ranked: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(num_classes)]
    for image in images:
        found, truth = image.found, image.truth
        np.add.at(counts, truth.labels[~truth.crowd], 1)
        for label in np.unique(found.labels).tolist():
            rows, objects = found.labels == label, truth.labels == label
            match = match_pascal(
                found.boxes[rows], truth.boxes[objects], truth.crowd[objects], overlap
            )
            counted = match != UNCOUNTED
            ranked[label].append((found.scores[rows][counted], match[counted] >= 0))
    pairs = zip(ranked, counts.tolist(), strict=True)
    return np.asarray([area_below(parts, count) for parts, count in pairs])


def area_below(parts: Sequence[tuple[np.ndarray, np.ndarray]], count: int) -> float:
    """The area below precision over recall in percent, precision made to fall: every point counts.

    Args:
        parts: Of each image the scores [d] of its detections, and whether each was right.
        count: Objects to find; none makes NaN.
    """
    if not count:
        return float("nan")
    if not parts:
        return 0.0
    scores, hits = (np.concatenate(column) for column in zip(*parts, strict=True))
    hits = hits[np.argsort(-scores, kind="stable")]
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return 100 * float(highest[hits].sum() / count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How answers are right and wrong when those with low scores are dropped.

    Attributes:
        score: Where is cut: at which F1 over all objects is highest.
        f1: That F1, from 0 to 1.
        matches: Of each image int64 [m], as `match_classes` gives them.
    """

    score: float
    f1: float
    matches: tuple[np.ndarray, ...]


def best_cut(images: Sequence[ImageRecord]) -> Cut:
    """The score at which most is found and least is wrong."""
    matches = tuple(match_classes(image.found, image.truth) for image in images)
    count = sum(int((~image.truth.crowd).sum()) for image in images)
    if not any((match >= 0).any() for match in matches):
        return Cut(score=NO_CUT, f1=0.0, matches=matches)
    match = np.concatenate(matches)
    score = np.concatenate([image.found.scores for image in images])[match != UNCOUNTED]
    order = np.argsort(-score, kind="stable")
    score, right = score[order], (match[match != UNCOUNTED] >= 0)[order].cumsum()
    f1 = 2 * right / (np.arange(1, len(score) + 1) + count)
    last = np.append(score[1:] < score[:-1], True)  # equal scores are cut together
    best = int(np.where(last, f1, -1).argmax())
    return Cut(score=float(score[best]), f1=float(f1[best]), matches=matches)


def image_f1(image: ImageRecord, match: np.ndarray, score: float) -> float:
    """2 right / (found + to be found) of one image, from 0 to 1; 1 where both are none."""
    kept = match[(image.found.scores >= score) & (match != UNCOUNTED)]
    both = len(kept) + int((~image.truth.crowd).sum())
    return 2 * int((kept >= 0).sum()) / both if both else 1.0


def confusion(images: Sequence[ImageRecord], cut: Cut, num_classes: int) -> np.ndarray:
    """Which class is taken for which: int64 [K + 1, K + 1], true class by found class.

    The last row counts what was found where nothing is, the last column what was not found. What
    has its own class stays matched; only the rest is matched across classes.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for image, match in zip(images, cut.matches, strict=True):
        found, truth = image.found, image.truth
        kept = found.scores >= cut.score
        right = match[kept & (match >= 0)]
        np.add.at(counts, (truth.labels[right], truth.labels[right]), 1)
        left = np.ones(len(truth.labels), dtype=bool)
        left[right] = False
        objects, rows = np.flatnonzero(left), np.flatnonzero(kept & (match == WRONG))
        across = match_coco(found.boxes[rows], truth.boxes[objects], truth.crowd[objects])
        for row, other in zip(rows.tolist(), across.tolist(), strict=True):
            if other != UNCOUNTED:
                true = truth.labels[objects[other]] if other >= 0 else num_classes
                counts[true, found.labels[row]] += 1
        missed = np.delete(objects, across[across >= 0])
        missed = missed[~truth.crowd[missed]]
        np.add.at(counts, (truth.labels[missed], num_classes), 1)
    return counts
