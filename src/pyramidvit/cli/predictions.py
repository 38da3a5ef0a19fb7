"""What `pvt predict` writes: a JSON line a picture or frame, drawings, videos, result files.

All of it grows with the pictures, on the disk alone; a file that is there is whole, whenever the
command is killed.
"""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL.Image import Image

from ..data.images import BrokenImage, read_image
from ..data.video import Clip, Frame
from ..data.video_output import write_video
from ..engine.predict import Answer
from ..engine.report import Reporter
from ..files import write_atomically
from ..structures import Origin
from .tasks import Opened

JPEG_SIDE = 65_500  # pixels that a side may have at most in a JPEG file
SAID_EVERY = 100  # frames of a video, so that a log shows that it goes on


class PredictionFolder:
    """A folder that predictions are written into while its `with` lasts.

    Args:
        folder: Must exist.
        opened: What predicts.
        draw: Whether pictures and videos are drawn.
        formats: Names of the task's result files that are wanted.
        reporter: Is told every answer.
    """

    def __init__(
        self,
        folder: Path,
        opened: Opened,
        *,
        draw: bool,
        formats: tuple[str, ...],
        reporter: Reporter,
    ) -> None:
        self.folder, self.opened, self.draw, self.reporter = folder, opened, draw, reporter
        self.done = self.failed = 0
        self.written: list[Path] = [folder / "results.jsonl"]
        self.taken: Counter[str] = Counter()  # names of drawings, without their numbers
        self.lines = self.written[0].open("wb", buffering=0)  # a line is one write
        open_results = opened.task.open_results
        self.results = (
            open_results(folder, opened.classes, formats) if formats and open_results else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.lines.close()
        if self.results is not None and kind is None and self.done:
            self.written += self.results.close()

    def add(self, answer: Answer | BrokenImage) -> None:
        """Takes what is said of a picture, or why it could not be read."""
        if isinstance(answer, BrokenImage):
            self.add_broken(answer)
            return
        name = answer.origin.name
        record = {"file": name, **self.describe(answer)}
        self.reporter.say("", f"{name}   {self.opened.task.summarise(record)}")
        if "note" in record:
            self.reporter.say("note", record["note"])
        if self.draw:
            try:
                record["picture"] = self.draw_picture(answer)
            except BrokenImage as error:  # gone or changed since it was read
                self.reporter.say("not drawn", str(error))
        self.write(record)
        self.done += 1

    def add_broken(self, error: BrokenImage) -> None:
        self.failed += 1
        self.reporter.say("skipped", str(error))
        self.write({"file": error.path, "error": error.reason})

    def add_video(
        self,
        clip: Clip,
        frames: Iterable[tuple[Frame, Any]],
        show_place: Callable[[str], None] = lambda place: None,
    ) -> None:
        """Takes the frames of a video with their predictions.

        `show_place` is told after each how far it is, and now and then the reporter is.
        """
        name, count = str(clip.path), 0
        of = f" of {clip.count}" if clip.count else ""
        path = self.free_path(clip.path.stem, ".gif" if clip.is_gif else ".mp4")
        draw = self.opened.task.draw_frame or self.opened.task.draw
        with write_video(path, clip.rate) as show:
            for frame, prediction in frames:
                picture = frame.picture
                place = Origin(name=f"{name}#{frame.number}", size=(picture.height, picture.width))
                record = {"file": name, "frame": frame.number, "time": round(frame.time, 4)}
                record |= self.describe(Answer(place, prediction))
                if self.draw:
                    show(draw(picture, prediction, self.opened.classes), frame.duration)
                    record["video"] = path.name
                self.write(record)
                count += 1
                show_place(f"{clip.path.name} frame {count}{of}")
                if count % SAID_EVERY == 0 and count != clip.count:
                    self.reporter.say("", f"{name}   {count}{of} frames so far")
        if count:
            self.done += 1
            self.reporter.say("", f"{name}   {count} frames")

    def describe(self, answer: Answer) -> dict[str, Any]:
        record = self.opened.task.describe(answer.prediction, self.opened.classes)
        if self.results is not None:
            record = {**record, **self.results.add(answer.origin, answer.prediction)}
        return record

    def write(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False) + "\n"
        self.lines.write(line.encode("utf-8", "backslashreplace"))

    def paint(self, picture: Image, prediction: Any) -> Image:
        """A picture with its prediction drawn in."""
        return self.opened.task.draw(picture, prediction, self.opened.classes)

    def draw_picture(self, answer: Answer) -> str:
        """Writes a picture with its prediction, as JPEG if it can be; returns the file's name."""
        name = answer.origin.name
        picture = answer.drawn or self.paint(read_image(name), answer.prediction)
        suffix = ".jpg" if max(picture.size) <= JPEG_SIDE else ".png"
        path = self.free_path(Path(name).stem, suffix)
        save_picture(picture, path)
        return path.name

    def free_path(self, stem: str, suffix: str) -> Path:
        """A path that nothing has: pictures from different folders may have one name."""
        while True:
            self.taken[stem + suffix] += 1
            number = self.taken[stem + suffix]
            path = self.folder / (f"{stem}-{number}{suffix}" if number > 1 else stem + suffix)
            if not path.exists():
                return path


def save_picture(picture: Image, path: Path) -> None:
    content = io.BytesIO()
    if path.suffix == ".jpg":
        picture.save(content, format="jpeg", quality=92)
    else:
        picture.save(content, format="png")
    write_atomically(path, content.getvalue())
