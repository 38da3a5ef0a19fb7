"""COCO panoptic as semantic maps: a PNG in which colours number segments, and a json that says the
class of each segment. https://cocodataset.org/#format-data
"""

from __future__ import annotations  # array[int] at run time: Python 3.12

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, one_line
from ..structures import UNLABELLED, Classes
from .coco import is_id
from .coco_files import data_folder, picture_folders
from .faults import Fault
from .label_maps import NO_CLASS, MapCode, MapSource, renumber
from .layouts import PARTS, best_folder, inside, part_of, read_bytes
from .map_values import Colour

MARKS = (b'"segments_info"', b'"categories"')


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentCode:
    """What the segments of each map are: a table of colours for every map.

    Attributes:
        first: int64 [n + 1], where each map's segments start.
        colours: int32 [S], red + 256 green + 65536 blue, which COCO calls the segment's id.
        labels: int16 [S], numbers of classes.
    """

    first: np.ndarray
    colours: np.ndarray
    labels: np.ndarray

    def of(self, index: int) -> MapCode:
        """The code of one map; black is unlabelled."""
        rows = slice(int(self.first[index]), int(self.first[index + 1]))
        colours = np.append(self.colours[rows], np.int32(0))
        labels = np.append(self.labels[rows], np.int16(UNLABELLED))
        order = np.argsort(colours, kind="stable")
        return MapCode(
            table=np.full(1, NO_CLASS, np.int16),
            colours=colours[order],
            colour_labels=labels[order],
        )

    def relabel(self, numbers: np.ndarray) -> SegmentCode:
        """With class k called numbers[k], int16 [K]."""
        return replace(self, labels=renumber(self.labels, numbers))


class Segments(list[int]):
    """Stands in the parsed file for an image's segments: their rows in the collector."""


@dataclass(slots=True)
class Collector:
    """Takes the segments out of the file while it is parsed: a dozen bytes each, not a thousand."""

    ids: array[int] = field(default_factory=lambda: array("q"))
    categories: array[int] = field(default_factory=lambda: array("q"))

    def __call__(self, record: dict[str, Any]) -> Any:
        if "category_id" not in record or "id" not in record or "segments_info" in record:
            return record
        try:
            self.ids.append(record["id"])
        except (TypeError, OverflowError):
            self.ids.append(-1)
        try:
            self.categories.append(record["category_id"])
        except (TypeError, OverflowError):
            self.categories.append(-1)
        return len(self.ids) - 1


def find_panoptic(place: Path) -> dict[str, Path]:
    """The panoptic files of the parts at a place; empty where there are none."""
    if place.is_file():
        return {"all": place} if place.suffix.lower() == ".json" and is_panoptic(place) else {}
    found: dict[str, Path] = {}
    for folder in (place, place / "annotations"):
        for file in sorted(folder.glob("*panoptic*.json")):
            if is_panoptic(file):
                found.setdefault(part_of(file.stem), file)
    if len(found) > 1:
        found.pop("all", None)
    return {part: found[part] for part in ("all", *PARTS) if part in found}


def is_panoptic(file: Path) -> bool:
    content = read_bytes(file)
    return all(mark in content for mark in MARKS)


def read_panoptic(
    files: Mapping[str, Path], faults: list[Fault]
) -> tuple[Classes, dict[str, MapSource]]:
    """Reads the files of all parts, which must have the same categories.

    Raises:
        UserError: A file cannot be understood, or names other categories than the first.
    """
    first: Classes | None = None
    sources: dict[str, MapSource] = {}
    for part, file in files.items():
        document, collector = parse(file)
        classes = read_categories(file, document["categories"])
        if first is not None and classes.ids != first.ids:
            raise UserError(f"{file} has other categories than {next(iter(files.values()))}")
        first = first or classes
        sources[part] = link(file, document, collector, first, faults)
    assert first is not None
    return first, sources


def parse(file: Path) -> tuple[dict[str, Any], Collector]:
    collector = Collector()
    try:
        document = json.loads(read_bytes(file), object_hook=collector)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is no JSON that can be read: {one_line(error)}") from error
    lists = ("images", "annotations", "categories")
    if not isinstance(document, dict) or not all(isinstance(document.get(k), list) for k in lists):
        raise UserError(f"{file} is no panoptic file: it needs images, annotations, categories")
    return document, collector


def read_categories(file: Path, records: list[Any]) -> Classes:
    """Things and stuff alike, in the order of their ids, with their colours if all have one."""
    names: dict[int, tuple[str, Colour | None]] = {}
    for k, record in enumerate(records):
        if (
            not isinstance(record, dict)
            or type(record.get("id")) is not int
            or "name" not in record
        ):
            raise UserError(f"{file}: categories[{k}] needs a number as its id, and a name")
        if record["id"] in names:
            raise UserError(f"{file}: categories[{k}] has the id {record['id']} of another")
        written = record.get("color")
        colour: Colour | None = None
        if isinstance(written, list) and len(written) == 3 and all(type(c) is int for c in written):
            colour = (written[0], written[1], written[2])
        names[record["id"]] = (str(record["name"]), colour)
    ids = sorted(names)
    colours = [colour for i in ids if (colour := names[i][1])]
    return Classes(
        names=tuple(names[i][0] for i in ids),
        ids=tuple(ids),
        colours=tuple(colours) if len(colours) == len(ids) else (),
    )


def link(
    file: Path,
    document: dict[str, Any],
    collector: Collector,
    classes: Classes,
    faults: list[Fault],
) -> MapSource:
    """The pictures and maps of a file, those that lie there, and what their segments are."""
    limit = data_folder(file)
    names = {
        r["id"]: str(r["file_name"])
        for r in document["images"]
        if isinstance(r, dict) and is_id(r.get("id")) and "file_name" in r
    }
    maps = map_folder(file, document["annotations"], limit)
    pictures = best_folder(picture_folders(file, limit), list(names.values()), limit)
    if pictures is None or maps is None:
        what = "pictures" if pictures is None else "label maps"
        faults.append(Fault("no_pictures", str(file), f"none of its {what} was found"))
    labels = {i: k for k, i in enumerate(classes.ids)}
    files: list[str] = []
    partners: list[str] = []
    rows, counts = array("q"), array("q")
    mapped: set[Any] = set()
    for k, record in enumerate(document["annotations"]):
        fault = annotation_fault(record, names, collector, labels)
        picture = path = None
        if not fault:
            picture = inside(pictures or limit, names[record["image_id"]], limit)
            path = inside(maps or limit, record["file_name"], limit)
            fault = ("path_outside", f"its files lead out of the folder {limit}")
        if picture is None or path is None:
            faults.append(Fault(fault[0], f"{file}: annotations[{k}]", fault[1]))
            continue
        if record["image_id"] in mapped:
            text = f"image {record['image_id']} has a map already"
            faults.append(Fault("second_map", f"{file}: annotations[{k}]", text))
            continue
        mapped.add(record["image_id"])
        files.append(picture)
        partners.append(path)
        rows.extend(record["segments_info"])
        counts.append(len(record["segments_info"]))
    for i, name in names.items():
        if i not in mapped:
            faults.append(Fault("no_map", f"{file}: {name}", f"image {i} has no annotation"))
    chosen = np.asarray(rows, np.int64)
    categories = np.asarray(collector.categories, np.int64)[chosen]
    code = SegmentCode(
        first=np.concatenate(([0], np.cumsum(np.asarray(counts, np.int64)))),
        colours=np.asarray(collector.ids, np.int64)[chosen].astype(np.int32),
        labels=np.asarray([labels[c] for c in categories.tolist()], np.int16),
    )
    return MapSource(files=tuple(files), maps=tuple(partners), code=code, num_classes=len(classes))


def annotation_fault(
    record: Any, names: Mapping[Any, str], collector: Collector, labels: Mapping[Any, int]
) -> tuple[str, str] | None:
    """What is wrong with the record of a map: the kind of fault, and a text."""
    if not is_annotation(record):
        return "bad_record", "an annotation needs image_id, file_name and segments_info"
    if record["image_id"] not in names:
        return "unknown_image", f"there is no image with id {record['image_id']}"
    for row in record["segments_info"]:
        number, category = collector.ids[row], collector.categories[row]
        if not 0 < number < 1 << 24:
            return "bad_record", f"the segment id {number} is no colour"
        if category not in labels:
            return "unknown_class", f"there is no category with id {category}"
    return None


def is_annotation(record: object) -> bool:
    return (
        isinstance(record, dict)
        and is_id(record.get("image_id"))
        and isinstance(record.get("file_name"), str)
        and isinstance(record.get("segments_info"), list)
        and all(type(row) is int for row in record["segments_info"])
    )


def map_folder(file: Path, records: list[Any], limit: Path) -> Path | None:
    """Where the PNG files lie: in a folder called as the json, mostly."""
    names = [r["file_name"] for r in records if is_annotation(r)]
    own = file.parent
    homes = [own / file.stem, limit / file.stem, own, limit, own / "panoptic", limit / "panoptic"]
    return best_folder(homes, names, limit)
