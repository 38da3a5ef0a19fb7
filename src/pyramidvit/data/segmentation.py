"""Labelled pixels of any known form: what is it, and what is in it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, nearest
from ..structures import Classes
from .class_files import YAML_NAMES, MapClasses, find_class_file, read_class_file, read_yaml
from .class_shares import class_shares as class_shares
from .detection import read_annotations
from .faults import Fault, note, refuse
from .image_folder import check_folder
from .label_maps import MapCode, MapSource, settle
from .objects import DetectionSource
from .panoptic import find_panoptic, read_panoptic
from .semantic_folder import Pairs, find_folders, named_folders, pair
from .semantic_layouts import read_layout
from .semantic_objects import ObjectMapSource, semantic_classes
from .source import DataSet, Source, Subset
from .split import hold_out
from .value_survey import survey_values

LabelSource = MapSource | ObjectMapSource


@dataclass(frozen=True, slots=True, kw_only=True)
class MapReading:
    """Labelled pixels as listed, before anything is held out.

    Attributes:
        form: What the data were taken for.
        classes: All classes.
        sources: Each part: "train", "validation", "test", or "all".
        faults: Whatever is wrong.
        named: The data name their classes; else these are the values that were found.
    """

    form: str
    classes: Classes
    sources: dict[str, LabelSource]
    faults: list[Fault]
    named: bool = True


def load_segmentation_data(
    place: str | Path, *, seed: int, held_out: float = 0.2, classes: Classes | None = None
) -> DataSet:
    """Reads what there is at a place; pictures and label maps are read later, one at a time.

    Args:
        place: A folder, a json with masks or of COCO's panoptic form, or a `classes.yaml`.
        seed: Decides which images are held out, where the data name no validation part.
        held_out: Share of the images that is then held out.
        classes: The classes of a checkpoint; the data's classes must be among them by name, and
            labels are numbered as there. Data that name no classes are read by the checkpoint's
            values. Without it, the data's own, in the order of their ids.

    Returns:
        Splits "train", "validation", "test" as far as the data have them; "all" where a share was
        held out. A set without training images keeps the parts that it has.

    Raises:
        UserError: Nothing known is there, a file cannot be understood, a class is not in `classes`,
            or there are no images.
    """
    place = Path(place)
    reading = read_maps(place, classes)
    refuse(reading.faults, place)
    splits = split(place, reading.sources, held_out=held_out, seed=seed)
    return DataSet(
        name=(place if place.is_dir() else place.parent).resolve().name,
        summary=summarise(place, reading, splits),
        classes=reading.classes,
        splits=splits,
    )


def read_maps(place: Path, classes: Classes | None = None) -> MapReading:
    """Recognises the form of the data at a place and lists it.

    Args:
        place: As for `load_segmentation_data`.
        classes: Of a checkpoint; labels are numbered as there.

    Raises:
        UserError: Nothing known is there, or a file cannot be understood at all.
    """
    if not place.exists():
        check_folder(place)
    reading = find_maps(place, classes) or read_objects(place)
    return reading if classes is None else match_classes(place, reading, classes)


def find_maps(place: Path, classes: Classes | None = None) -> MapReading | None:
    """Lists data with label maps; None where there are none."""
    faults: list[Fault] = []
    panoptic = find_panoptic(place)
    if panoptic:
        own, sources = read_panoptic(panoptic, faults)
        return finish("COCO panoptic", own, sources, faults)
    if place.is_file():
        return read_folder(place.parent, classes) if place.name in YAML_NAMES else None
    lists = read_layout(place, faults)
    if lists is None:
        return read_folder(place, classes)
    return finish(
        lists.form, lists.classes, to_sources(lists.parts, lists.code, len(lists.classes)), faults
    )


def finish(
    form: str,
    classes: Classes,
    sources: Mapping[str, MapSource],
    faults: list[Fault],
    *,
    named: bool = True,
) -> MapReading:
    full = {part: source for part, source in sources.items() if len(source)}
    return MapReading(form=form, classes=classes, sources=dict(full), faults=faults, named=named)


def to_sources(parts: Mapping[str, Pairs], code: MapCode, num_classes: int) -> dict[str, MapSource]:
    return {
        part: MapSource(files=p.files, maps=p.maps, code=code, num_classes=num_classes)
        for part, p in parts.items()
    }


def read_folder(root: Path, classes: Classes | None) -> MapReading | None:
    """Lists a folder of pictures and label maps; None where it is none."""
    file = find_class_file([root, *sorted(p for p in root.iterdir() if p.is_dir())])
    record = read_yaml(file) if file and file.suffix in (".yaml", ".yml") else {}
    own = file if file and file.parent == root else None
    folders = (named_folders(own, record) if own else {}) or find_folders(root)
    if not folders:
        return None
    faults: list[Fault] = []
    parts = {part: pair(f, faults) for part, f in folders.items()}
    paired = [pairs for pairs in parts.values() if pairs.files]
    if not paired:
        return None
    found = name_classes(file, paired, classes)
    sources = to_sources(parts, found.code, len(found.classes))
    return finish("label maps", found.classes, sources, faults, named=bool(file))


def name_classes(file: Path | None, parts: list[Pairs], classes: Classes | None) -> MapClasses:
    """The classes of a folder, as far as one says them; else the checkpoint's; else the values."""
    maps = [path for pairs in parts for path in pairs.maps]
    if file:
        found = read_class_file(file)
        return replace(found, code=settle(found.code, maps))
    return survey_values(maps, classes)


def read_objects(place: Path) -> MapReading:
    """Lists data with instance masks.

    Raises:
        UserError: There are none, or an object has no mask.
    """
    try:
        reading = read_annotations(place)
    except UserError as error:
        raise UserError(
            f"{place} holds no labelled pixels that are known: folders of pictures and of label"
            f" maps, or objects with masks ({error})"
        ) from error
    if not reading.has_masks():
        raise UserError(f"{place} holds {reading.form} without masks; segmentation needs masks")
    classes, numbers, background = semantic_classes(reading.classes)
    sources: dict[str, LabelSource] = {
        part: ObjectMapSource(
            objects=DetectionSource(table, True),
            numbers=numbers,
            background=background,
            num_classes=len(classes),
        )
        for part, table in reading.tables.items()
    }
    form = f"{reading.form} with masks"
    return MapReading(form=form, classes=classes, sources=sources, faults=reading.faults)


def match_classes(place: Path, reading: MapReading, classes: Classes) -> MapReading:
    """The reading with labels numbered as in `classes`, by name, or by value where none are known.

    Raises:
        UserError: A class is not among them.
    """
    ours = reading.classes
    known: dict[Any, int] = {name: k for k, name in enumerate(classes.names)}
    keys: tuple[Any, ...] = ours.names
    if not reading.named and not set(keys) <= set(known):
        known, keys = {v: k for k, v in enumerate(classes.written)}, ours.ids
    for key in keys:
        if key not in known:
            raise UserError(
                f"class {key} in {place} is not among the {len(classes)} classes of the"
                f" checkpoint; nearest: {nearest(str(key), classes.names)}"
            )
    numbers = np.asarray([known[key] for key in keys], np.int16)
    sources: dict[str, LabelSource] = {}
    for part, source in reading.sources.items():
        if isinstance(source, MapSource):
            code = source.code.relabel(numbers)
            sources[part] = replace(source, code=code, num_classes=len(classes))
        else:
            sources[part] = replace(
                source,
                numbers=numbers[source.numbers],
                background=int(numbers[source.background]),
                num_classes=len(classes),
            )
    return replace(reading, classes=classes, sources=sources)


def split(
    place: Path, sources: Mapping[str, LabelSource], *, held_out: float, seed: int
) -> dict[str, Source]:
    """The parts as they are, or with a share of the training images held out."""
    if not sources:
        raise UserError(f"{place} names no images with label maps")
    splits: dict[str, Source] = dict(sources)
    whole = next((part for part in ("all", "train") if part in splits), None)
    if whole is None or "validation" in splits:
        return splits
    source = splits.pop(whole)
    train, validation = hold_out([0] * len(source), held_out, seed)
    if not validation:
        raise UserError(f"{place} has one image only, so none can be held out")
    held = {"train": Subset(source, train), "validation": Subset(source, validation)}
    return {"all": source, **held, **splits}


def summarise(place: Path, reading: MapReading, splits: Mapping[str, Source]) -> str:
    parts = [f"{len(s):,} {name}" for name, s in splits.items() if name != "all"]
    held = " (held out)" if "all" in splits else ""
    count = len(reading.classes)
    classes = f"{count} {'class' if count == 1 else 'classes'}"
    found = "" if reading.named else " (the values that were found)"
    done = note(reading.faults)
    text = f"{place}: {reading.form}, {classes}{found}, {', '.join(parts)} images{held}"
    return text + f"; {done}" * bool(done)
