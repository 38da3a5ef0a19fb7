"""Reading picture files as people have them: every mode comes out as upright 8-bit RGB."""

import contextlib
import os
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import one_line

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)

MOST_PIXELS = 1 << 29  # 2 GB as RGB; what claims more is taken for an attack on memory
AT_ONCE = 1 << 22  # pixels that are turned into another mode

UNREADABLE = (  # what Pillow raises on files that are damaged, hostile, or no pictures
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


class BrokenImage(Exception):  # noqa: N818, it names the thing
    """A file that cannot be read as a picture.

    Attributes:
        path: The file.
        reason: Why, in a few words.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that it survives the way out of a worker
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


@contextlib.contextmanager
def large_pictures() -> Iterator[None]:
    """Lets Pillow read up to `MOST_PIXELS`, above its own limit, which scans and maps exceed."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # it warns from there on, and refuses twice as many
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read_image(path: str | Path) -> Image.Image:
    """Reads a picture as upright 8-bit RGB: of an animation the first frame, turned as its EXIF
    record says, transparency laid on white, 16 bits scaled to 8.

    Raises:
        BrokenImage: The file is missing, empty, truncated, or no picture.
    """
    return read_small_image(path, 0)[0]


def read_small_image(path: str | Path, side: int) -> tuple[Image.Image, tuple[int, int]]:
    """As `read_image`, but a JPEG with sides of `side` or more, 1/2, 1/4 or 1/8 of its own, where
    it has so many: it is decoded no further, which takes a sixth of the time at 12 megapixels.

    Args:
        path: The file.
        side: Pixels; 0 reads all of them.

    Returns:
        The picture, and the (H, W) that it has whole.

    Raises:
        BrokenImage: The file is missing, empty, truncated, or no picture.
    """
    try:
        with large_pictures(), Image.open(path) as image:
            whole = image.size
            if side and image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
                image.draft(image.mode, (side, side))
            read = image.size
            ImageOps.exif_transpose(image, in_place=True)
            turned = image.size != read
            return to_rgb(image), whole if turned else whole[::-1]
    except UNREADABLE as error:
        raise BrokenImage(str(path), reason(path, error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Turns any of Pillow's modes into 8-bit RGB.

    Raises:
        ValueError: Integer or float pixels outside the ranges 0..1, 0..255 and 0..65535.
    """
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode[0] in "IF":  # I;16, I;16B, I and F: numbers that convert("RGB") would clip
        image = scale_to_8_bit(np.asarray(image), sixteen_bit=image.mode.startswith("I;16"))
    if image.has_transparency_data:
        image.load()
        return lay_on_white(image)
    return image.convert("RGB")


def lay_on_white(image: Image.Image) -> Image.Image:
    """RGB, a band of rows at a time: whole, five pictures would be there at once."""
    page = Image.new("RGB", image.size)
    rows = max(1, AT_ONCE // max(1, image.width))
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        page.paste(Image.alpha_composite(white, band).convert("RGB"), (0, top))
    return page


def scale_to_8_bit(pixels: np.ndarray, *, sixteen_bit: bool) -> Image.Image:
    low, high = float(pixels.min()), float(pixels.max())
    if not 0 <= low <= high <= 65535:
        raise ValueError(f"pixels from {low:g} to {high:g} are neither 8- nor 16-bit")
    factor = 1.0
    if sixteen_bit or high > 255:
        factor = 1 / 257
    elif pixels.dtype.kind == "f" and high <= 1:
        factor = 255.0
    scaled = np.empty(pixels.shape, np.uint8)
    rows = max(1, AT_ONCE // max(1, pixels.shape[1]))
    for top in range(0, len(pixels), rows):
        band = pixels[top : top + rows].astype(np.float64)
        scaled[top : top + rows] = np.round(band * factor)
    return Image.fromarray(scaled)


def reason(path: str | Path, error: Exception) -> str:
    if not os.path.isfile(path):  # noqa: PTH113, unlike Path's it never raises
        return "no such file"
    if Path(path).stat().st_size == 0:
        return "empty file"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that Pillow can read"
    return one_line(error)
