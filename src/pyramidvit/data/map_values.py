"""Reading label maps as numbers: 8, 16 and 32 bit, with a palette, or in colours."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from .images import BrokenImage, large_pictures, reason

Colour = tuple[int, int, int]  # red, green, blue from 0 to 255


def read_values(path: str | Path, *, as_colours: bool = False) -> np.ndarray:
    """The values of a map as written: whole numbers [H, W], or uint8 [H, W, 3] of one in colours.

    Args:
        path: The file.
        as_colours: Turns numbers into colours, by the palette if there is one.

    Raises:
        BrokenImage: The file is missing, truncated, no picture, or has fractions.
    """
    try:
        with large_pictures(), Image.open(path) as image:
            if as_colours or image.mode not in ("1", "L", "LA", "P", "PA", "I", "F"):
                wide = image.mode.startswith("I;16") and not as_colours
                return np.asarray(image if wide else image.convert("RGB"))
            values = np.asarray(image)
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise BrokenImage(str(path), reason(path, error)) from error
    values = values[:, :, 0] if values.ndim == 3 else values
    if values.dtype.kind == "f":
        whole = np.isfinite(values) & (values == np.trunc(values)) & (np.abs(values) < 1 << 24)
        if not whole.all():
            raise BrokenImage(str(path), "its pixels are not whole numbers")
        return values.astype(np.int32)
    return values.astype(np.uint8) if values.dtype == bool else values


def read_palette(path: str | Path) -> list[Colour]:
    """The colours of a map with a palette, by value; none of any other."""
    try:
        with large_pictures(), Image.open(path) as image:
            entries = image.getpalette() if image.mode == "P" else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return []
    numbers = entries or []
    return [(r, g, b) for r, g, b in zip(*(numbers[k::3] for k in range(3)), strict=False)]
