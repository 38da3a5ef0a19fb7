"""Regions of a map of labels, held as runs of equal pixels: large maps take little more memory.

Letters: a padded map has rows of S = W + 2 pixels, and its pixels are numbered row by row; R runs
and r regions, each in the order of their first pixels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

AT_ONCE = 1 << 22  # pixels


class Regions(NamedTuple):
    """Pixels of one label that hang together by their sides.

    Attributes:
        starts: int32 [R], the first pixel of each run; a run ends where the next one starts.
        numbers: int32 [R], the region of each run, -1 where its pixels belong to none.
        areas: int64 [r], pixels.
        firsts: int32 [r], the first pixel of each.
    """

    starts: np.ndarray
    numbers: np.ndarray
    areas: np.ndarray
    firsts: np.ndarray

    def at(self, pixels: np.ndarray) -> np.ndarray:
        """int32 [n], the regions of pixels int32 [n]."""
        found: np.ndarray = self.numbers[np.searchsorted(self.starts, pixels, "right") - 1]
        return found


def pad(labels: np.ndarray) -> np.ndarray:
    """The map [H + 2, S] with 1 added to its labels: 0 is around it, and where they are negative.

    Its type is the least of uint8, uint16 and int64 that holds them.
    """
    most = int(labels.max(initial=0)) + 1
    dtype = np.uint8 if most <= 255 else np.uint16 if most <= 65535 else np.int64
    height, width = labels.shape
    padded = np.zeros((height + 2, width + 2), dtype)
    rows = max(1, AT_ONCE // (width + 2))
    for top in range(0, height, rows):
        band = labels[top : top + rows].astype(np.int64) + 1
        padded[top + 1 : top + 1 + len(band), 1:-1] = np.maximum(band, 0)
    return padded


def count_runs(padded: np.ndarray) -> int:
    """How many runs `find_regions` would hold."""
    return 1 + sum(int(starts.sum()) for _, starts in run_starts(padded))


def run_starts(padded: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Whether runs start, bool [n], at pixels from a number on; the first run's is left out."""
    flat = padded.ravel()
    for first in range(1, flat.size, AT_ONCE):
        end = min(first + AT_ONCE, flat.size)
        yield first, flat[first:end] != flat[first - 1 : end - 1]


def find_regions(padded: np.ndarray) -> Regions:
    """The regions of a padded map; its padding keeps the ends of rows apart.

    It takes some 60 bytes a run.
    """
    flat = padded.ravel()
    found = [np.zeros(1, np.int32)]
    found += [(first + np.flatnonzero(new)).astype(np.int32) for first, new in run_starts(padded)]
    starts = np.concatenate(found)
    numbers = join(len(starts), *touching_runs(padded, starts))
    values = flat[starts]
    roots = np.flatnonzero((numbers == np.arange(len(starts), dtype=np.int32)) & (values > 0))
    ranks = np.full(len(starts), -1, np.int32)
    ranks[roots] = np.arange(len(roots), dtype=np.int32)
    numbers = ranks[numbers]  # a run of no label is joined with such alone
    lengths = np.diff(starts, append=np.int32(flat.size))
    inside = numbers >= 0
    areas = np.bincount(numbers[inside], lengths[inside], len(roots)).astype(np.int64)
    return Regions(starts, numbers, areas, starts[roots])


def touching_runs(padded: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int32 [p] each: pairs of runs of one label of which one lies above the other."""
    flat, row = padded.ravel(), padded.shape[1]
    upper, lower = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for first in range(row + 1, flat.size - row, AT_ONCE):
        below = np.arange(first, min(first + AT_ONCE, flat.size - row), dtype=np.int32)
        own, above = flat[first : first + len(below)], flat[first - row : first - row + len(below)]
        new = own != flat[first - 1 : first - 1 + len(below)]  # runs that touch do so
        new |= above != flat[first - row - 1 : first - row - 1 + len(below)]  # where one starts
        below = below[new & (own == above) & (own > 0)]
        lower.append((np.searchsorted(starts, below, "right") - 1).astype(np.int32))
        upper.append((np.searchsorted(starts, below - np.int32(row), "right") - 1).astype(np.int32))
    return np.concatenate(upper), np.concatenate(lower)


def join(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """int32 [count]: for each thing the least one that pairs link it with, directly or not."""
    least = np.arange(count, dtype=np.int32)
    while len(left):
        low, high = np.minimum(left, right), np.maximum(left, right)
        np.minimum.at(least, high, low)
        while (least[least] != least).any():
            least = least[least]
        left, right = least[left], least[right]
        apart = left != right
        left, right = left[apart], right[apart]
    return least


def absorb(padded: np.ndarray, regions: Regions, min_area: int) -> np.ndarray:
    """A padded map without its regions of fewer pixels than `min_area`.

    Row by row, what was theirs goes to the region on their left, or if there is none, to that on
    their right; if there is none either, to no region.
    """
    starts, numbers = regions.starts, regions.numbers
    small = (numbers >= 0) & (regions.areas[numbers] < min_area)
    values = padded.ravel()[starts]
    places = np.arange(len(starts), dtype=np.int32)
    before = np.maximum.accumulate(np.where(small, np.int32(0), places))
    last = np.int32(len(starts) - 1)  # it is of the padding, as the first is
    after = np.minimum.accumulate(np.where(small, last, places)[::-1])[::-1]
    values = np.where(values[before] > 0, values[before], values[after])
    lengths = np.diff(starts, append=np.int32(padded.size))
    return np.repeat(values, lengths).reshape(padded.shape)
