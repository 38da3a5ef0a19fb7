"""Where COCO json and its pictures lie.

Known are `annotations/instances_train2017.json` beside `train2017/`, `_annotations.coco.json` in
`train/` among its pictures (Roboflow), and a json with its pictures beside it or in `images/`.
"""

import json
from pathlib import Path

from ..errors import UserError, one_line
from .layouts import PARTS, WORDS, part_folders, part_of, read_bytes

KEYS = (b'"images"', b'"annotations"', b'"categories"')
OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")


def find_coco(place: Path) -> dict[str, Path]:
    """The annotation files of the parts at a place; empty where there is no COCO json.

    Raises:
        UserError: Several files for one part: which is meant?
    """
    if place.is_file():
        return {"all": place} if place.suffix.lower() == ".json" else {}
    folders = part_folders(place)
    found: dict[str, Path] = {}
    for files in (place.glob("*.json"), (place / "annotations").glob("*.json")):
        by_part: dict[str, list[Path]] = {}
        for file in sorted(files):
            if not file.name.startswith(OTHER_TASKS) and is_coco(file):
                by_part.setdefault(part_of(file.stem), []).append(file)
        found |= {part: choose(files) for part, files in by_part.items() if part not in found}
    for part, folder in folders.items():
        files_there = [file for file in sorted(folder.glob("*.json")) if is_coco(file)]
        if files_there and part not in found:
            found[part] = choose(files_there)
    if len(found) > 1:
        found.pop("all", None)  # the parts again, in one file
    return {part: found[part] for part in ("all", *PARTS) if part in found}


def choose(files: list[Path]) -> Path:
    named = [file for file in files if file.name.startswith("instances")]
    files = named if len(named) == 1 else files
    if len(files) > 1:
        raise UserError(
            f"{files[0].parent} holds several COCO files for one part"
            f" ({', '.join(file.name for file in files[:4])}): name the one that is meant"
        )
    return files[0]


def find_damaged(place: Path) -> str:
    """What is wrong with the first file called json that is none, where no COCO json was found.

    Raises:
        UserError: It was to be a COCO json: it names one of its lists.
    """
    if not place.is_dir():
        return ""
    folders = (place, place / "annotations", *part_folders(place).values())
    first = ""
    for file in (file for folder in folders for file in sorted(folder.glob("*.json"))):
        content = read_bytes(file) if file.is_file() else b"0"
        try:
            json.loads(content)
        except (ValueError, RecursionError) as error:
            text = f"{file} is no JSON: {one_line(error)}"
            if any(key in content for key in KEYS):
                raise UserError(text) from error
            first = first or text
    return first


def is_coco(file: Path) -> bool:
    content = read_bytes(file) if file.is_file() else b""
    return all(key in content for key in KEYS)


def data_folder(file: Path) -> Path:
    """The folder that a COCO file speaks of, beyond which no file name may lead."""
    own = file.parent
    return own.parent if own.name == "annotations" or own.name.lower() in WORDS else own


def picture_folders(file: Path, limit: Path) -> list[Path]:
    """Where the pictures of a COCO file may be, the likeliest first."""
    own = file.parent
    words = [*file.stem.split("_"), *PARTS.get(part_of(file.stem), ())]
    homes = [own, own / "images", *(h / w for w in words for h in (limit, limit / "images"))]
    return [*homes, limit, limit / "images", limit / "JPEGImages"]
