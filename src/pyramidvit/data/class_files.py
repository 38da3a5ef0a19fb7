"""Files that say which classes a folder of label maps has: ours, and those of other tools."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError, nearest, one_line
from ..structures import Classes
from .label_maps import MapCode, make_code, threshold_code
from .layouts import read_bytes
from .map_values import Colour

YAML_NAMES = ("classes.yaml", "classes.yml", "config.yaml", "data.yaml", "dataset.yaml")
TEXT_NAMES = ("labelmap.txt", "label_colors.txt", "class_dict.csv", "_classes.csv", "classes.txt")
KEYS = (
    *("names", "ids", "colours", "ignore", "offset", "reduce_zero_label", "threshold"),
    *("classes", "ignore_classes", "colors", "path", "train", "val", "test"),
)
VOID = frozenset({"void", "unlabeled", "unlabelled", "ignore", "ignored"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MapClasses:
    """The classes of label maps, and how the maps write them.

    Attributes:
        file: Where that is said.
        classes: Names, ids and colours.
        code: What the maps' values stand for.
    """

    file: str
    classes: Classes
    code: MapCode


def find_class_file(folders: Sequence[Path]) -> Path | None:
    """The file that names the classes, in the first of the folders that has one."""
    for folder in folders:
        for name in YAML_NAMES:
            if (folder / name).is_file() and describes_maps(folder / name):
                return folder / name
        for name in TEXT_NAMES:
            if (folder / name).is_file():
                return folder / name
    return None


def describes_maps(file: Path) -> bool:
    """Whether a YAML file is about label maps: `data.yaml` mostly describes YOLO's boxes."""
    return file.stem == "classes" or re.search(rb"^classes *:", read_bytes(file), re.M) is not None


def read_class_file(file: Path) -> MapClasses:
    """Reads a file that `find_class_file` knows.

    Raises:
        UserError: It cannot be understood, naming the key or the line.
    """
    try:
        if file.suffix in (".yaml", ".yml"):
            return from_yaml(file, read_yaml(file))
        readers = {"labelmap.txt": read_coloured_lines, "label_colors.txt": read_coloured_lines}
        readers |= {"class_dict.csv": read_table, "_classes.csv": read_table}
        return readers.get(file.name, read_names)(file)
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(str(file)) else f"{file}: {text}") from error


def read_yaml(file: Path) -> dict[str, Any]:
    """The content of a YAML file of classes.

    Raises:
        UserError: No YAML, no mapping, or an unknown key.
    """
    try:
        record = yaml.safe_load(read_bytes(file))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{file} is no plain YAML: {one_line(error)}") from error
    if not isinstance(record, dict) or not ("names" in record or "classes" in record):
        raise UserError(f"{file} needs names, the name of each class")
    for key in record:
        if key not in KEYS and file.stem == "classes":
            raise UserError(f"{file}: unknown key {key}; nearest: {nearest(str(key), KEYS)}")
    return record


def from_yaml(file: Path, record: Mapping[str, Any]) -> MapClasses:
    names = record.get("names", record.get("classes"))
    if isinstance(names, Mapping):
        names, ids = [names[key] for key in names], list(names)
    else:
        ids = record.get("ids", list(range(len(names))) if isinstance(names, list) else [])
    if not isinstance(names, list) or not all(isinstance(n, str | int) for n in names):
        raise UserError("names must be a list of names, or names by value")
    if not whole(ids) or len(ids) != len(names):
        raise UserError(f"ids must be {len(names)} whole numbers, one for each name")
    colours = to_colours(record.get("colours", record.get("colors", [])), len(names))
    ignore = record.get("ignore", record.get("ignore_classes"))
    ignore = [ignore] if isinstance(ignore, int) else ignore
    if ignore is not None and not whole(ignore):
        raise UserError("ignore must be a list of values in the maps")
    offset, level = record.get("offset", 0), record.get("threshold", 0)
    reduce = record.get("reduce_zero_label", False)
    if not whole([offset, level]) or not isinstance(reduce, bool):
        raise UserError(
            "offset and threshold must be whole numbers, reduce_zero_label true or false"
        )
    if level:
        return thresholded(file, [str(n) for n in names], colours, level)
    return build(file, [str(n) for n in names], ids, colours, ignore, offset=offset, reduce=reduce)


def whole(values: object) -> bool:
    return isinstance(values, list) and all(type(v) is int for v in values)


def to_colours(written: object, count: int) -> list[Colour]:
    """Colours as written: a list of [red, green, blue], none or one a class."""
    if not isinstance(written, list) or len(written) not in (0, count):
        raise UserError(f"colours must be {count} lists of red, green and blue, one for each name")
    for colour in written:
        if not whole(colour) or len(colour) != 3 or not all(0 <= c <= 255 for c in colour):
            raise UserError(f"colours must be red, green and blue from 0 to 255, got {colour}")
    return [(r, g, b) for r, g, b in written]


def thresholded(file: Path, names: list[str], colours: list[Colour], level: int) -> MapClasses:
    if len(names) != 2 or not 0 < level < 65536:
        raise UserError("threshold needs two names, and is from 1 to 65535")
    values = (0, 255 if level <= 255 else 65535)
    classes = Classes(names=tuple(names), ids=(0, 1), colours=tuple(colours), values=values)
    return MapClasses(file=str(file), classes=classes, code=threshold_code(level))


def build(
    file: Path,
    names: Sequence[str],
    ids: Sequence[int],
    colours: Sequence[Colour],
    ignore: Sequence[int] | None = None,
    *,
    offset: int = 0,
    reduce: bool = False,
    numbered: bool = True,
) -> MapClasses:
    """Classes in the order of their ids, but for those of void name and of ignored values.

    Args:
        file: That says so.
        names: Of the classes.
        ids: Of the classes.
        colours: One a class, or none.
        ignore: Values of unlabelled pixels; None leaves them to `make_code`.
        offset: As for `make_code`.
        reduce: Its `reduce_zero_label`.
        numbered: The maps have these ids; else only colours.
    """
    if len(set(ids)) != len(ids) or len(set(names)) != len(names):
        raise UserError("each name and each id must stand there once")
    shift = offset + reduce
    order = sorted(range(len(ids)), key=lambda k: ids[k])
    void = [k for k in order if names[k].strip().lower() in VOID]
    void += [k for k in order if k not in void and ids[k] + shift in (ignore or ())]
    kept = [k for k in order if k not in void]
    if not kept:
        raise UserError("it names no classes")
    own = [ids[k] for k in kept]
    unlabelled = None if ignore is None else set(ignore)
    if void and numbered:
        usual = {255, 65535} - {i + shift for i in own} if ignore is None else set(ignore)
        unlabelled = usual | {ids[k] + shift for k in void if ids[k] + shift >= 0}
    code = make_code(
        own if numbered else (),
        ignore=unlabelled,
        offset=offset,
        reduce_zero_label=reduce,
        colours=[colours[k] for k in kept] if colours else (),
        ignored_colours=[colours[k] for k in void] if colours else (),
    )
    classes = Classes(
        names=tuple(names[k] for k in kept),
        ids=tuple(own),
        colours=tuple(colours[k] for k in kept) if colours else (),
        values=tuple(i + shift for i in own) if shift else (),
    )
    return MapClasses(file=str(file), classes=classes, code=code)


def read_names(file: Path) -> MapClasses:
    """`classes.txt`: a name a line, the first for value 0."""
    names = [line.strip() for line in lines_of(file)]
    return build(file, names, range(len(names)), ())


def lines_of(file: Path) -> list[str]:
    text = read_bytes(file).decode("utf-8-sig", errors="replace")
    return [line for line in text.splitlines() if line.strip()]


def read_coloured_lines(file: Path) -> MapClasses:
    """`label_colors.txt` of CamVid ("64 128 64 Animal"), `labelmap.txt` of CVAT ("cat:1,2,3::")."""
    names, colours = [], []
    for line in lines_of(file):
        if line.startswith("#"):
            continue
        before = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\d+)\s+(.+?)\s*", line)
        after = re.fullmatch(r"\s*([^:]+):(\d+),(\d+),(\d+)(:.*)?", line)
        if not before and not after:
            raise UserError(f"cannot make out a name and its colour in the line {line.strip()!r}")
        found = before.groups() if before else after.groups() if after else ()
        names.append(found[3] if before else found[0])
        colours.append([int(c) for c in (found[:3] if before else found[1:4])])
    checked = to_colours(colours, len(names))
    return build(file, names, range(len(names)), checked, numbered=False)


def read_table(file: Path) -> MapClasses:
    """`class_dict.csv` (name, r, g, b) and `_classes.csv` of Roboflow (Pixel Value, Class)."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines_of(file))][1:]
    try:
        if file.name == "_classes.csv":
            return build(file, [row[1] for row in rows], [int(row[0]) for row in rows], ())
        colours = to_colours([[int(c) for c in row[1:4]] for row in rows], len(rows))
    except (ValueError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot make out its columns: {one_line(error)}") from error
    return build(file, [row[0] for row in rows], range(len(rows)), colours, numbered=False)
