"""The work of `pvt sweep`: measuring at every size, scoring, and the knee."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from ..costs.clock import Seconds, Spread, peak_memory, spread, time_calls, waiter
from ..costs.turns import one_process, settings
from ..engine.device import build_fabric, reading_processes
from ..engine.folders import check_output, make_folder, write_environment
from ..engine.predict import predict_batch
from ..engine.report import Reporter
from ..files import write_atomically
from ..structures import Batch, Origin, Sample, collate
from .evaluate import EvaluateOptions, find_data, pick_split
from .sweep import SweepOptions
from .tasks import Opened, open_checkpoint

SHARES = (0.5, 0.625, 0.75, 0.875, 1, 1.25, 1.5, 2)  # of the checkpoint's own side


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeRow:
    """What was measured at a size.

    Attributes:
        side: Of the images, in pixels.
        cpu, wall: Seconds of a batch.
        memory: Bytes that the process held at most, up to this size, beyond those before the model
            was built; on a GPU, what torch held there at most. None where it cannot be told.
        score: The figure by which the task's best weights are chosen; None without data.
    """

    side: int
    cpu: Spread
    wall: Spread
    memory: float | None
    score: float | None


def sweep_sizes(checkpoint: str, asked: list[int] | None, options: SweepOptions) -> Path:
    """Measures, prints a table, and writes it with a chart; returns their folder."""
    check_output(options.output)
    opened = open_checkpoint(checkpoint, options.model)
    sides = asked or sides_around(own_side(opened.input_record))
    fabric = build_fabric(options.device, 1, options.precision)
    reporter = Reporter()
    scores = score_all(fabric, opened, sides, options, reporter)
    seconds, memory = measure_all(checkpoint, sides, options, reporter)
    rows = [
        SizeRow(
            side=side,
            cpu=spread([taken.cpu for taken in seconds[side]]),
            wall=spread([taken.wall for taken in seconds[side]]),
            memory=memory[side],
            score=scores[side],
        )
        for side in sides
    ]
    stem = f"{Path(checkpoint).resolve().parent.name}-{Path(checkpoint).stem}"
    folder = make_folder(options.output, "sweeps", stem)
    write_environment(folder, str(fabric.device))
    knee = find_knee([row.wall.median for row in rows], [row.score for row in rows])
    write_results(folder, checkpoint, rows, opened.task.best, knee, options)
    print_table(rows, opened.task.best, knee, reporter)
    reporter.say("see", f"{folder}: sweep.csv sweep.json sweep.png")
    return folder


def own_side(record: dict[str, Any]) -> int:
    """The side that a checkpoint's input has; of detectors and segmenters the short one."""
    return int(record["size"] if "size" in record else record["short_side"])


def sides_around(own: int) -> list[int]:
    """Multiples of 32 from half to twice a side."""
    return sorted({max(32, round(own * share / 32) * 32) for share in SHARES} | {max(32, own)})


def at_side(record: dict[str, Any], side: int) -> dict[str, Any]:
    """An input record for another side; what is long in it grows alike."""
    if "size" in record:
        return {**record, "size": side}
    long = round(record["long_side"] * side / record["short_side"])
    return {**record, "short_side": side, "long_side": long}


def score_all(
    fabric: Fabric, opened: Opened, sides: Sequence[int], options: SweepOptions, reporter: Reporter
) -> dict[int, float | None]:
    """The deciding figure at each size, as `pvt evaluate` has it; None everywhere without data."""
    if options.data is None:
        return dict.fromkeys(sides)
    from ..engine.broken import BrokenImages
    from ..engine.evaluate import evaluate

    wanted = EvaluateOptions(data=options.data, split=options.split)
    data = find_data(opened, wanted)
    opened = replace(opened, classes=data.classes)
    split = pick_split(opened, data, wanted)
    source = data.splits[split]
    reporter.say("data", f"{data.summary}; scored: {split}, {len(source)} images")
    opened.model.to(fabric.device)
    workers = reading_processes(options.workers, in_memory=data.in_memory, ranks=1)
    scores: dict[int, float | None] = {}
    for side in sides:
        result = evaluate(
            fabric,
            opened.task,
            opened.model,
            source,
            opened.classes,
            at_side(opened.input_record, side),
            batch_size=opened.task.at_once,
            workers=workers,
            reporter=reporter,
            broken=BrokenImages(reporter, len(source), options.max_broken),
        )
        scores[side] = result.figures[opened.task.best]
        reporter.say(f"{side} pixels", f"{opened.task.best} {scores[side]:.2f}")
    return scores


def measure_all(
    checkpoint: str, sides: Sequence[int], options: SweepOptions, reporter: Reporter
) -> tuple[dict[int, list[Seconds]], dict[int, float | None]]:
    """Seconds, in turn, and memory, from small to large, in a process that does nothing else."""
    seconds: dict[int, list[Seconds]] = {side: [] for side in sides}
    memory: dict[int, float | None] = {}
    with (
        settings(options.threads),
        one_process() as pool,
        reporter.progress("measure", (1 + options.rounds) * len(sides)) as bar,
    ):
        pool.submit(prepare, checkpoint, options).result()
        for side in sorted(sides):
            memory[side] = pool.submit(peak_at, side, options.batch_size).result()
            bar.advance(f"{side} pixels")
        for _ in range(options.rounds):
            for side in sides:
                taken = pool.submit(seconds_at, side, options.batch_size).result()
                seconds[side].append(taken)
                bar.advance(f"{side} pixels {taken.wall:.2f} s")
    return seconds, memory


PREPARED: list[tuple[Fabric, Opened, float | None]] = []  # in that process; bytes before


def prepare(checkpoint: str, options: SweepOptions) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    fabric, before = build_fabric(options.device, 1, options.precision), peak_memory()
    opened = open_checkpoint(checkpoint, options.model)
    opened.model.to(fabric.device)
    PREPARED.append((fabric, opened, before))


@torch.inference_mode()
def peak_at(side: int, count: int) -> float | None:
    """Bytes at the peak so far."""
    fabric, opened, before = PREPARED[0]
    predict_batch(fabric, opened.task, opened.model, make_batch(fabric, opened, side, count))
    if fabric.device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    after = peak_memory()
    return None if before is None or after is None else after - before


@torch.inference_mode()
def seconds_at(side: int, count: int) -> Seconds:
    """Seconds of a batch, from images to predictions."""
    fabric, opened, _ = PREPARED[0]
    batch, wait = make_batch(fabric, opened, side, count), waiter(fabric.device.type)
    return time_calls(
        lambda: predict_batch(fabric, opened.task, opened.model, batch), wait, least=0.1
    )


def make_batch(fabric: Fabric, opened: Opened, side: int, count: int) -> Batch[Any]:
    generator = torch.Generator().manual_seed(0)
    samples: list[Sample[Any]] = [
        Sample(
            image=torch.randn(3, side, side, generator=generator),
            target=None,
            origin=Origin(name=str(k), size=(side, side)),
        )
        for k in range(count)
    ]
    return collate(samples, divisor=opened.task.divisor).to(fabric.device)


def find_knee(seconds: Sequence[float], scores: Sequence[float | None]) -> int | None:
    """The index where a score's share of the range of scores lies highest above its share of the
    range of seconds; None of fewer than three sizes, without scores, or where they are all alike.
    """
    known = [score for score in scores if score is not None]
    if len(known) < max(3, len(scores)) or max(known) == min(known):
        return None
    gain, cost = shares(known), shares(seconds)
    return max(range(len(known)), key=lambda k: gain[k] - cost[k])


def shares(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / ((high - low) or 1) for value in values]


def write_results(
    folder: Path,
    checkpoint: str,
    rows: Sequence[SizeRow],
    best: str,
    knee: int | None,
    options: SweepOptions,
) -> None:
    from ..engine.plots import draw_sweep  # the processes that measure memory need no charts

    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    headings = ("cpu_seconds", "wall_seconds", "wall_lower", "wall_upper", "memory_bytes", best)
    table.writerow(("side", *headings))
    for row in rows:
        wall = (row.wall.median, row.wall.lower, row.wall.upper)
        table.writerow((row.side, row.cpu.median, *wall, row.memory, row.score))
    write_atomically(folder / "sweep.csv", text.getvalue().encode())
    record = {
        "checkpoint": checkpoint,
        **asdict(options),
        "knee": None if knee is None else rows[knee].side,
        "rows": [
            asdict(row) | {"cpu": row.cpu._asdict(), "wall": row.wall._asdict()} for row in rows
        ],
    }
    write_atomically(folder / "sweep.json", json.dumps(record, indent=2) + "\n")
    heading = f"milliseconds of a batch of {options.batch_size}"
    panels = {heading: [row.wall.median * 1e3 for row in rows]}
    if all(row.memory is not None for row in rows):
        panels["peak memory (MB)"] = [(row.memory or 0) / 1e6 for row in rows]
    scores = [row.score for row in rows if row.score is not None]
    sides = [row.side for row in rows]
    draw_sweep(sides, panels, (best, scores) if scores else None, knee, folder / "sweep.png")


def print_table(rows: Sequence[SizeRow], best: str, knee: int | None, reporter: Reporter) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("side", "CPU ms", "wall ms", "quartiles", "memory", best):
        table.add_column(heading, justify="right")
    for k, row in enumerate(rows):
        table.add_row(
            str(row.side),
            f"{row.cpu.median * 1e3:.1f}",
            f"{row.wall.median * 1e3:.1f}",
            f"{row.wall.lower * 1e3:.1f} to {row.wall.upper * 1e3:.1f}",
            "?" if row.memory is None else f"{row.memory / 1e6:.0f} MB",
            "-" if row.score is None else f"{row.score:.2f}{' knee' * (k == knee)}",
        )
    reporter.console.print(table)
