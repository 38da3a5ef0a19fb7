"""Looks at every label map of a data set: shares of the classes, sizes, and what is wrong."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..structures import Classes
from .check_pictures import Start, check_picture
from .class_shares import count_labels
from .faults import Fault
from .images import BrokenImage
from .label_maps import MapSource, StrangeValue, map_differs
from .layouts import read_size
from .segmentation import LabelSource, MapReading


@dataclass(slots=True, kw_only=True)
class MapPart:
    """Counts of one part of a data set.

    Attributes:
        images: Pictures with a label map.
        pixels: int64 [K] labelled pixels of each class.
        unlabelled: Pixels without a label.
        pictures: int64 [K] pictures in which each class is seen.
    """

    images: int
    pixels: np.ndarray
    unlabelled: int = 0
    pictures: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """float64 [K] of the labelled pixels; zeros where there are none."""
        return np.asarray(self.pixels / max(1, self.pixels.sum()), np.float64)

    @property
    def unlabelled_share(self) -> float:
        """Of all pixels."""
        return float(self.unlabelled / max(1, self.unlabelled + self.pixels.sum()))


@dataclass(slots=True, kw_only=True)
class MapReport:
    """What a check of labelled pixels found.

    Attributes:
        form: What the data were taken for.
        classes: All classes, also those without a pixel.
        counted: The maps were read; else only the heads of files.
        parts: Counts by part.
        sizes: How many pictures have which (H, W).
        faults: Everything wrong, in the order it was met.
        sources: The parts that samples can be drawn from.
    """

    form: str
    classes: Classes
    counted: bool
    parts: dict[str, MapPart]
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    sources: dict[str, LabelSource] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        classes = self.classes.to_records()
        parts: dict[str, Any] = {name: {"images": p.images} for name, p in self.parts.items()}
        for name, part in self.parts.items() if self.counted else ():
            parts[name]["unlabelled"] = part.unlabelled_share
            for k, record in enumerate(classes):
                share, pictures = float(part.shares[k]), int(part.pictures[k])
                record[name] = {"share": share, "images": pictures}
        sizes = [{"size": list(size), "images": n} for size, n in self.sizes.most_common()]
        return {
            "form": self.form,
            "parts": parts,
            "classes": classes,
            "sizes": sizes,
            "faults": [fault._asdict() for fault in self.faults],
        }


def check_maps(reading: MapReading, *, start: Start, quick: bool = False) -> MapReport:
    """Checks the pictures and label maps of all parts.

    Args:
        reading: The data as listed.
        start: Told the number of pictures; returns what is called after each.
        quick: Reads no more of pictures and maps than their heads; looks for no duplicates.
    """
    number = len(reading.classes)
    report = MapReport(
        form=reading.form,
        classes=reading.classes,
        counted=not quick,
        parts={},
        faults=list(reading.faults),
        sources=reading.sources,
    )
    advance = start(sum(map(len, reading.sources.values())))
    seen: dict[bytes, str] = {}
    for name, source in reading.sources.items():
        part = MapPart(
            images=len(source), pixels=np.zeros(number, int), pictures=np.zeros(number, int)
        )
        report.parts[name] = part
        for index, file in enumerate(source.files):
            size = check_picture(file, (0, 0), report, None if quick else seen)
            if not quick:
                check_labels(source, index, size, part, report)
            elif size and isinstance(source, MapSource):
                check_head(source, index, size, report)
            advance()
    return report


def check_labels(
    source: LabelSource, index: int, size: tuple[int, int] | None, part: MapPart, report: MapReport
) -> None:
    """Reads one map and counts its pixels; `size` (H, W) is that of its picture, if readable."""
    try:
        target = source.read_target(index)
    except BrokenImage as error:
        if isinstance(source, MapSource):
            kind = "unknown_value" if isinstance(error, StrangeValue) else "bad_map"
            report.faults.append(Fault(kind, error.path, error.reason))
        elif size:
            report.faults += source.objects.bad_masks(index, size)
        return
    height, width = target.labels.shape
    if size and (height, width) != size:
        name = source.maps[index] if isinstance(source, MapSource) else ""
        text = map_differs(name, (height, width), size)
        report.faults.append(Fault("size_differs", source.files[index], text))
    counts = count_labels(target, len(report.classes)).numpy()
    part.pixels += counts
    part.pictures += counts > 0
    part.unlabelled += target.labels.numel() - int(counts.sum())
    if not counts.any():
        place = source.maps[index] if isinstance(source, MapSource) else source.files[index]
        report.faults.append(Fault("nothing_labelled", place, "every pixel is unlabelled"))


def check_head(source: MapSource, index: int, size: tuple[int, int], report: MapReport) -> None:
    """Compares the sizes that the heads of a picture and of its map name."""
    own = read_size(source.maps[index])
    if not all(own):
        report.faults.append(Fault("bad_map", source.maps[index], "its head cannot be read"))
    elif own != size:
        text = map_differs(source.maps[index], own, size)
        report.faults.append(Fault("size_differs", source.files[index], text))
