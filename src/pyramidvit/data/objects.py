"""Samples of annotated objects, and what is done about boxes that cannot be used as they are."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..structures import DetectionTarget, Masks, Origin, Sample
from .faults import Fault
from .images import BrokenImage, read_image
from .outlines import BadMask, read_runs, show_size
from .table import Table

TOLERANCE = 0.5  # pixels that a box may reach out of its image before it is called a fault


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedOrigin(Origin):
    """Where an annotated image came from, as evaluation and results need it.

    Attributes:
        id: What the data calls the image, such as COCO's number.
        areas: float64 [n], what the annotation says of each object's area in pixels, by which COCO
            tells small from large; NaN where it says nothing.
    """

    id: int | str
    areas: np.ndarray


def clean(table: Table, faults: list[Fault]) -> Table:
    """Clips boxes to their images and leaves out those without an area; adds to `faults`."""
    clipped, over = clip(table)
    with np.errstate(invalid="ignore", over="ignore"):
        width, height = (table.boxes[:, 2:] - table.boxes[:, :2]).T
        left = clipped[:, 2:] - clipped[:, :2] if table.relative else side_lengths(clipped)
    least = 1e-6 if table.relative else 0  # a share so small vanishes in float32 pixels

    finite = np.isfinite(table.boxes).all(axis=1)
    negative = finite & ((width < 0) | (height < 0))
    empty = finite & ~negative & ((width <= least) | (height <= least))
    gone = finite & ~negative & ~empty & ~(left > least).all(axis=1)
    keep = finite & ~negative & ~empty & ~gone
    reach = keep & (over > (TOLERANCE / 1000 if table.relative else TOLERANCE))
    for kind, which in (
        ("not_finite", ~finite),
        ("negative_size", negative),
        ("zero_area", empty),
        ("far_outside", gone),
        ("box_outside", reach),
    ):
        faults += [Fault(kind, table.place(k), describe(table, k)) for k in which.nonzero()[0]]

    first = np.concatenate(([0], keep.cumsum()))[table.first]
    columns = ("labels", "crowd", "areas", "numbers", "rows")
    kept = {name: getattr(table, name)[keep] for name in columns}
    return replace(table, first=first, boxes=clipped[keep], **kept)


def clip(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """The boxes [N, 4] within their images, and how far each reached out [N]."""
    counts = np.diff(table.first)
    sizes = np.ones((len(counts), 2)) if table.relative else table.sizes
    limits = np.repeat(np.where(sizes > 0, sizes, np.inf)[:, ::-1], counts, axis=0)  # (W, H)
    start, end = table.boxes[:, :2], table.boxes[:, 2:]
    before = -table.boxes.min(axis=1, initial=0)
    beyond = (end - limits).max(axis=1, initial=0)
    clipped = [np.minimum(corner.clip(0), limits) for corner in (start, end)]
    return np.concatenate(clipped, axis=1), np.maximum(before, beyond)


def side_lengths(boxes: np.ndarray) -> np.ndarray:
    """Width and height [N, 2] as they will be in float32."""
    corners = boxes.astype(np.float32)
    return corners[:, 2:] - corners[:, :2]


def describe(table: Table, record: int) -> str:
    x0, y0, x1, y1 = table.boxes[record]
    image = int(np.searchsorted(table.first, record, side="right")) - 1
    size = (int(table.sizes[image, 0]), int(table.sizes[image, 1]))
    inside = f" in an image of {show_size(size)}" if all(size) else ""
    return f"box from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}){inside}"


@dataclass(frozen=True, slots=True)
class DetectionSource:
    """Pictures with their objects. Reading one may raise `BrokenImage`.

    Attributes:
        table: The objects, cleaned.
        with_masks: Whether samples carry masks.
    """

    table: Table
    with_masks: bool

    def __len__(self) -> int:
        return len(self.table.files)

    def __getitem__(self, index: int) -> Sample[Any]:
        file = self.table.files[index]
        image = read_image(file)
        size = (image.height, image.width)
        written = (int(self.table.sizes[index, 0]), int(self.table.sizes[index, 1]))
        if all(written) and written != size:
            raise BrokenImage(file, size_differs(written, size))
        origin = RecordedOrigin(
            name=file,
            size=size,
            id=self.table.image_ids[index],
            areas=self.table.areas[self.table.first[index] : self.table.first[index + 1]].copy(),
        )
        return Sample(image=image, target=self.read_target(index, size), origin=origin)

    def read_target(self, index: int, size: tuple[int, int]) -> DetectionTarget:
        """The objects of image `index`, whose size is (H, W).

        Raises:
            BrokenImage: A mask is damaged or of another size.
        """
        table = self.table
        start, end = int(table.first[index]), int(table.first[index + 1])
        scale = (size[1], size[0]) if table.relative else (1, 1)
        boxes = table.boxes[start:end] * np.asarray((*scale, *scale))
        masks = None
        if self.with_masks:
            try:
                runs = [read_runs(table.shapes, int(r), size, scale) for r in table.rows[start:end]]
            except BadMask as error:
                bad = self.bad_masks(index, size)
                raise BrokenImage(table.files[index], f"{bad[0].place}: {error}") from error
            masks = to_masks(runs, size)
        return DetectionTarget(
            boxes=torch.from_numpy(boxes.astype(np.float32)),
            labels=torch.from_numpy(table.labels[start:end].copy()),
            crowd=torch.from_numpy(table.crowd[start:end].copy()),
            masks=masks,
        )

    def bad_masks(self, index: int, size: tuple[int, int]) -> list[Fault]:
        """The damaged masks of image `index`, whose size is (H, W)."""
        table, found = self.table, []
        scale = (size[1], size[0]) if table.relative else (1, 1)
        for record in range(int(table.first[index]), int(table.first[index + 1])):
            try:
                read_runs(table.shapes, int(table.rows[record]), size, scale)
            except BadMask as error:
                found.append(Fault("bad_mask", table.place(record), str(error)))
        return found


def to_masks(runs: list[np.ndarray], size: tuple[int, int]) -> Masks:
    counts = np.concatenate(runs) if runs else np.zeros(0, np.int64)
    lengths = np.asarray([len(r) for r in runs], np.int64)
    return Masks(size=size, counts=torch.from_numpy(counts), num_runs=torch.from_numpy(lengths))


def size_differs(written: tuple[int, int], size: tuple[int, int]) -> str:
    turned = " (turned by its EXIF record?)" if written == size[::-1] else ""
    return f"it has {show_size(size)}, its annotation says {show_size(written)}{turned}"
