"""Pictures written as a video, one at a time: GIFs by hand, since Pillow collects all frames before
it writes the first, and everything else through PyAV."""

import contextlib
import io
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import UserError, one_line
from .video import av_errors

Add = Callable[[Image.Image, float], None]  # a picture, and for how many seconds it is shown
LOOP = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"  # for ever


@contextlib.contextmanager
def write_video(path: Path, rate: Fraction) -> Iterator[Add]:
    """Gives a function that adds a picture; the file appears, whole, at the end of the `with`.

    After an exception, and if nothing is added, there is no file. All pictures get the size of the
    first one, in an mp4 made even.

    Args:
        path: A `.gif`, or an `.mp4`.
        rate: Pictures a second of an mp4; those of a GIF bring their own times.

    Raises:
        UserError: The disk is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    errors: tuple[type[Exception], ...] = (OSError, *av_errors())
    try:
        with write_gif(partial) if path.suffix == ".gif" else write_mp4(partial, rate) as add:
            yield add
        if partial.exists() and partial.stat().st_size:
            partial.replace(path)
    except errors as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"cannot write {path}: {reason}") from error
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def write_mp4(path: Path, rate: Fraction) -> Iterator[Add]:
    import av

    with av.open(str(path), "w", format="mp4") as container:
        started: list[Any] = []

        def add(picture: Image.Image, duration: float) -> None:
            if not started:
                started.append(start_stream(container, rate, picture.size))
            stream = started[0]
            frame = av.VideoFrame.from_image(fit(picture, (stream.width, stream.height)))
            container.mux(stream.encode(frame))

        yield add
        for stream in started:
            container.mux(stream.encode(None))


def start_stream(container: Any, rate: Fraction, size: tuple[int, int]) -> Any:
    """A stream of H.264 where PyAV has an encoder for it, for pictures of (width, height)."""
    import av

    codec, options = "mpeg4", {"qscale": "3"}
    if "libx264" in av.codecs_available:
        codec, options = "libx264", {"crf": "20"}
    stream = container.add_stream(codec, rate=rate, options=options)
    stream.width, stream.height = (side + side % 2 for side in size)  # colours are halved
    stream.pix_fmt = "yuv420p"
    return stream


@contextlib.contextmanager
def write_gif(path: Path) -> Iterator[Add]:
    with path.open("wb") as file:
        sizes: list[tuple[int, int]] = []

        def add(picture: Image.Image, duration: float) -> None:
            if not sizes:
                sizes.append(picture.size)
                file.write(b"GIF89a" + struct.pack("<HHBBB", *picture.size, 0x70, 0, 0) + LOOP)
            file.write(gif_frame(fit(picture, sizes[0]), duration))

        yield add
        if sizes:
            file.write(b";")


def gif_frame(picture: Image.Image, duration: float) -> bytes:
    """A picture as a part of a GIF, with colours of its own.

    Pillow's file of one picture has the same parts: the colours in front for all pictures, the
    picture's place (10 bytes), and its pixels, packed.
    """
    content = io.BytesIO()
    picture.quantize(256).save(content, format="gif")
    whole = content.getvalue()
    bits = whole[10] & 7  # 2 ** (bits + 1) colours
    start = 13 + (3 << (bits + 1))
    colours = whole[13:start]
    while whole[start] == 0x21:  # a note on the picture: its parts each begin with their lengths
        start += 2
        while whole[start]:
            start += 1 + whole[start]
        start += 1
    flags = whole[start + 9] & 0x40 | 0x80 | bits  # lines in the same order, colours of its own
    time = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, 4, min(65535, round(100 * duration)), 0, 0)
    pixels = whole[start + 10 :].removesuffix(b";")
    return time + whole[start : start + 9] + bytes([flags]) + colours + pixels


def fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at (width, height): a drawing may be larger than the one before."""
    return picture if picture.size == size else picture.resize(size)
