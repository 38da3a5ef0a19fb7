"""Instance masks as annotation files write them, to runs: polygons, and COCO's run lengths.

Runs are COCO's: column by column, each from the top, the first run of zeros. Polygons are drawn by
COCO's own rules (rleFrPoly of its maskApi), so that areas and scores are the published ones.
"""

from __future__ import annotations  # array[int] at run time: Python 3.12

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

from ..structures import Masks

LONGEST_OUTLINE = 1 << 22  # pixels; drawing takes some 100 bytes for each
NONE, POLYGONS, RUNS, PACKED = range(4)


class BadMask(ValueError):  # noqa: N818, it names the thing
    """A mask that does not fit its image or contradicts itself; says how."""


@dataclass(slots=True)
class Shapes:
    """Masks of many objects as they were written, end to end: a few numbers, not objects, each.

    Attributes:
        kinds: Of each object: nothing, polygons, runs, or runs packed as text.
        sizes: (H, W) that each object's runs are for, zeros for polygons.
        last: Number of the parts of all objects up to and with each.
        ends: Where in `content` each part ends.
        content: float64 numbers, or text.
    """

    kinds: bytearray = field(default_factory=bytearray)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    last: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    content: bytearray = field(default_factory=bytearray)

    def add(
        self, kind: int, parts: Sequence[array[float] | bytes], size: tuple[int, int] = (0, 0)
    ) -> None:
        self.kinds.append(kind)
        self.sizes.extend(size)
        for part in parts:
            self.content += part if isinstance(part, bytes) else part.tobytes()
            self.ends.append(len(self.content))
        self.last.append(len(self.ends))

    def parts(self, row: int) -> list[bytes]:
        first = self.last[row - 1] if row else 0
        bounds = [self.ends[k - 1] if k else 0 for k in range(first, self.last[row] + 1)]
        return [bytes(self.content[a:b]) for a, b in pairwise(bounds)]


def add_shape(shapes: Shapes, written: object) -> None:
    """Appends what a COCO record has under "segmentation".

    Raises:
        TypeError: Neither polygons, each a list of numbers, nor runs with their size.
    """
    if written is None or written == []:
        shapes.add(NONE, ())
    elif isinstance(written, list):
        try:
            parts = [array("d", part) for part in written]
        except (TypeError, OverflowError):
            raise TypeError("segmentation must be lists of x, y, x, y, ...") from None
        shapes.add(POLYGONS, parts)
    else:
        add_runs(shapes, written)


def add_runs(shapes: Shapes, written: object) -> None:
    must = 'segmentation must be polygons, or {"size": [height, width], "counts": ...}'
    try:
        counts, size = written["counts"], written["size"]  # type: ignore[index]
        height, width = (int(side) for side in size)
        bounded = 0 < height < 1 << 31 and 0 < width < 1 << 31
        kind = PACKED if isinstance(counts, str) else RUNS
        part = counts.encode("ascii") if isinstance(counts, str) else array("d", counts)
    except (LookupError, TypeError, ValueError, OverflowError):
        raise TypeError(must) from None
    if not bounded:
        raise TypeError(must)
    shapes.add(kind, (part,), (height, width))


def read_runs(
    shapes: Shapes, row: int, size: tuple[int, int], scale: tuple[float, float] = (1, 1)
) -> np.ndarray:
    """The runs int64 [r] of one object in an image of `size` (H, W).

    Args:
        shapes: All masks.
        row: The object's number there.
        size: Of the image.
        scale: Factors (x, y) from the polygons' numbers to pixels.

    Raises:
        BadMask: The mask is damaged, or of another size.
    """
    kind, parts = shapes.kinds[row], shapes.parts(row)
    if kind == NONE:
        return np.asarray([size[0] * size[1]], dtype=np.int64)
    if kind == POLYGONS:
        polygons = [np.frombuffer(part) for part in parts]
        return draw_polygons(polygons, size, scale)
    written = (shapes.sizes[2 * row], shapes.sizes[2 * row + 1])
    if written != size:
        raise BadMask(f"its mask is for {show_size(written)}, not {show_size(size)}")
    runs = unpack_runs(parts[0]) if kind == PACKED else whole_numbers(np.frombuffer(parts[0]))
    total = float(runs.astype(np.float64).sum())  # in float64, where nothing overflows
    if (runs < 0).any() or total != size[0] * size[1]:
        raise BadMask(f"its runs cover {total:.0f} pixels of {size[0] * size[1]}")
    return runs


def draw_polygons(
    polygons: Sequence[np.ndarray], size: tuple[int, int], scale: tuple[float, float] = (1, 1)
) -> np.ndarray:
    """The runs int64 [r] of the union of polygons, each x, y, x, y, ..., as COCO draws them.

    A polygon of fewer than three points covers nothing.

    Raises:
        BadMask: A number without its partner, not finite, or an outline of absurd length.
    """
    from faster_coco_eval import mask  # half a second, and boxes alone do without

    drawn = []
    for polygon in polygons:
        if len(polygon) % 2 or not np.isfinite(polygon).all():
            raise BadMask("its polygon needs pairs of finite numbers")
        points = polygon.reshape(-1, 2) * scale
        steps = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1, initial=0)
        if steps.sum() > LONGEST_OUTLINE or np.abs(points).max(initial=0) > LONGEST_OUTLINE:
            raise BadMask("its polygon reaches absurdly far")
        if len(points) >= 3:
            drawn.append(points.ravel().tolist())
    if not drawn:
        return np.asarray([size[0] * size[1]], dtype=np.int64)
    return unpack_runs(mask.merge(mask.frPyObjects(drawn, *size))["counts"])


def unpack_runs(text: bytes) -> np.ndarray:
    """Runs int64 [r] from COCO's text: six bits a letter, and from the fourth run on the difference
    to the run before the last.

    Raises:
        BadMask: Letters that cannot be.
    """
    letters = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if ((letters < 0) | (letters > 63)).any() or (len(letters) and letters[-1] & 32):
        raise BadMask("its runs are damaged")
    if not len(letters):
        return letters
    ends = np.flatnonzero(letters < 32)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 12:
        raise BadMask("its runs are damaged")
    place = np.arange(len(letters)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((letters & 31) << (5 * place), starts)
    runs -= (letters[ends] >> 4 & 1) << (5 * lengths)  # the highest bit is the sign
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def whole_numbers(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all() or (values != np.trunc(values)).any():
        raise BadMask("its runs must be whole numbers")
    if (np.abs(values) > 1 << 53).any():
        raise BadMask("its runs are damaged")
    return values.astype(np.int64)


def to_coco_runs(masks: Masks) -> list[dict[str, object]]:
    """Masks as COCO writes them into JSON: {"size": [H, W], "counts": text} each."""
    from faster_coco_eval import mask

    records = []
    for runs in torch.split(masks.counts.cpu(), masks.num_runs.tolist()):
        packed = mask.frPyObjects({"size": list(masks.size), "counts": runs.tolist()}, *masks.size)
        counts = packed["counts"]
        text = counts.decode("ascii") if isinstance(counts, bytes) else counts
        records.append({"size": list(masks.size), "counts": text})
    return records


def show_size(size: tuple[int, int]) -> str:
    """ "640x480 pixels", the width first as people say it."""
    return f"{size[1]}x{size[0]} pixels"
