"""Annotated objects of many images as columns of numbers.

A hundred thousand objects take some tens of megabytes, and reading processes share them without
copying, which they would not with an object for each.
"""

from __future__ import annotations  # array[int] at run time: Python 3.12

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from ..structures import Classes
from .outlines import NONE, Shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The annotation of one part of a data set: n images with N objects, image by image.

    Attributes:
        files: The pictures.
        image_ids: What the data calls each image.
        sizes: int64 [n, 2], (H, W) that the annotation says; zeros where it says none.
        records: The annotation file of each image, or one for all.
        pattern: Where an object's record stands, from `file` and `number`.
        first: int64 [n + 1], where each image's objects start.
        boxes: float64 [N, 4], in pixels, or as shares of the image's sides where `relative`.
        labels: int64 [N], numbers of classes.
        crowd: bool [N].
        areas: float64 [N], what the annotation says, in pixels; NaN where it says none.
        numbers: int64 [N], line or index of each record.
        image_numbers: int64 [n], index of each image's record; -1 where it has a file of its own.
        rows: int64 [N], the object's number in `shapes`.
        shapes: The masks as they were written.
        relative: Boxes and polygons are shares of the image's sides.
    """

    files: tuple[str, ...]
    image_ids: tuple[int | str, ...]
    sizes: np.ndarray
    records: tuple[str, ...]
    pattern: str
    first: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    numbers: np.ndarray
    rows: np.ndarray
    shapes: Shapes
    image_numbers: np.ndarray
    relative: bool = False

    def image_place(self, image: int) -> str:
        """Where the record of an image stands, for people."""
        file, number = self.record_file(image), self.image_numbers[image]
        return file if number < 0 else f"{file}: images[{number}]"

    def place(self, record: int) -> str:
        """Where the record of an object stands, for people."""
        image = int(np.searchsorted(self.first, record, side="right")) - 1
        return self.pattern.format(file=self.record_file(image), number=self.numbers[record])

    def record_file(self, image: int) -> str:
        return self.records[image if len(self.records) > 1 else 0]

    def has_mask(self) -> np.ndarray:
        """Bool [N]: which objects come with a mask."""
        kinds = np.frombuffer(bytes(self.shapes.kinds), np.uint8)
        return kinds[self.rows] != NONE if len(self.rows) else np.zeros(0, dtype=bool)


@dataclass(slots=True)
class TableBuilder:
    """Gathers the columns of a `Table`, an image or an object at a time, in any order."""

    files: list[str] = field(default_factory=list)
    image_ids: list[int | str] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    image_numbers: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    images: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[int] = field(default_factory=lambda: array("q"))
    labels: array[int] = field(default_factory=lambda: array("q"))
    boxes: array[float] = field(default_factory=lambda: array("d"))
    areas: array[float] = field(default_factory=lambda: array("d"))
    crowd: bytearray = field(default_factory=bytearray)
    shapes: Shapes = field(default_factory=Shapes)

    def add_image(
        self, file: str, image_id: int | str, size: tuple[int, int], record: str, place: int = -1
    ) -> int:
        """Adds an image of `size` (H, W), zeros if unknown, whose record stands in the file
        `record` at `place`, if it is not all of it; returns the image's number."""
        self.files.append(file)
        self.image_ids.append(image_id)
        self.records.append(record)
        self.image_numbers.append(place)
        self.sizes.extend(size)
        return len(self.files) - 1

    def add_object(
        self,
        image: int,
        number: int,
        label: int,
        box: Iterable[float],
        *,
        crowd: bool = False,
        area: float = np.nan,
    ) -> None:
        """Adds an object; its shape is added to `shapes` by the caller. A box is (x0, y0, x1, y1),
        and an image or label below zero marks a record to be left out."""
        self.images.append(image)
        self.numbers.append(number)
        self.labels.append(label)
        self.boxes.extend(box)
        self.crowd.append(crowd)
        self.areas.append(area)

    def build(self, pattern: str, *, relative: bool = False) -> Table:
        images = np.frombuffer(self.images, np.int64) if self.images else np.zeros(0, np.int64)
        labels = np.asarray(self.labels, np.int64)
        order = np.argsort(images, kind="stable")
        order = order[(images[order] >= 0) & (labels[order] >= 0)]
        one_file = len(set(self.records)) == 1
        return Table(
            files=tuple(self.files),
            image_ids=tuple(self.image_ids),
            sizes=np.asarray(self.sizes, np.int64).reshape(-1, 2),
            records=tuple(self.records[:1] if one_file else self.records),
            pattern=pattern,
            first=np.searchsorted(images[order], np.arange(len(self.files) + 1)),
            boxes=np.asarray(self.boxes, np.float64).reshape(-1, 4)[order],
            labels=labels[order],
            crowd=np.frombuffer(bytes(self.crowd), np.uint8).astype(bool)[order],
            areas=np.asarray(self.areas, np.float64)[order],
            numbers=np.asarray(self.numbers, np.int64)[order],
            image_numbers=np.asarray(self.image_numbers, np.int64),
            rows=order,
            shapes=self.shapes,
            relative=relative,
        )


def relabel(table: Table, source: Classes, numbers: dict[int, int]) -> Table:
    """The table with labels as `numbers` says; every class with objects must be in it."""
    lookup = np.asarray([numbers.get(k, -1) for k in range(len(source))], np.int64)
    return replace(table, labels=lookup[table.labels] if len(source) else table.labels)
