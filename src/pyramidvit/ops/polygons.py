"""From a map of labels to polygons along the edges of its pixels, exact and with holes.

Every border between two regions is a chain of pixel sides. Each region walks along its sides with
itself on the right hand, and takes at every corner the one turn that keeps a ring from touching
itself, so that the polygons are valid as GIS programs understand it (OGC simple features).

Letters: a padded map has rows of S = W + 2 pixels, and its pixels are numbered row by row; n sides,
one of each pixel and direction: 0 east (along its top), 1 south, 2 west, 3 north.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

CORNERS = np.array(((0, 0), (1, 0), (1, 1), (0, 1)))  # (x, y) where a pixel's sides start


class Polygon(NamedTuple):
    """A region of one label whose pixels hang together by their sides.

    Attributes:
        label: Number of the class.
        area: In pixels, as it is in the map even where the rings were simplified.
        rings: int64 [p, 2] each, (x, y) of corners with y downward, the last not the first again;
            the first ring is the outer one, clockwise as seen on a screen, and the others are the
            holes, counter-clockwise.
    """

    label: int
    area: int
    rings: tuple[np.ndarray, ...]


class Sides(NamedTuple):
    """The sides of pixels at which regions end.

    Attributes:
        pixels: int64 [n] in the padded map.
        directions: int8 [n].
        following: int64 [n], the number of the side that comes next around the region.
        turns: bool [n], whether the ring bends where the side ends.
        forks: bool [n], whether three regions or more meet where the side ends.
    """

    pixels: np.ndarray
    directions: np.ndarray
    following: np.ndarray
    turns: np.ndarray
    forks: np.ndarray


def trace_polygons(
    labels: np.ndarray, *, min_area: int = 1, tolerance: float = 0.0
) -> list[Polygon]:
    """The regions of a map, ordered by their first pixels.

    Args:
        labels: Integers [H, W]; negative ones belong to no region.
        min_area: Regions of fewer pixels are left out; the holes that they fill stay open.
        tolerance: Pixels by which a simplified border may leave the exact one; 0 keeps it. Both
            sides of a border are simplified alike, so that neighbours still fit together; regions
            and holes of which nothing remains are left out.

    Returns:
        Drawn into a map, exact polygons give the pixels of their regions and no other.
    """
    padded = np.pad(labels, 1, constant_values=labels.dtype.type(0))
    regions, areas, values = find_regions(padded, np.pad(labels >= 0, 1))
    sides = find_sides(regions, padded.shape[1], areas >= min_area)
    order, lengths = walk_rings(sides.following)
    kept = sides.turns[order]
    if tolerance > 0:
        kept |= sides.forks[order]
    directions = sides.directions[order]
    ends = np.stack(np.divmod(sides.pixels[order], padded.shape[1])[::-1], axis=1) - 1
    ends += CORNERS[(directions + 1) % 4]  # a side ends where the next one of its pixel starts
    owners = regions.ravel()[sides.pixels[order]]

    outers: dict[int, np.ndarray] = {}
    holes: dict[int, list[np.ndarray]] = {}
    for start, end in pairwise(np.concatenate(([0], lengths.cumsum())).tolist()):
        part = slice(start, end)
        exact = ring = ends[part][kept[part]]
        if tolerance > 0:
            ring = simplify(exact, sides.forks[order[part]][kept[part]], tolerance)
        outer, region = signed_area(exact) > 0, int(owners[start])
        if len(ring) < 3 or signed_area(ring) * (1 if outer else -1) <= 0:
            continue  # nothing remains of it
        if outer:
            outers[region] = ring
        else:
            holes.setdefault(region, []).append(ring)
    return [
        Polygon(int(values[k]), int(areas[k]), (outers[k], *holes.get(k, ())))
        for k in sorted(outers)
    ]


def find_regions(
    padded: np.ndarray, counted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of one label that hang together by their sides.

    Args:
        padded: Labels [H + 2, S].
        counted: bool [H + 2, S], false for pixels of no region.

    Returns:
        int32 [H + 2, S] numbers of regions, -1 for none; int64 [r] their pixels; [r] their labels.
    """
    first = np.ones(padded.shape, bool)  # pixels at which runs of equal ones start
    first[:, 1:] = (padded[:, 1:] != padded[:, :-1]) | (counted[:, 1:] != counted[:, :-1])
    starts = np.flatnonzero(first)
    lengths = np.diff(starts, append=padded.size)

    above, below = first[:-1], first[1:]  # runs that touch do so where one of the two starts
    touch = (padded[1:] == padded[:-1]) & counted[1:] & counted[:-1] & (above | below)
    upper = np.flatnonzero(touch)
    pairs = [np.searchsorted(starts, p, "right") - 1 for p in (upper, upper + padded.shape[1])]
    numbers = join(len(starts), *pairs)

    numbers[~counted.ravel()[starts]] = -1
    roots, numbers = np.unique(numbers, return_inverse=True)
    spare = int(len(roots) > 0 and roots[0] < 0)  # the padding is there always, but be exact
    numbers = numbers - spare
    inside = numbers >= 0
    areas = np.bincount(numbers[inside], lengths[inside], len(roots) - spare).astype(np.int64)
    regions = np.repeat(numbers.astype(np.int32), lengths).reshape(padded.shape)
    return regions, areas, padded.ravel()[starts[roots[spare:]]]


def join(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """int64 [count]: for each thing the least one that pairs link it with, directly or not."""
    least = np.arange(count)
    while len(left):
        low, high = np.minimum(left, right), np.maximum(left, right)
        np.minimum.at(least, high, low)
        while (least[least] != least).any():
            least = least[least]
        left, right = least[left], least[right]
        apart = left != right
        left, right = left[apart], right[apart]
    return least


def find_sides(regions: np.ndarray, row: int, kept: np.ndarray) -> Sides:
    """The sides of all regions that are to be kept, bool [r]; `row` is the padded map's width."""
    flat = regions.ravel()
    aside = (-row, 1, row, -1)  # from a pixel to the one across its side, a direction each
    ahead = (1, row, -1, -row)
    wanted = np.append(kept, False)  # -1 is the last: no region
    pixels, end = [], len(flat) - row
    for step in aside:  # the padding keeps ends of rows apart
        edges = row + np.flatnonzero(flat[row:end] != flat[row + step : end + step])
        pixels.append(edges[wanted[flat[edges]]])
    offsets = np.concatenate(([0], np.cumsum([len(p) for p in pixels])))

    following, turns, forks = [], [], []
    for d, own in enumerate(pixels):
        front, corner, across = own + ahead[d], own + ahead[d] + aside[d], own + aside[d]
        straight = flat[front] == flat[own]
        left = flat[corner] == flat[own]  # also across a corner where the region meets itself
        ends = np.where(left, corner, np.where(straight, front, own))
        turned = np.where(left, d - 1, np.where(straight, d, d + 1)) % 4
        found = np.empty(len(own), np.int64)
        for t in range(4):
            rows = turned == t
            found[rows] = offsets[t] + np.searchsorted(pixels[t], ends[rows])
        following.append(found)
        turns.append(turned != d)
        borders = 1 + ~straight + (flat[front] != flat[corner]) + (flat[corner] != flat[across])
        forks.append(borders > 2)
    return Sides(
        np.concatenate(pixels),
        np.repeat(np.arange(4, dtype=np.int8), np.diff(offsets)),
        *(np.concatenate(parts) for parts in (following, turns, forks)),
    )


def walk_rings(following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All sides int64 [n] ring by ring, and how many each ring has."""
    links = following.data  # a list of them would take five times the memory
    seen = bytearray(len(following))
    order: list[int] = []
    lengths: list[int] = []
    for first in range(len(following)):
        side, before = first, len(order)
        while not seen[side]:
            seen[side] = 1
            order.append(side)
            side = links[side]
        if len(order) > before:
            lengths.append(len(order) - before)
    return np.asarray(order, np.int64), np.asarray(lengths, np.int64)


def signed_area(ring: np.ndarray) -> float:
    """Of a ring [p, 2]; positive if it is clockwise on a screen, where y goes downward."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def simplify(ring: np.ndarray, forks: np.ndarray, tolerance: float) -> np.ndarray:
    """A ring [p, 2] with fewer points, by Douglas and Peucker's rule between forks, bool [p]."""
    fixed = np.flatnonzero(forks)
    if len(fixed) < 2:  # the same two points, whichever side of the border asks
        first = int(fixed[0]) if len(fixed) else int(np.lexsort(ring.T)[0])
        away = ((ring - ring[first]) ** 2).sum(axis=1)
        far = np.flatnonzero(away == away.max())
        fixed = np.sort([first, far[np.lexsort(ring[far].T)[0]]])
    turned = np.roll(ring, -fixed[0], axis=0)
    closed = np.concatenate((turned, turned[:1]))
    stops = np.append(fixed - fixed[0], len(ring)).tolist()
    kept = np.concatenate([a + thin(closed[a : b + 1], tolerance)[:-1] for a, b in pairwise(stops)])
    fewer: np.ndarray = closed[kept]
    return fewer


def thin(line: np.ndarray, tolerance: float) -> np.ndarray:
    """Numbers of the points of a line [p, 2] that stay, its ends among them."""
    if tuple(line[0]) > tuple(line[-1]):  # the same points from whichever end one starts
        return (len(line) - 1 - thin(line[::-1], tolerance))[::-1]
    stays = np.zeros(len(line), bool)
    stays[[0, -1]] = True
    open_parts = [(0, len(line) - 1)]
    while open_parts:
        a, b = open_parts.pop()
        if b - a < 2:
            continue
        along, away = line[b] - line[a], line[a + 1 : b] - line[a]
        length = float(np.hypot(*along))
        distance = np.abs(along[0] * away[:, 1] - along[1] * away[:, 0])
        distance = distance / length if length else np.hypot(*away.T)
        worst = int(distance.argmax())
        if distance[worst] > tolerance:
            middle = a + 1 + worst
            stays[middle] = True
            open_parts += [(a, middle), (middle, b)]
    return np.flatnonzero(stays)


def without_holes(rings: tuple[np.ndarray, ...]) -> np.ndarray:
    """One ring [p, 2] for formats that know no holes: cuts lead from the outer ring to each.

    The two sides of a cut lie on each other and enclose nothing, so the same pixels are covered.
    """
    outer = rings[0]
    gates = [int(((outer - hole[0]) ** 2).sum(axis=1).argmin()) for hole in rings[1:]]
    parts, done = [], 0
    for gate, number in sorted(zip(gates, range(1, len(rings)), strict=True)):
        hole = rings[number]
        parts += [outer[done : gate + 1], hole, hole[:1]]
        done = gate
    return np.concatenate((*parts, outer[done:]))
