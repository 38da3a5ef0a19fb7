"""`pvt evaluate`: scores a checkpoint on every image of a data set exactly once."""

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from ..errors import UserError
from ..options import require
from . import VERBS
from .arguments import build_parser, parse, tiling_of, to_options

if TYPE_CHECKING:
    from pathlib import Path

    from ..data.source import DataSet
    from ..engine.evaluate import Evaluation
    from .tasks import Opened

DESCRIPTION = """Scores a checkpoint. A classifier: top-1, top-5, accuracy of each class, confusion
matrix. A detector: COCO's and PASCAL VOC's average precision, and per class. A segmenter: mean
IoU, accuracy, boundary IoU, and per class."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of an evaluation.

    Args:
        data: Folder of the data; without it, the data that the checkpoint was trained on.
        split: Part of the data; "auto" takes its validation part, or all of a folder without
            parts that the checkpoint was not trained on.
        model: Name of the model, for a checkpoint that does not say it.
        tile: Side in pixels of windows that large images are cut into, so that small objects are
            found; 0 looks at images whole.
        overlap: Share of a window of `tile` that its neighbours show too.
        max_detections: Detections of an image that count, at most; 0 takes what the run was trained
            to count, else the detector's own limit and COCO's 100. For images with more objects.
        window: Side in pixels of windows that a prepared image is segmented in, averaging where
            they overlap; 0 takes it whole.
        window_overlap: Share of a `window` that its neighbours show too.
        scales: Sizes, as shares of the usual one's, whose segmentations are averaged, one image at
            a time; each is made from the file.
        flip: Averages with the segmentations of the mirrored images.
        batch_size: Images a step; 0 takes what suits the task.
        device: "auto", "cpu", "cuda" or "mps".
        devices: Processes on this machine, one a device; torchrun's count wins.
        precision: "float32", or "bf16" for mixed precision.
        optimize: How the model runs on a CPU: "none" as written, which gives the figures of the
            training to the last digit; "packed" with weights packed once; "compiled" or "openvino"
            for classifiers; "auto" what pays for so many images.
        workers: Image-reading processes; -1 decides by the machine.
        max_broken: Share of unreadable images that is left out before the evaluation is refused.
        output: Folder to create for the results; without it, evaluations/<checkpoint>-<number>.
    """

    data: str | None = None
    split: Literal["auto", "train", "validation", "test", "all"] = "auto"
    model: str | None = None
    tile: int = 0
    overlap: float = 0.25
    max_detections: int = 0
    window: int = 0
    window_overlap: float = 1 / 3
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    batch_size: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    precision: Literal["float32", "bf16"] = "float32"
    optimize: Literal["auto", "none", "packed", "compiled", "openvino"] = "none"
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
        UserError: Checkpoint or data cannot be used, or do not belong together, or the task cannot
            do what is asked for.
    """
    from pathlib import Path

    from ..engine.broken import BrokenImages
    from ..engine.device import build_fabric, keep_freed_memory, reading_processes
    from ..engine.evaluate import evaluate as score
    from ..engine.folders import check_output
    from ..engine.report import Reporter
    from .speed import say_choice, speed_up
    from .tasks import note_windows, open_checkpoint

    require(options, "batch_size", options.batch_size >= 0, "0 or more")
    require(options, "devices", options.devices >= 1, "1 or more")
    require(options, "max_detections", options.max_detections >= 0, "0 or more")

    check_output(options.output)
    opened = look_as_asked(open_checkpoint(checkpoint, options.model), options)
    tiling = tiling_of(opened.task, options)
    data = find_data(opened, options)
    opened = replace(opened, classes=data.classes)  # with the data's own ids
    split = pick_split(opened, data, options)
    source = data.splits[split]
    keep_freed_memory()
    fabric = build_fabric(options.device, options.devices, options.precision)
    reporter = Reporter(speaks=fabric.is_global_zero)
    reporter.say("data", f"{data.summary}; scored: {split}, {len(source)} images")
    note_windows(opened, options.tile, reporter)
    opened.model.to(fabric.device)
    batch_size = options.batch_size or opened.task.at_once
    opened = speed_up(
        opened, options.optimize, options.precision, images=len(source), batch=batch_size
    )
    say_choice(opened, reporter)
    workers = reading_processes(options.workers, in_memory=data.in_memory, ranks=fabric.world_size)
    result = score(
        fabric,
        opened.task,
        opened.model,
        source,
        opened.classes,
        opened.input_record,
        batch_size=batch_size,
        workers=workers,
        reporter=reporter,
        broken=BrokenImages(reporter, len(source), options.max_broken),
        show=opened.task.shown,
        tiling=tiling,
        scales=options.scales,
    )
    folder, files = Path(), ""
    if fabric.is_global_zero:
        resolved = {"checkpoint": checkpoint, "data": data.summary, "split": split}
        record = {**asdict(options), **resolved, **result.figures}
        folder, files = write_results(checkpoint, opened, record, result)
    for name, value in result.figures.items():
        reporter.say(name, f"{value:.0f}" if name == "images" else f"{value:.4f}")
    reporter.say("see", f"{folder}: {files}")
    return folder


def look_as_asked(opened: "Opened", options: EvaluateOptions) -> "Opened":
    """The checkpoint with more detections an image, or a network that looks several times.

    Raises:
        UserError: A number out of range, or the task cannot.
    """
    from ..task import Looks
    from ..tasks.detection.task import with_limit

    task, model = opened.task, opened.model
    if options.max_detections and task.name != "detection":
        raise UserError(f"--max_detections: {task.name} detects nothing; leave it out")
    trained = opened.trained_on.max_detections if opened.trained_on else 0
    most = options.max_detections or trained
    if most and task.name == "detection":
        task = with_limit(task, model, most)
    require(options, "window", options.window == 0 or options.window >= 32, "0, or 32 or more")
    require(options, "window_overlap", 0 <= options.window_overlap <= 0.9, "from 0 to 0.9")
    scales = bool(options.scales) and all(0 < scale <= 8 for scale in options.scales)
    require(options, "scales", scales, "numbers from above 0 to 8, such as [0.5, 1.0]")
    looks = Looks(
        window=options.window,
        overlap=options.window_overlap,
        scales=options.scales if options.tile else (1.0,),  # else by the engine, from the files
        flip=options.flip,
    )
    if looks != Looks() or options.scales != (1.0,):
        if task.look_again is None:
            what = "--window, --window_overlap, --scales, --flip"
            raise UserError(f"{what}: {task.name} looks once; leave them out")
        model = task.look_again(model, looks).eval()
    return replace(opened, task=task, model=model)


def write_results(
    checkpoint: str, opened: "Opened", record: dict[str, Any], result: "Evaluation"
) -> "tuple[Path, str]":
    """Writes figures, tables and pictures; returns their folder, and their names in a row."""
    from pathlib import Path

    from ..engine.folders import make_folder
    from ..engine.plots import draw_page
    from ..files import write_atomically
    from ..tasks.detection import metrics as detection

    stem = f"{Path(checkpoint).resolve().parent.name}-{Path(checkpoint).stem}"
    folder = make_folder(record["output"], "evaluations", stem)
    numbers = {name: None if value != value else value for name, value in record.items()}  # NaN
    write_atomically(folder / "metrics.json", json.dumps(numbers, indent=2) + "\n")
    written = opened.task.report(result.metrics, opened.classes, folder)
    if isinstance(result.metrics, detection.DetectionMetrics):
        written += detection.write_results(result.metrics, opened.classes, folder)
    title = f"{record['split']} images, {opened.task.headline(result.figures)}"
    draw_page(result.shown, title, folder / "predictions.png")
    names = ("metrics.json", *(path.name for path in written), "predictions.png")
    return folder, " ".join(names)


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
