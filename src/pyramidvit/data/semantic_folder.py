"""Folders of pictures with folders of label maps: which map belongs to which picture.

Known are `images/` beside `labels/` (or `masks/`, `annotations/`, ...), each with the parts in it
or as it is; parts with these folders in them; `train/` beside `trainannot/` or `train_labels/`;
pictures with `_mask` maps beside them; and a folder of maps whose pictures lie next door.
"""

import os
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from .faults import Fault
from .image_folder import pictures_below
from .layouts import PARTS, part_of

PICTURES = ("images", "image", "imgs", "img", "pictures", "photos", "JPEGImages", "input", "inputs")
MAPS = (
    *("labels", "label", "masks", "mask", "annotations", "annotation", "annot", "gt", "gts"),
    *("ground_truth", "groundtruth", "segmentation", "segmentations", "semantic", "targets"),
    *("SegmentationClass", "label_maps", "maps"),
)
TAIL = re.compile(
    r"[-_. ]+(mask|masks|label|labels|gt|l|seg|segmentation|annotation|semantic|gtfine|labelids"
    r"|labeltrainids|leftimg8bit)$",
    re.IGNORECASE,
)


class Folders(NamedTuple):
    """Where the pictures and the maps of a part lie, or should; the same where they are mixed."""

    pictures: Path
    maps: Path


class Pairs(NamedTuple):
    """The pictures of a part, and the map of each."""

    files: tuple[str, ...]
    maps: tuple[str, ...]


def find_folders(root: Path) -> dict[str, Folders]:
    """The folders of each part, "all" where there are no parts; empty where none are known.

    Beside parts that have both, there are those with pictures or maps alone: whoever pairs them
    names what is missing. Of a test part pictures alone are usual, and are left out.
    """
    below = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir()}
    pictures, maps = pick(below, PICTURES), pick(below, MAPS)
    if pictures and maps:
        return folders_of_parts(pictures, maps)
    found: dict[str, Folders] = {}
    alone: dict[str, Folders] = {}
    for name, folder in below.items():
        part = part_of(name)
        if part == "all" or part in found:
            continue
        inner = {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_dir()}
        pictures, maps = pick(inner, PICTURES), pick(inner, MAPS)
        beside = [below[n] for word in MAPS for n in (name + word, f"{name}_{word}") if n in below]
        if pictures and maps:
            found[part] = Folders(pictures, maps)
        elif beside:
            found[part] = Folders(folder, beside[0])
        elif has_mixed(folder):
            found[part] = Folders(folder, folder)
        elif maps or name.endswith(tuple(word.lower() for word in MAPS)):
            missing = folder / PICTURES[0] if maps else root / part
            alone.setdefault(part, Folders(missing, maps or folder))
        elif part != "test":
            alone[part] = Folders(folder, folder)
    if not found and has_mixed(root):
        return {"all": Folders(root, root)}
    return alone | found if found else maps_alone(root)


def pick(folders: Mapping[str, Path], names: Sequence[str]) -> Path | None:
    """The first of the names, by their order, that a folder has and in which something lies."""
    found = (folders.get(name.lower()) for name in names)
    return next((folder for folder in found if folder and pictures_exist(folder)), None)


def pictures_exist(folder: Path) -> bool:
    return next(iter(pictures_below(folder)), None) is not None


def folders_of_parts(pictures: Path, maps: Path) -> dict[str, Folders]:
    """Parts within both folders, and beside such those in one; "all" where both have none."""
    own = sub_parts(pictures)
    there = sub_parts(maps)
    if not set(own) & set(there):
        return {"all": Folders(pictures, maps)}
    found: dict[str, Folders] = {}
    for part in PARTS:
        if part in there:
            found[part] = Folders(own.get(part, pictures / there[part].name), there[part])
        elif part in own and part != "test":
            found[part] = Folders(own[part], maps / own[part].name)
    return found


def sub_parts(folder: Path) -> dict[str, Path]:
    """Folders below one that are called after a part, such as "training" or "train2017"."""
    parts: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        part = part_of(path.name)
        if path.is_dir() and part != "all":
            parts.setdefault(part, path)
    return parts


def has_mixed(folder: Path) -> bool:
    """Whether pictures and their maps, called `..._mask`, lie in one folder."""
    stems = {p.stem for p in folder.iterdir() if p.is_file() and p.suffix.lower() != ".txt"}
    return any(base_of(stem) in stems for stem in stems if base_of(stem) != stem)


def base_of(stem: str) -> str:
    """A map's name without what says that it is one: "a_gtFine_labelIds" is "a"."""
    while (shorter := TAIL.sub("", stem)) != stem:
        stem = shorter
    return stem


def maps_alone(root: Path) -> dict[str, Folders]:
    """A folder of maps whose pictures lie next door, in `images/` there or called alike."""
    parts = sub_parts(root) or {"all": root}
    found: dict[str, Folders] = {}
    for part, maps in parts.items():
        if not any(p.suffix.lower() == ".png" for p in pictures_below(maps)[:1]):
            continue
        names = [maps.name] if part != "all" else []
        homes = [root.parent / place / name for name in names for place in ("", "images")]
        if root.name.lower() in {name.lower() for name in MAPS} and part == "all":
            homes += [root.parent / name for name in PICTURES]
        for home in homes:
            if home != maps and home.is_dir() and shared_names(home, maps):
                found[part] = Folders(home, maps)
                break
    return found


def shared_names(pictures: Path, maps: Path) -> bool:
    stems = {path.stem for path in pictures_below(pictures)}
    return any(path.stem in stems for path in pictures_below(maps))


def named_folders(file: Path, record: Mapping[str, Any]) -> dict[str, Folders]:
    """The folders that a YAML file names: `train: {images: ..., masks: ...}`, and so on.

    Paths count from the file, or from its `path`. A part of which nothing is there is left out, and
    so are test pictures without maps.

    Raises:
        UserError: A part has no such two folders, or the training part is nowhere.
    """
    base = file.parent
    if isinstance(record.get("path"), str) and (base / record["path"]).is_dir():
        base /= record["path"]
    found: dict[str, Folders] = {}
    for part, words in PARTS.items():
        written = next((record[word] for word in words if record.get(word)), None)
        if written is None:
            continue
        named = written if isinstance(written, dict) else {}
        images, masks = named.get("images"), named.get("masks")
        if not isinstance(images, str) or not isinstance(masks, str):
            raise UserError(f"{file}: {part} must have images and masks, the names of folders")
        pictures = first_folder(base, images, "../", "")
        maps = first_folder(base, masks, "")
        if pictures and maps:
            found[part] = Folders(pictures, maps)
        elif part == "train":
            missing = masks if pictures else images
            raise UserError(f"{file}: train names {missing}, but there is no {base / missing}")
        elif maps or (pictures and part != "test"):
            found[part] = Folders(pictures or base / images, maps or base / masks)
    return found


def first_folder(base: Path, text: str, *homes: str) -> Path | None:
    """A folder as named, or one of its last name in `homes`, where the data were moved."""
    ways = (base / text, *(base / home / Path(text).name for home in homes))
    return next((Path(os.path.normpath(way)) for way in ways if way.is_dir()), None)


def pair(folders: Folders, faults: list[Fault]) -> Pairs:
    """Pairs pictures and maps by their paths below the two folders, without suffixes.

    Args:
        folders: Of one part.
        faults: Receives pictures without a map, and maps without a picture. Of Cityscapes' two
            kinds of maps beside each other its `labelIds` are taken.
    """
    pictures = pictures_below(folders.pictures)
    maps = pictures if folders.maps == folders.pictures else pictures_below(folders.maps)
    if folders.maps == folders.pictures:
        maps = [path for path in maps if base_of(path.stem) != path.stem]
        taken = set(maps)
        pictures = [path for path in pictures if path not in taken]
    exact = {name_below(path, folders.maps): path for path in maps}
    exact = {name: path for name, path in exact.items() if not has_ids(name, exact)}
    bases = {base_of(name): path for name, path in exact.items() if base_of(name) != name}
    files: list[str] = []
    partners: list[str] = []
    for picture in pictures:
        name = name_below(picture, folders.pictures)
        partner = exact.get(name) or bases.get(name) or exact.get(base_of(name))
        partner = partner or bases.get(base_of(name))
        if partner is None:
            faults.append(Fault("no_map", str(picture), f"no map of its name in {folders.maps}"))
        else:
            files.append(str(picture))
            partners.append(str(partner))
    used = set(partners)
    for path in exact.values():
        if str(path) not in used:
            text = f"no picture of its name in {folders.pictures}"
            faults.append(Fault("no_picture", str(path), text))
    return Pairs(tuple(files), tuple(partners))


def has_ids(name: str, names: Container[str]) -> bool:
    """Whether a map of Cityscapes' train ids has one of its ids beside it."""
    stem = name.removesuffix("labelTrainIds")
    return stem != name and f"{stem}labelIds" in names


def name_below(path: Path, root: Path) -> str:
    return str(path.relative_to(root).with_suffix(""))
