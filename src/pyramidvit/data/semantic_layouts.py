"""Public data sets of segmentation as they are laid out: ADE20K, Cityscapes, Pascal VOC."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError
from ..structures import Classes
from .class_files import find_class_file, read_class_file
from .class_names import VOC_VOID, ade20k_classes, cityscapes_classes, voc_classes
from .faults import Fault
from .image_folder import pictures_below
from .images import SUFFIXES
from .label_maps import MapCode, make_code
from .layouts import PARTS, read_bytes
from .semantic_folder import Folders, Pairs, pair


@dataclass(frozen=True, slots=True, kw_only=True)
class MapLists:
    """A data set of pictures and label maps, as listed.

    Attributes:
        form: What it was taken for.
        classes: All classes.
        code: What the maps' values stand for.
        parts: The pairs of each part.
    """

    form: str
    classes: Classes
    code: MapCode
    parts: dict[str, Pairs]


def read_layout(place: Path, faults: list[Fault]) -> MapLists | None:
    """Reads a folder that is laid out as one of the public data sets; None if it is not."""
    inner = sorted(place.glob("VOCdevkit/VOC*")) + sorted(place.glob("VOC20*"))
    for root in (place, place / "ADEChallengeData2016", *inner[-1:]):
        if root.is_dir():
            found = read_cityscapes(root, faults) or read_ade20k(root, faults)
            found = found or read_voc_maps(root, faults)
            if found:
                return found
    return None


def read_ade20k(root: Path, faults: list[Fault]) -> MapLists | None:
    """`images/training/ADE_train_*.jpg` and `annotations/training/*.png`; value 0 is unlabelled."""
    pictures, maps = root / "images" / "training", root / "annotations" / "training"
    held = root / "images" / "validation"
    named = [f for folder in (pictures, held) for f in pictures_below(folder)[:1]]
    if not any(file.name.startswith("ADE_") for file in named):
        return None
    classes = ade20k_classes()
    if (root / "objectInfo150.txt").is_file():
        classes = read_object_info(root / "objectInfo150.txt")
    if find_class_file([root]):
        return None
    folders = {"train": Folders(pictures, maps)}
    folders["validation"] = Folders(held, root / "annotations" / "validation")
    ids = [int(i) for i in classes.ids]
    return MapLists(
        form="ADE20K",
        classes=classes,
        code=make_code(ids, ignore=(0, 255)),
        parts={p: pair(f, faults) for p, f in folders.items()},
    )


def read_object_info(file: Path) -> Classes:
    """The names in ADE20K's own list; of several names for a class the first.

    Raises:
        UserError: No such list.
    """
    rows = list(csv.reader(read_bytes(file).decode(errors="replace").splitlines(), delimiter="\t"))
    try:
        pairs = [(int(row[0]), row[-1].split(",")[0].strip()) for row in rows[1:] if row]
    except ValueError as error:
        raise UserError(
            f"{file} is no list of classes: the first column must be numbers"
        ) from error
    names = [name for _, name in pairs]
    unique = [f"{n} {i}" if names.count(n) > 1 else n for i, n in pairs]
    return Classes(names=tuple(unique), ids=tuple(i for i, _ in pairs))


def read_cityscapes(root: Path, faults: list[Fault]) -> MapLists | None:
    """`leftImg8bit/train/<city>/*_leftImg8bit.png` and `gtFine/train/<city>/*_labelIds.png`.

    Where there are no `*_labelIds.png`, `*_labelTrainIds.png` are read.
    """
    pictures, maps = root / "leftImg8bit", root / "gtFine"
    if not (pictures.is_dir() and maps.is_dir()):
        return None
    kind = "labelIds"
    if next(maps.glob(f"*/*/*_{kind}.png"), None) is None:
        kind = "labelTrainIds"
    parts = {}
    for part, words in PARTS.items():
        homes = [word for word in words if (pictures / word).is_dir() or (maps / word).is_dir()]
        if homes and (part != "test" or (maps / homes[0]).is_dir()):
            parts[part] = pair_cityscapes(pictures / homes[0], maps / homes[0], kind, faults)
    classes = cityscapes_classes()
    if kind == "labelTrainIds":
        classes = replace(classes, values=tuple(range(len(classes))))
    values = [int(v) for v in classes.written]
    others = set(range(34)) - set(values) if kind == "labelIds" else set()
    code = make_code(values, ignore={*others, 255})
    return MapLists(form=f"Cityscapes ({kind})", classes=classes, code=code, parts=parts)


def pair_cityscapes(pictures: Path, maps: Path, kind: str, faults: list[Fault]) -> Pairs:
    files, partners = [], []
    for picture in pictures_below(pictures):
        stem = picture.stem.removesuffix("_leftImg8bit")
        partner = maps / picture.relative_to(pictures).with_name(f"{stem}_gtFine_{kind}.png")
        if partner.is_file():
            files.append(str(picture))
            partners.append(str(partner))
        else:
            faults.append(Fault("no_map", str(picture), f"there is no {partner}"))
    used = set(partners)
    for path in sorted(maps.glob(f"*/*_{kind}.png")):
        if str(path) not in used:
            text = f"no picture of its name in {pictures}"
            faults.append(Fault("no_picture", str(path), text))
    return Pairs(tuple(files), tuple(partners))


def read_voc_maps(root: Path, faults: list[Fault]) -> MapLists | None:
    """`JPEGImages/`, `SegmentationClass/` and the lists in `ImageSets/Segmentation/`.

    CVAT exports the same with its own classes in `labelmap.txt`.
    """
    if root.name == "SegmentationClass":
        root = root.parent
    maps, pictures = root / "SegmentationClass", root / "JPEGImages"
    lists = root / "ImageSets" / "Segmentation"
    if not (maps.is_dir() and pictures.is_dir() and lists.is_dir()):
        return None
    own = find_class_file([root])
    classes = voc_classes()
    code = make_code(
        [int(i) for i in classes.ids], colours=classes.colours, ignored_colours=[VOC_VOID]
    )
    if own:
        named = read_class_file(own)
        classes, code = named.classes, named.code
    listed = {}
    for part, words in PARTS.items():
        file = next((lists / f"{w}.txt" for w in words if (lists / f"{w}.txt").is_file()), None)
        if file:
            listed[part] = pair_listed(file, pictures, maps, faults)
    parts = {part: pairs for part, pairs in listed.items() if pairs.files}
    if not parts:
        for file in sorted(lists.glob("*.txt")):
            parts = {"all": pair_listed(file, pictures, maps, faults)}
    return MapLists(form="Pascal VOC maps", classes=classes, code=code, parts=parts)


def pair_listed(listing: Path, pictures: Path, maps: Path, faults: list[Fault]) -> Pairs:
    """The pictures that a file lists, a name a line."""
    files, partners = [], []
    there = {path.stem: path for path in pictures.iterdir() if path.suffix.lower() in SUFFIXES}
    names = read_bytes(listing).decode(errors="replace").split()
    for name in names:
        partner, picture = maps / f"{name}.png", there.get(name)
        if not partner.is_file():
            if listing.stem not in PARTS["test"]:
                faults.append(Fault("no_map", f"{listing}: {name}", f"there is no {partner}"))
        elif picture is None:
            text = f"no picture of its name in {pictures}"
            faults.append(Fault("no_picture", str(partner), text))
        else:
            files.append(str(picture))
            partners.append(str(partner))
    return Pairs(tuple(files), tuple(partners))
