"""From a map of labels to polygons along the edges of its pixels, exact and with holes."""

from collections.abc import Collection, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np

from .rings import Rings, TooManySides, find_rings
from .runs import absorb, count_runs, find_regions, pad
from .simplify import simplify

MOST_RUNS = 1 << 24  # some 60 bytes each


class Polygon(NamedTuple):
    """A region of one label whose pixels hang together by their sides.

    Attributes:
        label: Number of the class.
        area: In pixels, as it is in the map even where the rings were simplified.
        rings: int32 [p, 2] each, (x, y) of corners with y downward, the last not the first again;
            the first ring is the outer one, clockwise as seen on a screen, and the others are the
            holes, counter-clockwise.
    """

    label: int
    area: int
    rings: tuple[np.ndarray, ...]


def trace_polygons(
    labels: np.ndarray,
    *,
    min_area: int = 1,
    tolerance: float = 0.0,
    left_out: Collection[int] = (),
) -> Iterator[Polygon]:
    """The regions of a map, ordered by their first pixels.

    Args:
        labels: Integers [H, W]; negative ones belong to no region.
        min_area: Regions of fewer pixels are given to those beside them in their rows.
        tolerance: Pixels by which a simplified border may leave the exact one; 0 keeps it. Both
            sides of a border are simplified alike, so that neighbours still fit together; regions
            and holes of which nothing remains are left out.
        left_out: Labels whose regions are not wanted, but may take small ones in.

    Returns:
        Drawn into a map, exact polygons give the pixels of their regions and no other.

    Raises:
        TooManySides: The map has more than `MOST_RUNS` runs of equal pixels in its rows, or of what
            is left more than `rings.MOST_SIDES`: they bound the memory, beside twice the map's.
    """
    padded = pad(labels)
    if count_runs(padded) > MOST_RUNS:
        raise TooManySides("too many runs of equal pixels")
    regions = find_regions(padded)
    if (regions.areas < min_area).any():
        padded = absorb(padded, regions, min_area)
        regions = find_regions(padded)
    wanted = np.ones(int(padded.max(initial=0)) + 1, bool)
    wanted[[0, *(k + 1 for k in left_out if k + 1 < len(wanted))]] = False
    rings = find_rings(padded, regions, wanted, forks=tolerance > 0)
    values = padded.ravel()[regions.firsts].astype(np.int64) - 1
    return to_polygons(rings, values, regions.areas, tolerance)


def to_polygons(
    rings: Rings, values: np.ndarray, areas: np.ndarray, tolerance: float
) -> Iterator[Polygon]:
    """Polygons, one after the other, with the labels and areas [r] of all regions."""
    owners = rings.owners.data
    for region, numbers in groupby(rings.order.data, key=owners.__getitem__):
        parts = []
        for place, number in enumerate(numbers):
            part = slice(rings.ends[number], rings.ends[number + 1])
            ring = rings.corners[part]
            if tolerance > 0:
                ring = simplify(ring, rings.forks[part], tolerance)
                if len(ring) < 3 or signed_area(ring) * (-1 if place else 1) <= 0:
                    ring = ring[:0]  # nothing remains of it
            parts.append(ring)
        if len(parts[0]):
            kept = (parts[0], *(hole for hole in parts[1:] if len(hole)))
            yield Polygon(int(values[region]), int(areas[region]), kept)


def signed_area(ring: np.ndarray) -> float:
    """Of a ring [p, 2]; positive if it is clockwise on a screen, where y goes downward."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def without_holes(rings: tuple[np.ndarray, ...]) -> np.ndarray:
    """One ring [p, 2] for formats that know no holes: cuts lead from the outer ring to each.

    The two sides of a cut lie on each other and enclose nothing, so the same pixels are covered.
    """
    outer, holes = rings[0], rings[1:]
    if not holes:
        return outer
    width = int(outer[:, 0].max()) + 1
    places = outer[:, 1].astype(np.int64) * width + outer[:, 0]  # in reading order
    order = places.argsort()
    starts = np.asarray([int(hole[0, 1]) * width + int(hole[0, 0]) for hole in holes])
    gates = order[np.searchsorted(places[order], starts)]  # the outer ring ends below every hole
    parts, done = [], 0
    for number in gates.argsort(kind="stable").tolist():
        gate, hole = int(gates[number]), holes[number]
        parts += [outer[done : gate + 1], hole, hole[:1]]
        done = gate
    return np.concatenate((*parts, outer[done:]))
