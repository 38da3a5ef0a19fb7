"""`pvt predict`: classifies pictures, into JSON lines and drawn pictures."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from ..errors import UserError
from ..options import require
from . import VERBS
from .arguments import build_parser, parse, to_options

if TYPE_CHECKING:
    from pathlib import Path

DESCRIPTION = """Classifies pictures, or finds objects in them: files, folders (with all below
them) and quoted patterns. Writes results.jsonl, a line a picture, and the pictures with what was
found drawn in or below them."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of a prediction.

    Args:
        model: Name of the model, for a checkpoint that does not say it.
        draw: Draws the pictures with their predictions.
        batch_size: Pictures a step.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "float32", or "bf16" for mixed precision.
        workers: Picture-reading processes; -1 decides by the machine.
        output: Folder to create for the results; without it,
            predictions/predictions-<number>.
    """

    model: str | None = None
    draw: bool = True
    batch_size: int = 16
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"
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
        UserError: The checkpoint cannot be used, a place does not exist, no picture can be read.
    """
    from ..data.images import BrokenImage
    from ..data.picture_list import list_pictures
    from ..engine.device import build_fabric, reading_processes
    from ..engine.folders import check_output, make_folder
    from ..engine.predict import predict as predictions_of
    from ..engine.report import Reporter
    from .tasks import open_checkpoint

    require(options, "batch_size", options.batch_size >= 1, "1 or more")
    source = list_pictures(images)
    check_output(options.output)
    opened = open_checkpoint(checkpoint, options.model)
    fabric = build_fabric(options.device, 1, options.precision)
    opened.model.to(fabric.device)
    workers = reading_processes(options.workers, in_memory=len(source) < 32, ranks=1)
    results = predictions_of(
        fabric,
        opened.task,
        opened.model,
        source,
        opened.input_record,
        batch_size=options.batch_size,
        workers=workers,
    )
    reporter = Reporter()
    folder = make_folder(options.output, "predictions", "predictions")
    failed = 0
    with (
        (folder / "results.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as file,
        reporter.progress("predict", len(source)) as bar,
    ):
        for name, result in results:
            bar.advance()
            record: dict[str, Any] = {"file": name}
            if isinstance(result, BrokenImage):
                failed += 1
                record["error"] = result.reason
                reporter.say("skipped", str(result))
            else:
                record |= opened.task.describe(result, opened.classes)
                reporter.say("", f"{name}   {opened.task.summarise(record)}")
                if options.draw:
                    record["picture"] = draw_one(name, result, opened, folder)
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
    if failed == len(source):
        raise UserError(f"none of the {failed} images could be read; reasons in {file.name}")
    what = "pictures and results.jsonl" if options.draw else "results.jsonl"
    reporter.say("see", f"{folder}: {what}" + (f" ({failed} skipped)" if failed else ""))
    return folder


def draw_one(name: str, prediction: Any, opened: Any, folder: "Path") -> str:
    """Draws a prediction on its picture and writes it; returns the new file's name."""
    from pathlib import Path

    from ..data.images import read_image

    picture = opened.task.draw(read_image(name), prediction, opened.classes)
    stem, number = Path(name).stem, 1
    path = folder / f"{stem}.jpg"
    while path.exists():  # pictures of one name from different folders
        number += 1
        path = folder / f"{stem}-{number}.jpg"
    picture.save(path, quality=92)
    return path.name
