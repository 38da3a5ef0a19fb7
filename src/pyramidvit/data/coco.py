"""COCO json: https://cocodataset.org/#format-data, one file at a time."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError, one_line
from ..structures import Classes
from .coco_files import data_folder, picture_folders
from .faults import Fault
from .layouts import best_folder, inside, read_bytes, read_size
from .outlines import add_shape
from .table import Table, TableBuilder


class ImageRecord(NamedTuple):
    image_id: Any
    file_name: Any
    height: Any
    width: Any


class Row(int):
    """Stands in the parsed file for an object that was taken out of it: the object's number."""


class Collector:
    """Takes objects and images out of the file while it is parsed.

    A parsed object takes some two kilobytes, its numbers a tenth: so a large file needs little more
    memory than its own size.
    """

    def __init__(self) -> None:
        self.builder = TableBuilder()
        self.image_ids: list[Any] = []
        self.category_ids: list[Any] = []
        self.ids: list[Any] = []
        self.damaged: dict[int, str] = {}

    def __call__(self, record: dict[str, Any]) -> Any:
        if "image_id" in record and "category_id" in record:
            return self.take(record)
        if "file_name" in record and "id" in record:
            sides = record.get("height"), record.get("width")
            return ImageRecord(record["id"], record["file_name"], *sides)
        return record

    def take(self, record: dict[str, Any]) -> Row:
        row = Row(len(self.ids))
        self.ids.append(record.get("id"))
        self.image_ids.append(record["image_id"])
        self.category_ids.append(record["category_id"])
        box, area, crowd = (0.0, 0.0, 0.0, 0.0), float("nan"), False
        try:
            add_shape(self.builder.shapes, record.get("segmentation"))
        except TypeError as error:
            self.damaged[row] = str(error)
            self.builder.shapes.add(0, ())
        try:
            x, y, width, height = (float(number) for number in record["bbox"])
            box = (x, y, x + width, y + height)
            area = float(area if record.get("area") is None else record["area"])
            crowd = bool(int(record.get("iscrowd") or 0))
        except (LookupError, TypeError, ValueError, OverflowError):
            self.damaged[row] = "bbox must be [x, y, width, height], area and iscrowd numbers"
        self.builder.add_object(-1, row, -1, box, crowd=crowd, area=area)
        return row


def parse(file: Path) -> tuple[dict[str, Any], Collector]:
    """The parsed file, and what was taken out of it.

    Raises:
        UserError: No JSON, or not of this form.
    """
    collector = Collector()
    try:
        document = json.loads(read_bytes(file), object_hook=collector)
    except RecursionError as error:
        raise UserError(f"{file} is nested too deeply to be a COCO file") from error
    except ValueError as error:
        raise UserError(f"{file} is no JSON: {one_line(error)}") from error
    lists = ("images", "annotations", "categories")
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), list) for key in lists
    ):
        raise UserError(
            f"{file} is no COCO file: it needs lists of images, annotations, categories"
        )
    return document, collector


def read_coco(file: Path, faults: list[Fault]) -> tuple[Classes, Table]:
    """Reads one COCO file.

    Args:
        file: The json.
        faults: Receives what is wrong.

    Returns:
        Its categories in the order of their ids, and its objects.

    Raises:
        UserError: The file cannot be understood at all.
    """
    document, collector = parse(file)
    classes = read_categories(file, document["categories"], faults)
    images = read_images(file, document["images"], collector.builder, faults)
    link_objects(file, document["annotations"], collector, images, classes, faults)
    return classes, collector.builder.build("{file}: annotations[{number}]")


def read_categories(file: Path, records: list[Any], faults: list[Fault]) -> Classes:
    names: dict[Any, str] = {}
    first: dict[str, Any] = {}
    for k, record in enumerate(records):
        place = f"{file}: categories[{k}]"
        if not isinstance(record, dict) or not is_id(record.get("id")) or "name" not in record:
            faults.append(Fault("bad_record", place, "a category needs an id and a name"))
        elif record["id"] in names:
            text = f"id {record['id']} belongs to {names[record['id']]} already"
            faults.append(Fault("duplicate_class", place, text))
        else:
            name = names[record["id"]] = str(record["name"])
            if first.setdefault(name, record["id"]) != record["id"]:
                text = f"id {first[name]} is called {name} already"
                faults.append(Fault("repeated_name", place, text))
    ids = list(names)
    if all(isinstance(i, int) for i in ids):
        ids.sort()
    return Classes(names=tuple(names[i] for i in ids), ids=tuple(ids))


def is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def read_images(
    file: Path, records: list[Any], builder: TableBuilder, faults: list[Fault]
) -> dict[Any, int]:
    """Adds the images to `builder`; returns their numbers by id."""
    limit = data_folder(file)
    names = [str(r.file_name) for r in records if isinstance(r, ImageRecord)]
    folder = best_folder(picture_folders(file, limit), names, limit)
    if folder is None and names:
        where = ", ".join(dict.fromkeys(str(p) for p in picture_folders(file, limit) if p.is_dir()))
        text = f"none of its {len(names)} pictures was found, looked in {where}"
        faults.append(Fault("no_pictures", str(file), text))
    numbers: dict[Any, int] = {}
    for k, record in enumerate(records):
        place = f"{file}: images[{k}]"
        if not isinstance(record, ImageRecord) or not is_id(record.image_id):
            faults.append(Fault("bad_record", place, "an image needs an id and a file_name"))
            continue
        path = inside(folder or file.parent, str(record.file_name), limit)
        size = image_size(record, path or "")
        if path is None:
            text = f"{record.file_name} leads out of the folder {limit}"
            faults.append(Fault("path_outside", place, text))
        elif size is None:
            faults.append(Fault("bad_record", place, "height and width must be whole numbers"))
        elif record.image_id in numbers:
            text = f"id {record.image_id} belongs to another image already"
            faults.append(Fault("duplicate_image", place, text))
        else:
            numbers[record.image_id] = builder.add_image(path, record.image_id, size, str(file), k)
    return numbers


def image_size(record: ImageRecord, path: str) -> tuple[int, int] | None:
    """(H, W) as the record says, else as the file has it; None if the record says nonsense."""
    if record.height is None or record.width is None:
        return read_size(path)
    try:
        height, width = int(record.height), int(record.width)
    except (TypeError, ValueError, OverflowError):
        return None
    return (height, width) if 0 < height < 1 << 31 and 0 < width < 1 << 31 else None


def link_objects(
    file: Path,
    records: list[Any],
    collector: Collector,
    images: dict[Any, int],
    classes: Classes,
    faults: list[Fault],
) -> None:
    """Fills in which image and which class each object belongs to."""
    builder, seen = collector.builder, set()
    labels = {i: k for k, i in enumerate(classes.ids)}
    for k, row in enumerate(records):
        place = f"{file}: annotations[{k}]"
        if not isinstance(row, Row):
            text = "an object needs an image_id, a category_id and a bbox"
            faults.append(Fault("bad_record", place, text))
            continue
        builder.numbers[row] = k
        own, image_id, category = (
            c[row] for c in (collector.ids, collector.image_ids, collector.category_ids)
        )
        if not is_id(image_id) or not is_id(category):
            collector.damaged[row] = "image_id and category_id must be numbers or names"
        if row in collector.damaged:
            faults.append(Fault("bad_record", place, collector.damaged[row]))
            continue
        if is_id(own) and own in seen:
            faults.append(Fault("duplicate_id", place, f"id {own} belongs to another object"))
        seen.add(own if is_id(own) else None)
        if image_id not in images:
            faults.append(Fault("unknown_image", place, f"there is no image with id {image_id}"))
        elif category not in labels:
            faults.append(Fault("unknown_class", place, f"there is no category with id {category}"))
        else:
            builder.images[row], builder.labels[row] = images[image_id], labels[category]
