"""YOLO text: a line an object, its class and its box or polygon as shares of the image's sides.

A `data.yaml` names the classes and the folders of the parts; without one, `classes.txt` beside
`images/` and `labels/` does. https://docs.ultralytics.com/datasets/detect
"""

import math
import os
import re
from array import array
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError, one_line
from ..structures import Classes
from .class_files import describes_maps
from .faults import Fault
from .image_folder import pictures_below
from .images import is_image
from .layouts import PARTS, part_folders, read_bytes
from .outlines import NONE, POLYGONS
from .table import Table, TableBuilder

YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
NAMES = re.compile(rb"\bnames['\"]?\s*:")
FAR = 1.5  # shares beyond which numbers are taken for pixels


def find_yolo(place: Path) -> Path | None:
    """The file that describes YOLO data at a place; None where there is none."""
    if place.is_file():
        is_yaml = place.suffix.lower() in (".yaml", ".yml")
        return place if is_yaml and not names_maps(place) else None
    known = [place / name for name in (*YAML_NAMES, f"{place.resolve().name}.yaml")]
    known += sorted(place.glob("*.yaml"))
    for file in known:
        if file.is_file() and b"names" in read_bytes(file) and not names_maps(file):
            return file
    labels = place / "labels"
    lists = (place / "classes.txt", labels / "classes.txt")
    names = next((f for f in lists if f.is_file() and labels.is_dir()), None)
    return None if names is None or holds_maps(labels) else names


def names_maps(file: Path) -> bool:
    """Whether a YAML file names the classes of label maps, and is none of YOLO's."""
    return file.stem == "classes" or (describes_maps(file) and not NAMES.search(read_bytes(file)))


def holds_maps(labels: Path) -> bool:
    """Whether a folder called labels has pictures and no text: those are label maps."""
    texts = (file for file in labels.rglob("*.txt") if file.name != "classes.txt")
    return next(texts, None) is None and bool(pictures_below(labels))


def read_yolo(file: Path, faults: list[Fault]) -> tuple[Classes, dict[str, Table]]:
    """Reads all parts of the data that a file describes.

    Raises:
        UserError: The file cannot be understood, or names a folder that is not there.
    """
    if file.suffix.lower() == ".txt":
        lines = read_bytes(file).decode(errors="replace").splitlines()
        names = dict(enumerate(line.strip() for line in lines if line.strip()))
        root = file.parent.parent if file.parent.name == "labels" else file.parent
        images = root / "images" if (root / "images").is_dir() else root
        parts = {part: [p] for part, p in part_folders(images).items()} or {"all": [images]}
    else:
        record = read_yaml(file)
        names = read_names(file, record)
        parts = {part: list_places(file, record, part) for part in PARTS}
    pictures = {part: [q for p in places for q in pictures_at(p)] for part, places in parts.items()}
    pictures = {part: found for part, found in pictures.items() if found}
    if not pictures:
        raise UserError(f"{file}: none of the folders that it names holds a picture")
    for part, found in pictures.items():
        if not any(label_file(picture).is_file() for picture in found):
            wanted = label_file(found[0])
            raise UserError(f"{file}: no picture of {part} has a label file, such as {wanted}")
    first: dict[str, int] = {}
    for number, name in names.items():
        if first.setdefault(name, number) != number:
            text = f"class {first[name]} is called {name} already"
            faults.append(Fault("repeated_name", f"{file}: names[{number}]", text))
    labels = {number: k for k, number in enumerate(names)}
    classes = Classes(names=tuple(names.values()), ids=tuple(names))
    return classes, {part: read_part(found, labels, faults) for part, found in pictures.items()}


def read_yaml(file: Path) -> dict[str, Any]:
    try:
        record = yaml.safe_load(read_bytes(file))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{file} is no plain YAML: {one_line(error)}") from error
    if not isinstance(record, dict) or "names" not in record:
        raise UserError(f"{file} describes no YOLO data: it needs names, train and val")
    if "kpt_shape" in record:
        raise UserError(f"{file} describes poses (kpt_shape); boxes or polygons are needed")
    return record


def read_names(file: Path, record: Mapping[str, Any]) -> dict[int, str]:
    """Class names by number, in the order of the numbers."""
    written = record["names"]
    pairs = dict(enumerate(written)) if isinstance(written, list) else written
    must = f"{file}: names must be a list, or names by number"
    if not isinstance(pairs, dict) or not all(isinstance(n, str | int) for n in pairs.values()):
        raise UserError(must)
    try:
        names = {number: str(pairs[key]) for number, key in sorted((int(k), k) for k in pairs)}
    except (TypeError, ValueError) as error:
        raise UserError(must) from error
    count = record.get("nc", len(names))
    if not names or not isinstance(count, int) or count != len(names):
        raise UserError(f"{file}: nc must be the number of names, {len(names)}, and at least 1")
    return names


def list_places(file: Path, record: Mapping[str, Any], part: str) -> list[Path]:
    """Folders, and files listing pictures, that the description names for a part.

    Absolute paths and such that climb with ".." are followed: they are the user's own words, and
    common.

    Raises:
        UserError: One of them is not there.
    """
    written: Any = next((record[word] for word in PARTS[part] if record.get(word)), [])
    base = file.parent
    if isinstance(record.get("path"), str) and (base / record["path"]).is_dir():
        base /= record["path"]
    places = []
    for text in written if isinstance(written, list) else [written]:
        if not isinstance(text, str):
            raise UserError(f"{file}: {part} must name folders, got {text!r}")
        inner = text.removeprefix("../")  # exports of Roboflow climb one step too far
        found = [p for p in (base / text, file.parent / text, file.parent / inner) if p.exists()]
        if not found and part != "test":
            raise UserError(f"{file}: {part} names {text}, but there is no {base / text}")
        places += found[:1]
    return places


def pictures_at(place: Path) -> list[Path]:
    """The pictures of a folder, or those that a text file lists."""
    if place.is_dir():
        return pictures_below(place)
    lines = read_bytes(place).decode(errors="replace").splitlines()
    files = [place.parent / line.strip() for line in lines if line.strip()]
    return [file for file in files if is_image(file)]


def label_file(picture: Path) -> Path:
    """Where the objects of a picture stand: in `labels/` in place of the last `images/`."""
    parts = list(picture.parts)
    for k in range(len(parts) - 2, -1, -1):
        if parts[k] == "images":
            parts[k] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_part(pictures: list[Path], labels: dict[int, int], faults: list[Fault]) -> Table:
    builder = TableBuilder()
    for picture, name in zip(pictures, name_pictures(pictures), strict=True):
        file = label_file(picture)
        image = builder.add_image(str(picture), name, (0, 0), str(file))
        lines = read_bytes(file).decode(errors="replace").splitlines() if file.is_file() else []
        for number, line in enumerate(lines, 1):
            if line.strip():
                read_line(line, f"{file}:{number}", image, number, builder, labels, faults)
    return builder.build("{file}:{number}", relative=True)


def name_pictures(pictures: list[Path]) -> list[str]:
    """What each picture is called in results: its stem, or its path where several have that."""
    stems = Counter(picture.stem for picture in pictures)
    root = os.path.commonpath([os.path.abspath(p.parent) for p in pictures])  # noqa: PTH100
    return [
        p.stem if stems[p.stem] == 1 else Path(os.path.relpath(p, root)).as_posix()
        for p in pictures
    ]


def read_line(
    line: str,
    place: str,
    image: int,
    number: int,
    builder: TableBuilder,
    labels: dict[int, int],
    faults: list[Fault],
) -> None:
    """Adds the object of a line to `builder`."""
    try:
        values = [float(word) for word in line.split()]
        known = int(values[0]) == values[0]
    except (ValueError, OverflowError):
        known, values = False, []
    polygon = len(values) >= 7 and len(values) % 2 == 1
    if not known or not (len(values) == 5 or polygon):
        text = "a line needs a class number, and x y width height or three or more points"
        faults.append(Fault("bad_record", place, text))
        return
    if int(values[0]) not in labels:
        text = f"there is no class {int(values[0])} among {list_numbers(labels)}"
        faults.append(Fault("unknown_class", place, text))
        return
    if any(math.isfinite(value) and abs(value) > FAR for value in values[1:]):
        text = "numbers must be shares of the image's sides, from 0 to 1"
        faults.append(Fault("bad_record", place, text))
        return
    box = bounds(values[1:]) if polygon else from_centre(*values[1:])
    builder.add_object(image, number, labels[int(values[0])], box)
    if polygon:
        builder.shapes.add(POLYGONS, (array("d", values[1:]),))
    else:
        builder.shapes.add(NONE, ())


def list_numbers(labels: Mapping[int, int]) -> str:
    numbers = list(labels)
    if numbers == list(range(len(numbers))):
        return f"0 to {len(numbers) - 1}"
    return ", ".join(map(str, numbers[:20]))


def from_centre(x: float, y: float, width: float, height: float) -> tuple[float, ...]:
    """(x0, y0, x1, y1) from the centre and the size."""
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def bounds(points: list[float]) -> tuple[float, ...]:
    """(x0, y0, x1, y1) around points x, y, x, y, ...; not finite where one of them is not."""
    if not all(map(math.isfinite, points)):
        return (math.nan,) * 4
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])
