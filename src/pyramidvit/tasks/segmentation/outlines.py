"""The regions of a map of labels as polygons, in bounded memory and files of bounded size.

Up to 8 megapixels polygons are exact. In larger maps the regions of fewer than one in
`MOST_REGIONS` of the pixels go to their neighbours: what a network says of a huge picture is full
of specks. A map whose borders are still longer than memory is meant for, noise for instance, is
traced on every second pixel of every second row, or fourth, and so on.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ...ops.polygons import Polygon, signed_area, trace_polygons
from ...ops.rings import TooManySides

MOST_REGIONS = 1 << 22


class Outlines(NamedTuple):
    """Polygons, one after the other, and how exact they are.

    Attributes:
        polygons: In pixels of the map.
        least_area: Pixels that a region has at least.
        step: Pixels from one that was looked at to the next.
    """

    polygons: Iterator[Polygon]
    least_area: int
    step: int

    @property
    def note(self) -> str:
        """What is not exact about them, in words; empty if nothing is."""
        step = f", borders to {self.step} pixels" if self.step > 1 else ""
        return f"polygons of {self.least_area} pixels or more{step}" if self.least_area > 1 else ""


def outline(labels: np.ndarray, *, background: int | None) -> Outlines:
    """The regions of a map [H, W]; those of a background are left out."""
    step = 1
    while True:
        least = max(1, labels.size // MOST_REGIONS, step**2)
        seen = labels if step == 1 else labels[centres(len(labels), step)]
        seen = seen if step == 1 else seen[:, centres(labels.shape[1], step)]
        min_area = -(-least // step**2)
        try:
            left_out = () if background is None else (background,)
            found = trace_polygons(seen, min_area=min_area, left_out=left_out)
        except TooManySides:
            step *= 2
            continue
        return Outlines(found if step == 1 else enlarge(found, step, labels.shape), least, step)


def centres(length: int, step: int) -> np.ndarray:
    """Which of some rows or columns stands for each `step` of them."""
    return np.minimum(np.arange(0, length, step) + step // 2, length - 1)


def enlarge(polygons: Iterator[Polygon], step: int, size: tuple[int, ...]) -> Iterator[Polygon]:
    """Polygons of every `step`th pixel, in those of a map of (H, W)."""
    most = np.asarray((size[1], size[0]), np.int32)
    for polygon in polygons:
        rings = tuple(np.minimum(ring * np.int32(step), most) for ring in polygon.rings)
        area = round(sum(signed_area(ring.astype(np.int64)) for ring in rings))
        yield Polygon(polygon.label, area, rings)
