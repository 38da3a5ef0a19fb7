"""Annotated boxes and masks of any known form: what is it, and what is in it."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from ..errors import UserError, nearest
from ..structures import Classes
from .coco import read_coco
from .coco_files import find_coco, find_damaged
from .faults import Fault, note, refuse
from .image_folder import check_folder
from .objects import DetectionSource, clean
from .source import DataSet, Source, Subset
from .split import hold_out
from .table import Table, relabel
from .voc import find_voc, read_voc
from .yolo import find_yolo, read_yolo

NO_CLASSES = "names no class of objects"

Form = Literal["COCO json", "Pascal VOC XML", "YOLO text"]


class NothingKnown(UserError):  # noqa: N818, it says what is there
    """A place holds no annotations at all, so it may hold something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Annotations as read, before anything is held out.

    Attributes:
        form: What the data were taken for.
        classes: All classes, also those without an object.
        tables: The cleaned objects of each part: "train", "validation", "test", or "all".
        faults: Whatever is wrong.
    """

    form: Form
    classes: Classes
    tables: dict[str, Table]
    faults: list[Fault]

    def has_masks(self) -> bool:
        """Whether every object comes with a mask."""
        flags = [table.has_mask() for table in self.tables.values()]
        return any(map(len, flags)) and all(bool(flag.all()) for flag in flags)


def load_detection_data(
    place: str | Path,
    *,
    seed: int,
    held_out: float = 0.2,
    classes: Classes | None = None,
    need_masks: bool = False,
) -> DataSet:
    """Reads the annotations at a place; the pictures and masks are read later, one at a time.

    Args:
        place: A folder, a COCO json, or a `data.yaml`.
        seed: Decides which images are held out, where the data name no validation part.
        held_out: Share of the images that is then held out.
        classes: The classes of a checkpoint; the data's classes must be among them by name (or by
            id and name, where several have one name), and labels are numbered as there. Without
            it, the data's own, in the order of their ids.
        need_masks: Refuses data with an object that has no mask.

    Returns:
        Splits "train", "validation", "test" as far as the data have them; "all" where a share was
        held out. A set without training images keeps the parts that it has. The classes have the
        data's ids, as far as the data have them.

    Raises:
        UserError: Nothing known is there, a record cannot be understood, an object is of an unknown
            class, a class is not in `classes`, or there are no images or no classes.
    """
    place = Path(place)
    reading = read_annotations(place)
    refuse(reading.faults, place)
    if need_masks:
        check_masks(place, reading)
    tables = reading.tables
    if classes is None:
        classes = reading.classes
    else:
        numbers = match_classes(place, reading, classes)
        tables = {p: relabel(t, reading.classes, numbers) for p, t in tables.items()}
        classes = with_own_ids(classes, reading.classes, numbers)
    with_masks = reading.has_masks()
    sources: dict[str, Source] = {p: DetectionSource(t, with_masks) for p, t in tables.items()}
    splits = split(place, tables, sources, held_out=held_out, seed=seed)
    if not len(classes):
        raise UserError(f"{place} {NO_CLASSES}, so there is nothing to learn")
    return DataSet(
        name=(place if place.is_dir() else place.parent).resolve().name,
        summary=summarise(place, reading, splits),
        classes=classes,
        splits=splits,
    )


def read_annotations(place: Path) -> Reading:
    """Recognises the form of the data at a place and reads it.

    Raises:
        NothingKnown: No annotations are there.
        UserError: There is no such place, or a file cannot be understood at all.
    """
    if not place.exists():
        check_folder(place)
    faults: list[Fault] = []
    coco = find_coco(place)
    if coco:
        tables, classes = read_coco_parts(coco, faults)
        return finish("COCO json", classes, tables, faults, coco)
    yolo = find_yolo(place)
    if yolo:
        classes, tables = read_yolo(yolo, faults)
        return finish("YOLO text", classes, tables, faults, {})
    voc = find_voc(place)
    if voc:
        classes, tables = read_voc(voc, faults)
        return finish("Pascal VOC XML", classes, tables, faults, voc.lists)
    damaged = find_damaged(place)
    text = (
        f"{place} holds no annotations that are known: COCO json (with images, annotations and"
        " categories), YOLO text (with data.yaml), or Pascal VOC XML"
    )
    raise NothingKnown(text + f"; {damaged}" * bool(damaged))


def finish(
    form: Form,
    classes: Classes,
    tables: Mapping[str, Table],
    faults: list[Fault],
    files: Mapping[str, Path],
) -> Reading:
    """The reading of tables, whose parts are listed in `files`, without those that are empty."""
    for part, table in tables.items():
        if not table.files and part in files:
            faults.append(Fault("no_images", str(files[part]), "it names no image"))
    cleaned = {part: clean(table, faults) for part, table in tables.items() if table.files}
    flags = {part: table.has_mask() for part, table in cleaned.items()}
    if any(flag.any() for flag in flags.values()):
        for part, table in cleaned.items():
            without = (~flags[part]).nonzero()[0].tolist()
            faults += [Fault("no_mask", table.place(k), "it has none, others do") for k in without]
    return Reading(form=form, classes=classes, tables=cleaned, faults=faults)


def read_coco_parts(
    files: Mapping[str, Path], faults: list[Fault]
) -> tuple[dict[str, Table], Classes]:
    """Reads the files of all parts; the classes are those of the first."""
    tables: dict[str, Table] = {}
    first: Classes | None = None
    for part, file in files.items():
        own, table = read_coco(file, faults)
        first = first or own
        names = dict(zip(first.ids, first.names, strict=True))
        used = set(table.labels.tolist())
        for k, (i, name) in enumerate(zip(own.ids, own.names, strict=True)):
            place = f"{file}: category {i}"
            if i in names and names[i] != name:
                text = f"it is {name} here and {names[i]} in {next(iter(files.values()))}"
                faults.append(Fault("unknown_class", place, text))
            elif i not in names and k in used:
                text = f"{name} is unknown to {next(iter(files.values()))}"
                faults.append(Fault("unknown_class", place, text))
        numbers = {k: first.ids.index(i) for k, i in enumerate(own.ids) if i in names}
        tables[part] = relabel(table, own, numbers)
    assert first is not None
    return tables, first


def check_masks(place: Path, reading: Reading) -> None:
    """Refuses data with an object that has no mask.

    Raises:
        UserError: Naming the object's record, or the place where none has one.
    """
    count = sum(len(table.labels) for table in reading.tables.values())
    if not count or reading.has_masks():
        return
    without = [fault.place for fault in reading.faults if fault.kind == "no_mask"]
    what = f"{place} has boxes without masks"
    if without:
        what = f"{without[0]} has no mask, one of {len(without):,} such objects of {count:,}"
    raise UserError(f"{what}: train retinanet or faster_rcnn on it, or give every object a mask")


def match_classes(place: Path, reading: Reading, classes: Classes) -> dict[int, int]:
    """Numbers among `classes` of the data's classes, by id and name, else by name alone.

    Raises:
        UserError: A class that has objects is not among them, or could be several of them.
    """
    both = {pair: k for k, pair in enumerate(zip(classes.ids, classes.names, strict=True))}
    named = Counter(classes.names)
    by_name = {name: k for k, name in enumerate(classes.names) if named[name] == 1}
    own = reading.classes
    found = {k: both.get((own.ids[k], n), by_name.get(n)) for k, n in enumerate(own.names)}
    numbers = {k: number for k, number in found.items() if number is not None}
    used = {k for table in reading.tables.values() for k in table.labels.tolist()}
    for k in sorted(used - set(numbers)):
        name = own.names[k]
        if name in named:
            raise UserError(
                f"{named[name]} classes of the checkpoint are called {name}, none with the id"
                f" {own.ids[k]} that it has in {place}: give it the id of the one that is meant"
            )
        raise UserError(
            f"class {name} in {place} is not among the {len(classes)} classes of the"
            f" checkpoint; nearest: {nearest(name, classes.names)}"
        )
    return numbers


def with_own_ids(classes: Classes, own: Classes, numbers: Mapping[int, int]) -> Classes:
    """A checkpoint's classes with the data's ids, for results.

    Classes that the data have not keep their ids where these are free; else they get new ones.

    Args:
        classes: Of the checkpoint.
        own: Of the data.
        numbers: For classes of the data their numbers in `classes`.
    """
    ids: dict[int, int | str] = {}
    for k, number in numbers.items():
        if number not in ids or own.ids[k] == classes.ids[number]:
            ids[number] = own.ids[k]
    taken = set(own.ids)
    whole = [i for i in (*own.ids, *classes.ids) if isinstance(i, int)]
    fresh = itertools.count(max(whole, default=0) + 1)
    for number, old in enumerate(classes.ids):
        if number not in ids:
            ids[number] = next(fresh) if old in taken else old
    return replace(classes, ids=tuple(ids[number] for number in range(len(classes))))


def split(
    place: Path,
    tables: Mapping[str, Table],
    sources: dict[str, Source],
    *,
    held_out: float,
    seed: int,
) -> dict[str, Source]:
    """The parts as they are, or with a share of the training images held out."""
    if not sources:
        raise UserError(f"{place} names no images")
    whole = next((part for part in ("all", "train") if part in sources), None)
    if whole is None or "validation" in sources:
        return sources
    first = tables[whole].first
    empty = [int(start == end) for start, end in pairwise(first.tolist())]
    train, validation = hold_out(empty, held_out, seed)
    if not validation:  # one image with objects and one without
        train, validation = hold_out([0] * len(empty), held_out, seed)
    if not validation:
        raise UserError(f"{place} has one image only, so none can be held out")
    source = sources.pop(whole)
    held = {"train": Subset(source, train), "validation": Subset(source, validation)}
    return {"all": source, **held, **sources}


def summarise(place: Path, reading: Reading, splits: Mapping[str, Source]) -> str:
    parts = [f"{len(s):,} {name}" for name, s in splits.items() if name != "all"]
    held = " (held out)" if "all" in splits else ""
    objects = sum(len(table.labels) for table in reading.tables.values())
    what = "boxes and masks" if reading.has_masks() else "boxes"
    done = note(reading.faults)
    count = len(reading.classes)
    classes = f"{count} {'class' if count == 1 else 'classes'}"
    text = f"{place}: {reading.form}, {classes}, {', '.join(parts)} images"
    return f"{text}{held}, {objects:,} {what}" + f"; {done}" * bool(done)
