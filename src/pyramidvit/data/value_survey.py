"""Label maps whose classes nobody names: their values are looked up in the maps themselves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..structures import Classes
from .class_files import MapClasses
from .images import BrokenImage
from .label_maps import IGNORED, make_code, threshold_code
from .map_values import read_palette, read_values

MOST_CLASSES = 1000  # more values are no classes but a photograph
GREY = 0.1  # share of pixels between black and white, up to which a map is black and white


def survey_values(maps: Sequence[str], classes: Classes | None = None) -> MapClasses:
    """Classes from the values in maps, all of which are read; or a checkpoint's, by its values.

    Values 255 and 65535 are unlabelled. But maps of 0 and 255 alone are background and foreground,
    and so are maps of black, white and little of many values between them, as smoothing or JPEG
    leaves it: these are parted at 128.

    Raises:
        UserError: The maps are in colours, hold too many values, or are JPEG files of more than
            black and white, whose values are no longer those that were written.
    """
    counts = count_values(maps)
    values = np.flatnonzero(counts)
    lossy = any(path.lower().endswith((".jpg", ".jpeg")) for path in maps)
    if lossy and not is_nearly_black_and_white(counts):
        raise UserError(
            f"the maps in {Path(maps[0]).parent} are JPEG files, which blur the values of classes:"
            " make them again as PNG; for two classes a threshold in a classes.yaml will do"
        )
    if lossy or is_black_and_white(counts):
        named = Classes(names=("background", "foreground"), ids=(0, 255))
        code = make_code([0, 255]) if values.tolist() == [0, 255] else threshold_code(128)
        return MapClasses(file="", classes=named, code=code)
    ids = [int(v) for v in values if v not in IGNORED]
    known = classes is not None and all(isinstance(v, int) for v in classes.written)
    if classes is not None and known and not len(ids) == len(classes) == 2:
        ids = sorted({int(v) for v in classes.written})
        return MapClasses(file="", classes=order(classes, ids), code=make_code(ids))
    if not 0 < len(ids) <= MOST_CLASSES:
        where = Path(maps[0]).parent
        raise UserError(
            f"the maps in {where} hold {len(ids):,} values: name the classes in a classes.yaml"
        )
    return MapClasses(file="", classes=describe(ids, maps[0]), code=make_code(ids))


def order(classes: Classes, ids: list[int]) -> Classes:
    places = [classes.written.index(i) for i in ids]
    return Classes(names=tuple(classes.names[k] for k in places), ids=tuple(ids))


def count_values(maps: Sequence[str]) -> np.ndarray:
    """Pixels of each value in all maps that can be read, int64 [65536].

    Raises:
        UserError: A map is in colours, or none can be read.
    """
    counts = np.zeros(1 << 16, np.int64)
    last: BrokenImage | None = None
    for path in maps:
        try:
            values = read_values(path)
        except BrokenImage as error:
            last = error
            continue
        if values.ndim == 3:
            if (values != values[:, :, :1]).any():
                raise UserError(
                    f"{path} is in colours: say in a classes.yaml which colour is which class"
                )
            values = values[:, :, 0]
        if values.dtype.kind == "i" and not ((values >= 0) & (values < 1 << 16)).all():
            raise UserError(f"{path} has values beyond 0 to 65535: name the classes")
        counts += np.bincount(values.ravel(), minlength=1 << 16)
    if not counts.any() and last:
        raise UserError(f"no label map can be read; the first: {last}")
    return counts


def is_black_and_white(counts: np.ndarray) -> bool:
    """Whether the values are 0, 255 and few between: counts is int64 [65536]."""
    inner = counts[1:255]
    if not counts[255] or counts[256:].any():
        return False
    smooth = np.count_nonzero(inner) > 32 and inner[8:-8].sum() <= GREY * counts.sum()
    return bool(smooth or (counts[0] and not inner.any()))


def is_nearly_black_and_white(counts: np.ndarray) -> bool:
    """Whether there is white, and little that is far from it and from black, as JPEG leaves it."""
    return bool(counts[224:256].any() and counts[32:224].sum() <= GREY * counts.sum())


def describe(ids: list[int], sample: str) -> Classes:
    """Names for values, and the colours of a palette."""
    names = tuple(f"class {i}" for i in ids)
    if len(ids) == 2 and ids[0] == 0:
        names = ("background", "foreground")
    palette = read_palette(sample)
    known = len(ids) > 0 and max(ids) < len(palette)
    colours = tuple(palette[i] for i in ids) if known else ()
    return Classes(names=names, ids=tuple(ids), colours=colours)
