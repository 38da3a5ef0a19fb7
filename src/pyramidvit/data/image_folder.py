"""Class folders: a folder a class, the pictures of the class anywhere below it.

Two layouts are known: the class folders stand in `train/` and in `val/`, `valid/`, `validation/`
or `test/`; or directly in the given folder, and then a share of each class is held out.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, nearest
from ..structures import Classes, ClassTarget, Origin, Sample
from .images import is_image, read_small_image
from .source import DataSet, Source, Subset
from .split import hold_out

VALIDATION_NAMES = ("val", "valid", "validation", "test")
ANNOTATIONS = (".json", ".xml", ".txt")  # of COCO, PASCAL VOC and YOLO


@dataclass(frozen=True, slots=True)
class FileSource:
    """Picture files with labels; a label is the number of its class, or None.

    With a `side`, JPEG files are decoded to sides of so many pixels or more, and no further.
    """

    files: tuple[Path, ...]
    labels: tuple[int | None, ...]
    side: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample[Any]:
        image, size = read_small_image(self.files[index], self.side)
        origin = Origin(name=str(self.files[index]), size=size)
        label = self.labels[index]
        target = None if label is None else ClassTarget(label=label)
        return Sample(image=image, target=target, origin=origin)


def load_image_folder(
    root: str | Path, *, seed: int, held_out: float = 0.2, classes: Classes | None = None
) -> DataSet:
    """Reads the names in a folder of class folders; the pictures are read later, one at a time.

    Args:
        root: The folder, in one of the two layouts.
        seed: Decides which images are held out, where the folder has no validation part.
        held_out: Share of each class that is then held out.
        classes: The classes of a checkpoint. The folder's classes must be among them, and labels
            are numbered as there. Without it, the folder's own classes in alphabetical order.

    Returns:
        Splits "train", "validation" and, where the folder has no parts, "all".

    Raises:
        UserError: No such folder, no images, fewer than two classes, or a class not in `classes`.
    """
    root = Path(root)
    check_folder(root)
    parts = find_parts(root)
    folders = class_folders(parts.get("train", next(iter(parts.values()))))
    own = classes is None
    if classes is None:
        check_classes(root, folders)
        classes = Classes(names=tuple(folders), ids=tuple(folders))

    splits: dict[str, Source] = {}
    for name, part in parts.items():
        origin = "checkpoint" if not own else "training part" if splits else "folder"
        splits[name] = list_files(part, classes, known_from=origin)
    summary = f"{root}: {len(classes)} classes"
    if set(splits) == {"all"} or set(splits) == {"train"}:
        ((_, source),) = splits.items()
        assert isinstance(source, FileSource)
        train, validation = hold_out([x or 0 for x in source.labels], held_out, seed)
        splits = {"all": source, "train": Subset(source, train)}
        if not validation:
            raise UserError(f"{root}: every class has one image only, so none can be held out")
        splits["validation"] = Subset(source, validation)
        summary += f", {len(train)} training and {len(validation)} held-out images (class folders)"
    else:
        counts = ", ".join(f"{len(source)} {name}" for name, source in splits.items())
        summary += f", {counts} images (class folders)"
    return DataSet(name=root.resolve().name, summary=summary, classes=classes, splits=splits)


def check_folder(root: Path) -> None:
    if root.is_file():
        raise UserError(f"{root} is a file; a folder of class folders is needed")
    if not root.is_dir():
        parent = root.parent
        siblings = [p.name for p in parent.iterdir() if p.is_dir()] if parent.is_dir() else []
        hint = nearest(root.name, siblings, 1) if siblings else ""
        raise UserError(
            f"no such folder: {root}" + (f" (did you mean {parent / hint}?)" * bool(hint))
        )


def find_parts(root: Path) -> dict[str, Path]:
    """The parts of a data folder: {"train": ..., "validation": ...}, or {"all": root}."""
    subfolders = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir()}
    held = next((subfolders[name] for name in VALIDATION_NAMES if name in subfolders), None)
    if "train" not in subfolders or not class_folders(subfolders["train"]):
        return {"all": root}  # a class may be called "train" too: then it holds no class folders
    return {"train": subfolders["train"]} | ({"validation": held} if held else {})


def class_folders(part: Path) -> list[str]:
    names = sorted(p.name for p in part.iterdir() if p.is_dir() and not p.name.startswith("."))
    for name in names:
        if name != name.encode(errors="replace").decode():
            raise UserError(f"{part}: the folder name {name!r} is not valid UTF-8; rename it")
    return names


def check_classes(root: Path, folders: list[str]) -> None:
    if len(folders) >= 2:
        return
    if not folders:
        raise UserError(f"{root} holds no class folders: put the images of each class in a folder")
    raise UserError(
        f"{root} holds one class only ({folders[0]}): a classifier needs two or more class folders"
    )


def list_files(part: Path, classes: Classes, *, known_from: str) -> FileSource:
    """All pictures below the class folders of one part, in a fixed order."""
    files: list[Path] = []
    labels: list[int] = []
    numbers = {str(i): k for k, i in enumerate(classes.ids)}
    by_name = {name: k for k, name in enumerate(classes.names)}
    for folder in class_folders(part):
        label = numbers.get(folder, by_name.get(folder))
        found = pictures_below(part / folder)
        if known_from == "folder" and not found:
            if any(path.suffix in ANNOTATIONS for path in (part / folder).rglob("*")):
                raise UserError(
                    f"{part / folder} holds annotations and no images, so {part} is not sorted into"
                    " classes: for boxes or masks name a detector or a segmenter (--model"
                    " retinanet)"
                )
            raise UserError(f"class folder {part / folder} holds no images: fill or remove it")
        if label is None and found:
            raise UserError(
                f"class {folder} in {part} is not among the {len(classes)} classes of the"
                f" {known_from}; nearest: {nearest(folder, classes.names)}"
            )
        files += found
        labels += [label or 0] * len(found)
    if not files:
        raise UserError(f"{part} holds no images in its class folders")
    return FileSource(tuple(files), tuple(labels))


def pictures_below(folder: Path) -> list[Path]:
    """Every picture below a folder, sorted; what starts with a dot is passed over."""
    found: list[Path] = []
    for where, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [path for name in sorted(names) if is_image(path := Path(where, name))]
    return found
