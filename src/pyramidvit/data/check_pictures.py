"""Looks at the picture files of any data: missing, unreadable, of another size, twice there."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from .faults import Fault
from .images import BrokenImage, read_image, reason
from .layouts import read_size
from .objects import size_differs

Advance = Callable[[], None]
Start = Callable[[int], Advance]  # takes the number of pictures to come


class Findings(Protocol):
    """What is noted of pictures: how many have which (H, W), and what is wrong."""

    sizes: Counter[tuple[int, int]]
    faults: list[Fault]


def check_picture(
    file: str,
    written: tuple[int, int],
    report: Findings,
    seen: dict[bytes, str] | None,
    record: str = "",
) -> tuple[int, int] | None:
    """Reads a picture, wholly where duplicates are sought; its (H, W) if all is well.

    Args:
        file: The picture.
        written: (H, W) that its annotation says, zeros if none.
        report: Receives the size, and what is wrong.
        seen: Pictures by the hash of their content, and None to read the head only.
        record: Where the record stands that names it, if one does.
    """
    if not os.path.isfile(file):  # noqa: PTH113, unlike Path's it never raises
        text = f"there is no picture {file}" if record else "no such file"
        report.faults.append(Fault("missing_file", record or file, text))
        return None
    try:
        if seen is None:
            size = read_size(file)
            if not all(size):
                raise BrokenImage(file, reason(file, ValueError("its head cannot be read")))
        else:
            picture = read_image(file)
            size = picture.height, picture.width
    except BrokenImage as error:
        report.faults.append(Fault("unreadable", file, error.reason))
        return None
    report.sizes[size] += 1
    if seen is not None:
        find_twin(file, report, seen)
    if all(written) and written != size:
        report.faults.append(Fault("size_differs", file, size_differs(written, size)))
        return None
    return size


def find_twin(file: str, report: Findings, seen: dict[bytes, str]) -> None:
    content = hashlib.blake2b(Path(file).read_bytes(), digest_size=16).digest()
    twin = seen.setdefault(content, file)
    if twin != file:
        report.faults.append(Fault("duplicate_picture", file, f"the same picture as {twin}"))
