"""Fewer points for the rings of polygons, the same ones for both sides of a border."""

from itertools import pairwise

import numpy as np


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
