"""Looks at everything in a data set: counts, classes, sizes, and every fault with its place."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from ..structures import Classes
from .check_maps import MapReport, check_maps
from .check_pictures import Start, check_picture
from .detection import NO_CLASSES, NothingKnown, Reading, read_annotations
from .faults import Fault
from .image_folder import class_folders, find_parts, pictures_below
from .objects import DetectionSource
from .panoptic import find_panoptic
from .segmentation import find_maps, read_maps
from .table import Table

As = Literal["auto", "detection", "segmentation"]


@dataclass(slots=True, kw_only=True)
class Part:
    """Counts of one part of a data set.

    Attributes:
        images: Pictures.
        objects: Annotated objects that training would see; of class folders, none.
        crowd: How many of them stand for many, or are difficult.
        empty: Pictures without an object.
        most: Objects of the picture that has the most.
        per_class: Objects, or pictures of class folders, by class number.
    """

    images: int
    objects: int = 0
    crowd: int = 0
    empty: int = 0
    most: int = 0
    per_class: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True, kw_only=True)
class Report:
    """What a check found.

    Attributes:
        form: What the data were taken for.
        classes: All classes, also those without an object.
        masks: Every object has a mask.
        parts: Counts by part.
        sizes: How many pictures have which (H, W).
        faults: Everything wrong, in the order it was met.
        sources: The parts that samples can be drawn from; empty for class folders.
        pictures: Of class folders, (file, class), one of each class first.
    """

    form: str
    classes: Classes
    masks: bool
    parts: dict[str, Part]
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    sources: dict[str, DetectionSource] = field(default_factory=dict)
    pictures: list[tuple[str, str]] = field(default_factory=list)

    def to_record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        classes = [
            record | {part: counts.per_class[k] for part, counts in self.parts.items()}
            for k, record in enumerate(self.classes.to_records())
        ]
        columns = ("images", "objects", "crowd", "empty", "most")
        parts = {name: {c: getattr(p, c) for c in columns} for name, p in self.parts.items()}
        sizes = [{"size": list(size), "images": n} for size, n in self.sizes.most_common()]
        return {
            "form": self.form,
            "masks": self.masks,
            "parts": parts,
            "classes": classes,
            "sizes": sizes,
            "faults": [fault._asdict() for fault in self.faults],
        }


def check_data(
    place: str | Path, *, start: Start, quick: bool = False, task: As = "auto"
) -> Report | MapReport:
    """Checks annotations of any known form, label maps, or class folders.

    Args:
        place: As for `load_detection_data` or `load_segmentation_data`, or class folders.
        start: Told the number of pictures; returns what is called after each.
        quick: Reads no more of a picture than its head, and no masks; looks for no duplicates.
        task: What annotations are taken for that would do for both; "auto" takes objects for
            detection, and label maps where there are none.

    Raises:
        UserError: Nothing known is there, or a file cannot be understood at all.
    """
    place = Path(place)
    if task == "segmentation" or (task == "auto" and place.is_file() and find_panoptic(place)):
        return check_maps(read_maps(place), start=start, quick=quick)
    try:
        reading = read_annotations(place)
    except NothingKnown:
        if task == "detection":
            raise
        maps = find_maps(place)
        if maps:
            return check_maps(maps, start=start, quick=quick)
        if not place.is_dir() or not any(pictures_below(place / f) for f in class_folders(place)):
            raise
        return check_class_folders(place, start=start, quick=quick)
    if not len(reading.classes):
        reading.faults.append(Fault("no_classes", str(place), f"it {NO_CLASSES}"))
    return check_objects(reading, start=start, quick=quick)


def check_objects(reading: Reading, *, start: Start, quick: bool) -> Report:
    """Checks annotated objects, their pictures and their masks."""
    report = Report(
        form=reading.form,
        classes=reading.classes,
        masks=reading.has_masks(),
        parts={part: count(table) for part, table in reading.tables.items()},
        faults=reading.faults,
        sources={p: DetectionSource(t, reading.has_masks()) for p, t in reading.tables.items()},
    )
    advance = start(sum(part.images for part in report.parts.values()))
    seen: dict[bytes, str] = {}
    for source in report.sources.values():
        for index, file in enumerate(source.table.files):
            height, width = (int(side) for side in source.table.sizes[index])
            hashes, place = None if quick else seen, source.table.image_place(index)
            found = check_picture(file, (height, width), report, hashes, place)
            size = found or (height, width)
            if all(size) and source.with_masks and not quick:
                report.faults += source.bad_masks(index, size)
            advance()
    return report


def count(table: Table) -> Part:
    per_image = table.first[1:] - table.first[:-1]
    return Part(
        images=len(table.files),
        objects=len(table.labels),
        crowd=int(table.crowd.sum()),
        empty=int((per_image == 0).sum()),
        most=int(per_image.max(initial=0)),
        per_class=Counter(table.labels.tolist()),
    )


def check_class_folders(place: Path, *, start: Start, quick: bool) -> Report:
    """Checks class folders in either layout."""
    folders = find_parts(place)
    first = next(iter(folders.values()))
    names = class_folders(first)
    classes = Classes(names=tuple(names), ids=tuple(names))
    report = Report(form="class folders", classes=classes, masks=False, parts={})
    files: dict[str, list[str]] = {}
    for part, folder in folders.items():
        counts: Counter[int] = Counter()
        for name in class_folders(folder):
            found = pictures_below(folder / name)
            fault = class_fault(folder / name, len(found), known=name in names, own=folder == first)
            report.faults += [fault] if fault else []
            files.setdefault(name, []).extend(str(file) for file in found)
            if name in names:
                counts[names.index(name)] = len(found)
        report.parts[part] = Part(images=counts.total(), per_class=counts)
    rounds = zip_longest(*([(file, name) for file in found] for name, found in files.items()))
    report.pictures = [pair for one_each in rounds for pair in one_each if pair]
    advance = start(sum(map(len, files.values())))
    seen: dict[bytes, str] = {}
    for paths in files.values():
        for file in paths:
            check_picture(file, (0, 0), report, None if quick else seen)
            advance()
    return report


def class_fault(folder: Path, count: int, *, known: bool, own: bool) -> Fault | None:
    """What is wrong with a class folder of `count` pictures: empty, or new in validation."""
    if not known and count:
        return Fault("unknown_class", str(folder), "the training part has no such class")
    return Fault("empty_class", str(folder), "no pictures in it") if own and not count else None
