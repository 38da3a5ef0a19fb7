"""Around every region: the sides of its pixels, one after the other, and the corners between them.

Every border between two regions is a chain of pixel sides. Each region walks along its sides with
itself on the right hand, and takes at every corner the one turn that keeps a ring from touching
itself, so that the polygons are valid as GIS programs understand it (OGC simple features).

Letters: a padded map has rows of S = W + 2 pixels, and its pixels are numbered row by row; n sides,
one of each pixel and direction: 0 east (along its top), 1 south, 2 west, 3 north; m rings.
"""

from array import array
from typing import NamedTuple

import numpy as np

from .runs import AT_ONCE, Regions

CORNERS = np.array(((0, 0), (1, 0), (1, 1), (0, 1)), np.int32)  # (x, y) where a side starts
MOST_SIDES = 1 << 25  # some 30 bytes each


class TooManySides(ValueError):  # noqa: N818, it names the thing
    """A map with more borders than memory is meant for."""


class Sides(NamedTuple):
    """The sides of pixels at which regions end.

    Attributes:
        pixels: int32 [n] in the padded map.
        directions: int8 [n].
        following: int32 [n], the number of the side that comes next around the region.
        turns: bool [n], whether the ring bends where the side ends.
        forks: bool [n], whether three regions or more meet where the side ends.
    """

    pixels: np.ndarray
    directions: np.ndarray
    following: np.ndarray
    turns: np.ndarray
    forks: np.ndarray


class Rings(NamedTuple):
    """All rings, each region's outer one before its holes.

    Attributes:
        corners: int32 [c, 2], (x, y), ring by ring in the order in which they were found.
        forks: bool [c].
        ends: int64 [m + 1]: ring i has the corners from `ends[i]` to before `ends[i + 1]`.
        owners: int32 [m], their regions.
        order: int64 [m], the rings by region.
    """

    corners: np.ndarray
    forks: np.ndarray
    ends: np.ndarray
    owners: np.ndarray
    order: np.ndarray


def find_rings(padded: np.ndarray, regions: Regions, wanted: np.ndarray, *, forks: bool) -> Rings:
    """The rings of the regions whose labels in the padded map are wanted, bool [K]."""
    sides = find_sides(padded, regions, wanted)
    order, lengths = walk_rings(sides.following)
    starts = np.cumsum(lengths) - lengths
    owners = regions.at(sides.pixels[order[starts]])
    kept = sides.turns[order]
    if forks:
        kept |= sides.forks[order]
    ends = np.add.reduceat(kept, starts, dtype=np.int64) if len(starts) else lengths
    order = order[kept]
    y, x = np.divmod(sides.pixels[order], np.int32(padded.shape[1]))
    corners = np.stack((x, y), axis=1) - np.int32(1)
    corners += CORNERS[(sides.directions[order] + 1) % 4]  # where the next side of the pixel starts
    return Rings(
        corners,
        sides.forks[order],
        np.concatenate(([0], np.cumsum(ends))),
        owners,
        # a ring is found by its first side eastward, and the outer one's comes before the holes'
        np.argsort(owners, kind="stable"),
    )


def find_sides(padded: np.ndarray, regions: Regions, wanted: np.ndarray) -> Sides:
    """The sides of the regions whose labels in the padded map are wanted, bool [K]."""
    flat, row = padded.ravel(), padded.shape[1]
    aside = (-row, 1, row, -1)  # from a pixel to the one across its side, a direction each
    ahead = (1, row, -1, -row)
    pixels = [find_edges(flat, row, step, wanted) for step in aside]
    offsets = np.concatenate(([0], np.cumsum([len(p) for p in pixels])))
    if offsets[-1] > MOST_SIDES:
        raise TooManySides(f"{offsets[-1]} sides of pixels at borders of regions")

    following, turns, forks = [], [], []
    for d, own in enumerate(pixels):
        front, across = own + np.int32(ahead[d]), own + np.int32(aside[d])
        corner = front + np.int32(aside[d])
        straight, left = flat[front] == flat[own], flat[corner] == flat[own]
        unsure = np.flatnonzero(left & ~straight)  # a region may meet itself across a corner
        left[unsure] = regions.at(corner[unsure]) == regions.at(own[unsure])
        turned = np.where(left, d - 1, np.where(straight, d, d + 1)).astype(np.int8) % 4
        ends = np.where(left, corner, np.where(straight, front, own))
        found = np.empty(len(own), np.int32)
        for t in range(4):
            rows = np.flatnonzero(turned == t)
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


def find_edges(flat: np.ndarray, row: int, step: int, wanted: np.ndarray) -> np.ndarray:
    """int32 [n], the pixels of wanted labels that have another one `step` pixels further."""
    found = [np.zeros(0, np.int32)]
    for first in range(row, len(flat) - row, AT_ONCE):
        own = flat[first : min(first + AT_ONCE, len(flat) - row)]
        edges = np.flatnonzero(own != flat[first + step : first + step + len(own)])
        found.append((first + edges[wanted[own[edges]]]).astype(np.int32))
    return np.concatenate(found)


def walk_rings(following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All sides int32 [n] ring by ring, and how many each ring has, int64 [m]."""
    links = following.data  # lists of numbers would take ten times the memory
    seen = bytearray(len(following))
    order, lengths = array("i"), array("q")
    for first in range(len(following)):
        side, before = first, len(order)
        while not seen[side]:
            seen[side] = 1
            order.append(side)
            side = links[side]
        if len(order) > before:
            lengths.append(len(order) - before)
    return np.frombuffer(order, np.int32), np.frombuffer(lengths, np.int64)
