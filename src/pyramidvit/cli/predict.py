"""`pvt predict`: answers for pictures and videos, into JSON lines, drawings and result files."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from ..errors import UserError
from ..options import require
from . import VERBS
from .arguments import build_parser, parse, tiling_of, to_options

if TYPE_CHECKING:
    from pathlib import Path

    from lightning_fabric import Fabric
    from PIL.Image import Image

    from ..data.image_folder import FileSource
    from ..data.images import BrokenImage
    from ..data.video import Clip, Frame
    from ..engine.predict import Answer
    from ..task import Task, Tiling
    from .predictions import PredictionFolder
    from .tasks import Opened

    Ask = Callable[[Iterable[Frame]], Iterator[tuple[Frame, Any]]]

MOST_AT_ONCE = 16  # so that the first answers come soon

DESCRIPTION = """Classifies pictures, finds objects in them, or labels their pixels: files, folders
(with all below them), quoted patterns, and videos. Writes results.jsonl, a line a picture or frame,
the pictures and videos with what was found drawn in, and the files of --formats."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of a prediction.

    Args:
        model: Name of the model, for a checkpoint that does not say it.
        draw: Draws the pictures with their predictions.
        formats: Result files beside the JSON lines, with commas between their names; "auto" takes
            the task's first one, if it has any, and "none" no one.
        tile: Side in pixels of windows that large pictures are cut into, so that small objects
            are found; 0 looks at pictures whole.
        overlap: Share of a window that its neighbours show too.
        batch_size: Pictures a step; 0 takes what suits the task.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "float32", or "bf16" for mixed precision.
        optimize: How the model runs on a CPU: "none" as written; "packed" with weights packed
            once; "compiled" or "openvino" for classifiers; "auto" what pays for so many pictures.
            But with "none", a classifier's JPEG files are decoded no further than it looks.
        workers: Picture-reading processes; -1 decides by the machine.
        output: Folder to create for the results; without it,
            predictions/predictions-<number>.
    """

    model: str | None = None
    draw: bool = True
    formats: str = "auto"
    tile: int = 0
    overlap: float = 0.25
    batch_size: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    optimize: Literal["auto", "none", "packed", "compiled", "openvino"] = "auto"
    workers: int = -1
    output: str | None = None


def run(arguments: list[str]) -> None:
    parsed = parse(make_parser(), arguments)
    predict(parsed.checkpoint, parsed.images, to_options(PredictOptions, parsed))


def make_parser() -> ArgumentParser:
    parser = build_parser("predict", DESCRIPTION, VERBS["predict"].example)
    parser.add_argument("checkpoint", type=str, help="Checkpoint file.")
    parser.add_argument("images", type=str, nargs="+", help="Files, folders, patterns.")
    parser.add_class_arguments(PredictOptions, None)
    return parser


def predict(checkpoint: str, images: list[str], options: PredictOptions) -> "Path":
    """Predicts; returns the folder of the results.

    Raises:
        UserError: The checkpoint cannot be used, a place does not exist, no picture can be read, or
            the task cannot do what is asked for.
    """
    from ..data.picture_list import list_media
    from ..data.video import check_reader
    from ..engine.device import build_fabric, keep_freed_memory
    from ..engine.folders import check_output, make_folder
    from ..engine.report import Reporter
    from .predictions import PredictionFolder
    from .speed import read_less, say_choice, speed_up
    from .tasks import note_windows, open_checkpoint

    require(options, "batch_size", options.batch_size >= 0, "0 or more")
    pictures, videos = list_media(images)
    check_reader(videos)
    check_output(options.output)
    opened = open_checkpoint(checkpoint, options.model)
    tiling = tiling_of(opened.task, options)
    formats = choose_formats(opened.task, options.formats)
    keep_freed_memory()
    fabric = build_fabric(options.device, 1, options.precision)
    opened.model.to(fabric.device)
    pictures = read_less(pictures, opened, options.optimize)
    opened = speed_up(
        opened,
        options.optimize,
        options.precision,
        images=len(pictures),
        batch=batch_of(opened, options),
    )
    reporter = Reporter()
    note_windows(opened, options.tile, reporter)
    say_choice(opened, reporter)
    folder = make_folder(options.output, "predictions", "predictions")
    writer = PredictionFolder(folder, opened, draw=options.draw, formats=formats, reporter=reporter)
    ask = functools.partial(ask_frames, fabric, opened, options, tiling)
    with writer, reporter.progress("predict", len(pictures) + len(videos)) as bar:
        draw = writer.paint if options.draw else None
        for answer in ask_pictures(fabric, opened, options, tiling, pictures, draw):
            writer.add(answer)
            bar.advance()
        for number, path in enumerate(videos, start=len(pictures)):
            add_video(path, ask, writer, functools.partial(bar.advance, to=number))
            bar.advance()
    if not writer.done:
        raise UserError(
            f"none of the {writer.failed} images could be read; reasons in {writer.written[0]}"
        )
    files = " ".join(path.name for path in writer.written)
    skipped = f" ({writer.failed} skipped)" if writer.failed else ""
    reporter.say("see", f"{folder}: {'pictures and ' * options.draw}{files}{skipped}")
    return folder


def choose_formats(task: "Task", wanted: str) -> tuple[str, ...]:
    """The task's result files that are meant.

    Raises:
        UserError: It has none of that name.
    """
    if wanted == "auto":
        return task.formats[:1]
    names = tuple(dict.fromkeys(name.strip() for name in wanted.split(",")))
    if names == ("none",):
        return ()
    if not task.formats:
        raise UserError(f"--formats {wanted}: {task.name} writes results.jsonl alone; leave it out")
    for name in names:
        if name not in task.formats:
            known = ", ".join(task.formats)
            raise UserError(f"--formats must be auto, none, or some of {known}, got {name!r}")
    return names


def batch_of(opened: "Opened", options: PredictOptions) -> int:
    """Pictures or frames at a time."""
    return options.batch_size or min(MOST_AT_ONCE, opened.task.at_once)


def ask_pictures(
    fabric: "Fabric",
    opened: "Opened",
    options: PredictOptions,
    tiling: "Tiling | None",
    pictures: "FileSource",
    draw: "Callable[[Any, Any], Image] | None",
) -> "Iterator[Answer | BrokenImage]":
    """What the model says of each picture."""
    from ..engine.device import reading_processes
    from ..engine.predict import predict_pictures

    return predict_pictures(
        fabric,
        opened.task,
        opened.model,
        pictures,
        opened.input_record,
        batch_size=batch_of(opened, options),
        workers=reading_processes(options.workers, in_memory=len(pictures) < 32, ranks=1),
        tiling=tiling,
        draw=draw,
    )


def ask_frames(
    fabric: "Fabric",
    opened: "Opened",
    options: PredictOptions,
    tiling: "Tiling | None",
    frames: "Iterable[Frame]",
) -> "Iterator[tuple[Frame, Any]]":
    """What the model says of each frame."""
    from ..engine.predict import predict_frames

    return predict_frames(
        fabric,
        opened.task,
        opened.model,
        frames,
        opened.input_record,
        batch_size=batch_of(opened, options),
        tiling=tiling,
    )


def add_video(
    path: "Path", ask: "Ask", writer: "PredictionFolder", show_place: "Callable[[str], None]"
) -> None:
    """Predicts the frames of a video; damage inside ends it, and what came before is kept."""
    from ..data.images import BrokenImage
    from ..data.video import open_clip, read_frames

    damage: list[BrokenImage] = []

    def whole_frames(clip: "Clip") -> "Iterator[Frame]":
        try:
            yield from read_frames(clip)
        except BrokenImage as error:
            damage.append(error)

    try:
        clip = open_clip(path)
        writer.add_video(clip, ask(whole_frames(clip)), show_place)
    except BrokenImage as error:
        damage.append(error)
    for each in damage:
        writer.add_broken(each)
