"""Files, folders and patterns, as given to `pvt predict`, to a list of pictures."""

import glob
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .image_folder import FileSource, pictures_below


def list_pictures(places: Sequence[str]) -> FileSource:
    """Pictures of files, of folders with all below them, and of shell patterns; each once.

    Raises:
        UserError: A place does not exist, matches nothing, or is a folder without pictures.
    """
    files: dict[Path, None] = {}
    for place in places:
        files.update(dict.fromkeys(pictures_at(place)))
    return FileSource(tuple(files), (None,) * len(files))


def pictures_at(place: str) -> list[Path]:
    path = Path(place)
    if path.is_dir():
        found = pictures_below(path)
        if not found:
            raise UserError(f"{path} holds no images")
        return found
    if path.exists():
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(place, recursive=True))]  # noqa: PTH207
    if not matches:
        raise UserError(f"no such image, folder or pattern: {place}")
    return [file for m in matches for file in (pictures_below(m) if m.is_dir() else [m])]
