"""Label maps: pictures in which the value of a pixel, or its colour, says its class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ..errors import UserError
from ..structures import UNLABELLED, Origin, Sample, SegmentationTarget
from .images import BrokenImage, read_image
from .map_values import Colour, read_values
from .outlines import show_size

NO_CLASS = -2  # in a table of values: no class has this one
IGNORED = (255, 65535)  # values of unlabelled pixels, where nobody says otherwise
MOST_VALUES = 1 << 16


class StrangeValue(BrokenImage):
    """A label map with a value that is no class."""


class Code(Protocol):
    """What the values of a source's maps stand for."""

    def of(self, index: int) -> "MapCode": ...

    def relabel(self, numbers: np.ndarray) -> "Code": ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MapCode:
    """What the values and the colours of label maps stand for.

    Attributes:
        table: int16 [V + 1], of each value the number of its class, UNLABELLED, or NO_CLASS; the
            last entry is NO_CLASS and stands for all greater values. One entry: values mean
            nothing, colours do.
        colours: int32 [c], ascending, each red + 256 green + 65536 blue.
        colour_labels: int16 [c], what they stand for.
    """

    table: np.ndarray
    colours: np.ndarray
    colour_labels: np.ndarray

    def of(self, index: int) -> "MapCode":
        """The code of the map with that number: the same for all."""
        return self

    def relabel(self, numbers: np.ndarray) -> "MapCode":
        """With class k called numbers[k], int16 [K]."""
        return MapCode(
            table=renumber(self.table, numbers),
            colours=self.colours,
            colour_labels=renumber(self.colour_labels, numbers),
        )


def renumber(labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Labels int16 with class k called numbers[k]; what is no class stays."""
    return np.where(labels >= 0, numbers[labels.clip(0)], labels).astype(np.int16)


def make_code(
    ids: Sequence[int],
    *,
    ignore: Iterable[int] | None = None,
    offset: int = 0,
    reduce_zero_label: bool = False,
    colours: Sequence[Colour] = (),
    ignored_colours: Iterable[Colour] = (),
) -> MapCode:
    """The code of maps in which class k has the value ids[k] + offset, or the colour colours[k].

    Args:
        ids: A number for each class; none where only the colours count.
        ignore: Values of unlabelled pixels, as written in the maps. By default 255 and 65535, as
            far as no class has them.
        offset: Added to the ids when the maps were written.
        reduce_zero_label: Value 0 is unlabelled and class k is ids[k] + 1, as for ADE20K.
        colours: A colour for each class, for maps in colours.
        ignored_colours: Colours of unlabelled pixels.

    Raises:
        UserError: A value below 0 or above 65535, or one that stands for two things.
    """
    values = [i + offset + reduce_zero_label for i in ids]
    unlabelled = set(IGNORED) - set(values) if ignore is None else set(ignore)
    unlabelled |= {0} if reduce_zero_label else set()
    for value in (*values, *unlabelled):
        if not 0 <= value < MOST_VALUES:
            raise UserError(f"a value in a label map is from 0 to 65535, not {value}")
    table = np.full(max(values, default=-1) + 2, NO_CLASS, np.int16)
    if values:
        table = np.full(max(*values, *unlabelled, 0) + 2, NO_CLASS, np.int16)
        table[sorted(unlabelled)] = UNLABELLED
    for label, value in enumerate(values):
        if table[value] != NO_CLASS:
            raise UserError(f"the value {value} of label maps stands for two things")
        table[value] = label
    packed = {pack(colour): UNLABELLED for colour in ignored_colours}
    for label, colour in enumerate(colours):
        if pack(colour) in packed:
            raise UserError(f"the colour {list(colour)} of label maps stands for two things")
        packed[pack(colour)] = label
    return MapCode(
        table=table,
        colours=np.asarray(sorted(packed), np.int32),
        colour_labels=np.asarray([packed[key] for key in sorted(packed)], np.int16),
    )


def pack(colour: Colour) -> int:
    red, green, blue = colour
    return red + 256 * green + 65536 * blue


def threshold_code(level: int) -> MapCode:
    """Two classes: values below `level`, and the others up to 65535."""
    table = np.ones(MOST_VALUES + 1, np.int16)
    table[:level] = 0
    table[-1] = NO_CLASS
    return MapCode(table=table, colours=np.zeros(0, np.int32), colour_labels=np.zeros(0, np.int16))


def read_map(path: str | Path, code: MapCode) -> np.ndarray:
    """The labels int16 [H, W] of a map: numbers of classes, and UNLABELLED.

    A map in 8, 16 or 32 bit or with a palette is read by its numbers; one in colours by these, or
    where its channels agree and no colours are known, by their common value.

    Raises:
        BrokenImage: It cannot be read.
        StrangeValue: It has values that are no class; names the commonest, and how many pixels
            have it.
    """
    values = read_values(path, as_colours=len(code.table) == 1)
    if values.ndim == 3:
        grey = bool((values == values[:, :, :1]).all())
        if not grey and not len(code.colours):
            raise BrokenImage(str(path), "a map in colours, and no colours of classes are known")
        packed = pack_all(values)
        labels = look_up_colours(packed, code)
        if not grey or (labels != NO_CLASS).all() or len(code.table) == 1:
            return checked(path, labels, packed, by_colour=True)
        values = values[:, :, 0]
    labels = np.take(code.table, values, mode="clip")
    if values.dtype.kind == "i":
        labels[values < 0] = NO_CLASS
    return checked(path, labels, values, by_colour=False)


def settle(code: MapCode, maps: Iterable[str]) -> MapCode:
    """The code of a data set, without its colours where its maps in three channels hold numbers.

    Colours may be given for drawing alone. A grey map can be read either way, and one of zeros
    alone never tells which: so the first map that does decides for all. A map in one channel ends
    the search, as it is read by its numbers anyway.
    """
    if len(code.table) == 1 or not len(code.colours):
        return code
    for path in maps:
        try:
            values = read_values(path)
        except BrokenImage:
            continue
        if values.ndim == 2 or (values != values[:, :, :1]).any():
            return code
        by_value = (np.take(code.table, values[:, :, 0], mode="clip") != NO_CLASS).all()
        by_colour = (look_up_colours(pack_all(values), code) != NO_CLASS).all()
        if by_value != by_colour and values.any():
            none = np.zeros(0, np.int32)
            numbers = replace(code, colours=none, colour_labels=none.astype(np.int16))
            return numbers if by_value else code
    return code


def pack_all(values: np.ndarray) -> np.ndarray:
    """int32 [H, W] from colours [H, W, 3]."""
    packed: np.ndarray = values.astype(np.int32) @ np.asarray((1, 256, 65536), np.int32)
    return packed


def look_up_colours(packed: np.ndarray, code: MapCode) -> np.ndarray:
    """The labels int16 [H, W] of packed colours int32 [H, W]."""
    if not len(code.colours):
        return np.full(packed.shape, NO_CLASS, np.int16)
    place = np.searchsorted(code.colours, packed).clip(max=len(code.colours) - 1)
    known = code.colours[place] == packed
    return np.where(known, code.colour_labels[place], NO_CLASS).astype(np.int16)


def checked(
    path: str | Path, labels: np.ndarray, values: np.ndarray, *, by_colour: bool
) -> np.ndarray:
    if labels.size and labels.min() == NO_CLASS:
        raise StrangeValue(str(path), strange(values[labels == NO_CLASS], by_colour=by_colour))
    return labels


def strange(values: np.ndarray, *, by_colour: bool) -> str:
    """What is said of values [n] that are no class: the commonest by name."""
    found, counts = np.unique(values, return_counts=True)
    most, count = int(found[counts.argmax()]), int(counts.max())
    shown = f"colour {unpack(most)}" if by_colour else f"value {most}"
    text = f"{shown} in {count_things(count, 'pixel')} is no class"
    rest = len(found) - 1
    if not rest:
        return text
    others, pixels = count_things(rest, "other value"), count_things(len(values) - count, "pixel")
    return f"{text}; {others} in {pixels} {'is' if rest == 1 else 'are'} none either"


def count_things(number: int, what: str) -> str:
    return f"{number:,} {what}" + "s" * (number != 1)


def unpack(colour: int) -> list[int]:
    return [colour % 256, colour // 256 % 256, colour // 65536]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSource:
    """Pictures with their label maps. Reading one may raise `BrokenImage`.

    Attributes:
        files: The pictures.
        maps: The label map of each.
        code: What the maps' values stand for.
        num_classes: K.
    """

    files: tuple[str, ...]
    maps: tuple[str, ...]
    code: Code
    num_classes: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample[SegmentationTarget]:
        image = read_image(self.files[index])
        size = (image.height, image.width)
        target = self.read_target(index)
        own = (target.labels.shape[0], target.labels.shape[1])
        if own != size:
            raise BrokenImage(self.files[index], map_differs(self.maps[index], own, size))
        return Sample(image=image, target=target, origin=Origin(name=self.files[index], size=size))

    def read_target(self, index: int) -> SegmentationTarget:
        """The labels of one picture, without reading the picture."""
        labels = read_map(self.maps[index], self.code.of(index))
        return SegmentationTarget(labels=torch.from_numpy(labels))


def map_differs(file: str, own: tuple[int, int], size: tuple[int, int]) -> str:
    """What is said of a picture of `size` (H, W) whose map has the size `own`."""
    turned = " (turned by its EXIF record?)" * (own == size[::-1])
    return f"it has {show_size(size)}, its label map {file} {show_size(own)}{turned}"
