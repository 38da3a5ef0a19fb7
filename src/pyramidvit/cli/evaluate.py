"""`pvt evaluate`: scores a checkpoint on every image of a data set exactly once."""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser

from ..errors import UserError
from ..options import require
from . import VERBS
from .arguments import build_parser, parse, to_options

if TYPE_CHECKING:
    from pathlib import Path

    from ..data.source import DataSet
    from .tasks import Opened

DESCRIPTION = """Scores a checkpoint. A classifier: top-1, top-5, accuracy of each class, confusion
matrix. A detector: COCO's and PASCAL VOC's average precision, and per class."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of an evaluation.

    Args:
        data: Folder of the data; without it, the data that the checkpoint was trained on.
        split: Part of the data; "auto" takes its validation part, or all of a folder without
            parts that the checkpoint was not trained on.
        model: Name of the model, for a checkpoint that does not say it.
        batch_size: Images a step.
        device: "auto", "cpu", "cuda" or "mps".
        devices: Processes on this machine, one a device; torchrun's count wins.
        precision: "float32", or "bf16" for mixed precision.
        workers: Image-reading processes; -1 decides by the machine.
        max_broken: Share of unreadable images that is left out before the evaluation is refused.
        output: Folder to create for the results; without it, evaluations/<checkpoint>-<number>.
    """

    data: str | None = None
    split: Literal["auto", "train", "validation", "all"] = "auto"
    model: str | None = None
    batch_size: int = 64
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    precision: Literal["float32", "bf16"] = "float32"
    workers: int = -1
    max_broken: float = 0.05
    output: str | None = None


def run(arguments: list[str]) -> None:
    parsed = parse(make_parser(), arguments)
    evaluate(parsed.checkpoint, to_options(EvaluateOptions, parsed))


def make_parser() -> ArgumentParser:
    parser = build_parser("evaluate", DESCRIPTION, VERBS["evaluate"].example)
    parser.add_argument("checkpoint", type=str, help="Checkpoint file.")
    parser.add_class_arguments(EvaluateOptions, None)
    return parser


def evaluate(checkpoint: str, options: EvaluateOptions) -> "Path":
    """Evaluates; returns the folder of the results.

    Raises:
        UserError: Checkpoint or data cannot be used, or do not belong together.
    """
    from pathlib import Path

    from ..engine.broken import BrokenImages
    from ..engine.device import build_fabric, reading_processes
    from ..engine.evaluate import evaluate as score
    from ..engine.folders import check_output, make_folder
    from ..engine.plots import draw_page
    from ..engine.report import Reporter
    from ..files import write_atomically
    from .tasks import open_checkpoint

    require(options, "batch_size", options.batch_size >= 1, "1 or more")
    require(options, "devices", options.devices >= 1, "1 or more")

    check_output(options.output)
    opened = open_checkpoint(checkpoint, options.model)
    data = find_data(opened, options)
    split = pick_split(opened, data, options)
    source = data.splits[split]
    fabric = build_fabric(options.device, options.devices, options.precision)
    reporter = Reporter(speaks=fabric.is_global_zero)
    reporter.say("data", f"{data.summary}; scored: {split}, {len(source)} images")
    opened.model.to(fabric.device)
    workers = reading_processes(options.workers, in_memory=data.in_memory, ranks=fabric.world_size)
    result = score(
        fabric,
        opened.task,
        opened.model,
        source,
        opened.classes,
        opened.input_record,
        batch_size=options.batch_size,
        workers=workers,
        reporter=reporter,
        broken=BrokenImages(reporter, len(source), options.max_broken),
        show=opened.task.shown,
    )
    folder = Path()
    if fabric.is_global_zero:
        stem = f"{Path(checkpoint).resolve().parent.name}-{Path(checkpoint).stem}"
        folder = make_folder(options.output, "evaluations", stem)
        resolved = {"checkpoint": checkpoint, "data": data.summary, "split": split}
        record = {**asdict(options), **resolved, **result.figures}
        write_atomically(folder / "metrics.json", json.dumps(record, indent=2) + "\n")
        opened.task.report(result.metrics, opened.classes, folder)
        title = f"{split} images, {opened.task.headline(result.figures)}"
        draw_page(result.shown, title, folder / "predictions.png")
    for name, value in result.figures.items():
        reporter.say(name, f"{value:.0f}" if name == "images" else f"{value:.4f}")
    reporter.say("see", f"{folder}: metrics.json per_class.csv confusion.png predictions.png")
    return folder


def find_data(opened: "Opened", options: EvaluateOptions) -> "DataSet":
    """The data to score on, with labels numbered as the checkpoint's."""
    from .tasks import load_data

    trained = opened.trained_on
    if options.data is None and trained is None:
        raise UserError("--data is needed: this checkpoint does not say what it was trained on")
    data = load_data(
        opened.task.name,
        options.data or (trained.data if trained else None),
        seed=trained.seed if trained else 0,
        held_out=trained.held_out if trained else 0.2,
        classes=opened.classes if opened.named else None,
    )
    if len(data.classes) != len(opened.classes):
        raise UserError(
            f"the checkpoint has {len(opened.classes)} classes, {data.name} has"
            f" {len(data.classes)}: they do not belong together"
        )
    if opened.named and data.classes.names != opened.classes.names:
        raise UserError(
            f"the checkpoint's classes ({opened.classes.names[0]}, {opened.classes.names[1]}, ...)"
            f" are not those of {data.name} ({data.classes.names[0]}, {data.classes.names[1]}, ...)"
        )
    return data


def pick_split(opened: "Opened", data: "DataSet", options: EvaluateOptions) -> str:
    """Which part to score; what the model was trained on is never scored unasked."""
    split: str = options.split
    if split == "auto":
        trained_on = opened.trained_on.data if opened.trained_on else None
        same = options.data is None or (
            trained_on is not None and same_place(trained_on, options.data)
        )
        split = "all" if "all" in data.splits and not same else "validation"
    if split not in data.splits:
        raise UserError(f"{data.name} has no split {split}; it has {', '.join(data.splits)}")
    return split


def same_place(a: str, b: str) -> bool:
    from pathlib import Path

    return Path(a).resolve() == Path(b).resolve()
