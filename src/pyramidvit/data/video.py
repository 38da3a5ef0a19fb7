"""Videos as pictures that come one after the other, of which one at a time is held.

Animated GIFs go through Pillow, everything else through PyAV, which is an extra: torchvision reads
no videos since 0.28.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ..errors import UserError, one_line
from .images import UNREADABLE, BrokenImage, reason, to_rgb

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv"})
SLOWEST = Fraction(1, 1001)  # pictures a second that a video file can have
USUAL_RATE = Fraction(25)  # of a file that names none
USUAL_DELAY = 0.1  # seconds, for frames of a GIF that name less than a screen can show


class Frame(NamedTuple):
    """A picture of a video."""

    number: int  # from 0
    time: float  # seconds from the start
    duration: float  # seconds
    picture: Image.Image  # upright RGB


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A video file.

    Attributes:
        path: The file.
        rate: Frames a second, the mean where it varies.
        count: Frames as the file says, 0 where it does not.
    """

    path: Path
    rate: Fraction
    count: int

    @property
    def is_gif(self) -> bool:
        return self.path.suffix.lower() == ".gif"


def is_video(path: Path) -> bool:
    """Whether a file is to be read frame by frame: by its name, and of a GIF by its content."""
    suffix = path.suffix.lower()
    if suffix != ".gif":
        return suffix in SUFFIXES
    try:
        with Image.open(path) as image:
            return bool(getattr(image, "is_animated", False))
    except UNREADABLE:
        return False


def check_reader(videos: Sequence[Path]) -> None:
    """Refuses videos that cannot be read here, before any work is done.

    Raises:
        UserError: There are others than GIFs, and PyAV is not installed.
    """
    others = [path for path in videos if path.suffix.lower() != ".gif"]
    if others:
        try:
            import av  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"{others[0]} is a video, and reading it needs PyAV: pip install"
                " 'pyramidvit[video]'"
            ) from error


def open_clip(path: Path) -> Clip:
    """What a file says of itself.

    Raises:
        BrokenImage: It cannot be read, or has no pictures.
    """
    if path.suffix.lower() == ".gif":
        with broken_as(path), Image.open(path) as image:
            return Clip(path=path, rate=USUAL_RATE, count=getattr(image, "n_frames", 1))
    import av

    with broken_as(path), av.open(str(path)) as container:
        stream = first_stream(container)
        rate = stream.average_rate or stream.guessed_rate or USUAL_RATE
        rate = max(rate.limit_denominator(1001), SLOWEST)
        return Clip(path=path, rate=rate, count=stream.frames)


def read_frames(clip: Clip) -> Iterator[Frame]:
    """The frames in their order.

    Raises:
        BrokenImage: The file is damaged; the frames before the damage have come then.
    """
    frames = read_gif(clip) if clip.is_gif else read_stream(clip)
    with broken_as(clip.path):
        yield from frames


def read_gif(clip: Clip) -> Iterator[Frame]:
    time = 0.0
    with Image.open(clip.path) as image:
        for number in range(clip.count):
            image.seek(number)
            delay = image.info.get("duration", 0) / 1000
            duration = delay if delay > 0.01 else USUAL_DELAY
            yield Frame(number, time, duration, to_rgb(image.copy()))
            time += duration


def read_stream(clip: Clip) -> Iterator[Frame]:
    import av

    with av.open(str(clip.path)) as container:
        stream = first_stream(container)
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            time = float(number / clip.rate) if frame.time is None else frame.time
            picture = frame.to_image().convert("RGB")
            turn = getattr(frame, "rotation", 0)  # counter-clockwise, as a phone was held
            if turn:
                picture = picture.rotate(turn, expand=True)
            yield Frame(number, time, float(1 / clip.rate), picture)


def first_stream(container: Any) -> Any:
    if not container.streams.video:
        raise ValueError("no pictures in it")
    return container.streams.video[0]


@contextlib.contextmanager
def broken_as(path: Path) -> Iterator[None]:
    """Turns what readers raise on damaged files into `BrokenImage`."""
    errors: tuple[type[Exception], ...] = (*UNREADABLE, *av_errors())
    try:
        yield
    except errors as error:
        own = path.suffix.lower() == ".gif" or not path.is_file() or not path.stat().st_size
        raise BrokenImage(str(path), reason(path, error) if own else plain(error)) from error


def av_errors() -> tuple[type[Exception], ...]:
    """What PyAV raises beside Python's own errors; nothing where it is not installed."""
    try:
        from av.error import FFmpegError
    except ImportError:
        return ()
    return (FFmpegError,)


def plain(error: Exception) -> str:
    """PyAV's message without its number and the file's name."""
    return getattr(error, "strerror", None) or one_line(error)
