"""Files, folders and patterns, as given to `pvt predict`, to lists of pictures and of videos."""

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from .image_folder import FileSource, pictures_below
from .video import SUFFIXES, is_video

Below = Callable[[Path], list[Path]]  # a folder to the files in it that are wanted


class Media(NamedTuple):
    pictures: FileSource
    videos: tuple[Path, ...]


def list_pictures(places: Sequence[str]) -> FileSource:
    """Pictures of files, of folders with all below them, and of shell patterns; each once.

    Raises:
        UserError: A place does not exist, matches nothing, or is a folder without pictures.
    """
    return to_source(list_files(places, pictures_below))


def list_media(places: Sequence[str]) -> Media:
    """Pictures as above, and apart from them videos, to which animated GIFs belong.

    Raises:
        UserError: A place does not exist, matches nothing, or is a folder without either.
    """
    files = list_files(places, media_below)
    videos = {file: None for file in files if is_video(file)}
    return Media(to_source([file for file in files if file not in videos]), tuple(videos))


def to_source(files: Sequence[Path]) -> FileSource:
    return FileSource(tuple(files), (None,) * len(files))


def list_files(places: Sequence[str], below: Below) -> list[Path]:
    return list(dict.fromkeys(file for place in places for file in files_at(place, below)))


def files_at(place: str, below: Below) -> list[Path]:
    path = Path(place)
    if path.is_dir():
        found = below(path)
        if not found:
            raise UserError(f"{path} holds no images")
        return found
    if path.exists():
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(place, recursive=True))]  # noqa: PTH207
    if not matches:
        raise UserError(f"no such image, folder or pattern: {place}")
    return [file for m in matches for file in (below(m) if m.is_dir() else [m])]


def media_below(folder: Path) -> list[Path]:
    """Every picture below a folder, and then every video; both sorted."""
    videos: list[Path] = []
    for where, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        kept = [name for name in sorted(names) if not name.startswith(".")]
        videos += [path for name in kept if (path := Path(where, name)).suffix.lower() in SUFFIXES]
    return pictures_below(folder) + videos
