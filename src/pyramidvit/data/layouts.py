"""What the names of folders and files say: parts of a data set, and where pictures lie."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from ..errors import UserError
from .images import large_pictures

PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
WORDS = {word: part for part, words in PARTS.items() for word in words}


def part_of(name: str) -> str:
    """The part that a name speaks of, such as "train" for "instances_train2017"; else "all"."""
    words = re.findall(r"[a-z]+", name.lower())
    found = {WORDS[word] for word in words if word in WORDS}
    return found.pop() if len(found) == 1 else "all"


def part_folders(root: Path) -> dict[str, Path]:
    """Folders directly below `root` that are called after a part."""
    folders = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir()}
    return {WORDS[name]: folder for name, folder in folders.items() if name in WORDS}


def inside(folder: Path, name: str, limit: Path) -> str | None:
    """The path of file `name` in `folder`; None where it leads out of the folder `limit`.

    Links are followed: whoever laid them into the folder meant them.
    """
    name = name.replace("\\", "/") if os.sep == "/" else name
    path = os.path.normpath(folder / name)  # without asking the disk, as a link might mislead
    bound = os.path.abspath(limit)  # noqa: PTH100
    if os.path.commonpath((os.path.abspath(path), bound)) != bound:  # noqa: PTH100
        return None
    return path


def best_folder(candidates: Iterable[Path], names: Sequence[str], limit: Path) -> Path | None:
    """The folder that holds most of some of the files; None where there is none at all."""
    sample = names[:: max(1, len(names) // 20)][:20]
    best: tuple[int, Path | None] = (0, None)
    for folder in dict.fromkeys(candidates):
        paths = [inside(folder, name, limit) for name in sample]
        count = sum(path is not None and os.path.isfile(path) for path in paths)  # noqa: PTH113
        best = (count, folder) if count > best[0] else best
    return best[1]


def read_size(path: str | Path) -> tuple[int, int]:
    """(H, W) of a picture file, upright, from its head; zeros if it cannot be read."""
    try:
        with large_pictures(), Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) >= 5  # by 90 degrees
    except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError):
        return 0, 0
    return (width, height) if turned else (height, width)


def read_bytes(path: Path) -> bytes:
    """The content of an annotation file.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
