"""`pvt benchmark detectors`: all heads on one backbone."""

import json
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from ..costs.clock import peak_memory, spread, waiter
from ..engine.device import build_fabric
from ..engine.folders import check_output, make_folder, write_environment
from ..engine.report import Reporter
from ..errors import UserError, nearest
from ..files import write_atomically
from ..structures import Batch, Origin, Sample, collate
from ..tasks.detection.model import build_detector
from ..tasks.detection.network import forward
from ..tasks.detection.operations import count_operations
from ..tasks.detection.outputs import Decoding, RegionDetections
from ..tasks.detection.table import DETECTORS, head_named
from ..tasks.detection.transforms import DIVISOR
from .benchmark import BenchmarkOptions
from .models import read_size

MEGABYTE = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was measured of a detector.

    Attributes:
        head: Its name.
        parameters: Numbers in it, with those of the backbone.
        gflops: By the papers' rule, of one image as it is padded.
        macs: Multiply-adds of all products, of the same.
        seconds: Of a batch, from images to detections, in each round.
        median, lower, upper: Of the seconds; the others are quartiles.
        memory_mb: Peak memory of a process of its own beyond what it took before the model was
            built; on a GPU, what torch held there at most. None where it cannot be told.
        found: Detections in the batch; a mask is drawn for each where the detector draws any.
    """

    head: str
    parameters: int
    gflops: float
    macs: int
    seconds: tuple[float, ...]
    median: float
    lower: float
    upper: float
    memory_mb: float | None
    found: int


def benchmark(options: BenchmarkOptions) -> Path:
    """Measures, prints a table, and writes it with a chart; returns their folder.

    Raises:
        UserError: An unknown detector, backbone or device, or a folder that is not empty.
    """
    heads = choose_heads(options.models)
    size_of(options)
    check_output(options.output)
    with torch.device("meta"):
        build_detector(heads[0], options.backbone, options.num_classes)  # if there is no such
    fabric = build_fabric(options.device, 1, options.precision or "float32")
    reporter = Reporter()
    folder = make_folder(options.output, "benchmarks", f"detectors-{options.backbone}")
    memory = measure_memory(heads, options, reporter)  # first: this process is still small
    rows = measure_all(fabric, heads, options, memory, reporter)
    write_environment(folder, str(fabric.device))
    record = {
        **asdict(options),
        "size": "{}x{}".format(*size_of(options)),
        "precision": options.precision or "float32",
        "device": str(fabric.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "heads": [asdict(row) for row in rows],
    }
    write_atomically(folder / "benchmark.json", (json.dumps(record, indent=2) + "\n").encode())
    from ..engine.plots import draw_bars  # the processes that measure memory need no charts

    height, width = size_of(options)
    title = f"{options.backbone}, {height}x{width} pixels, batch {options.batch_size}"
    draw_bars(*chart(rows), title, folder / "benchmark.png")
    print_table(rows, reporter)
    reporter.say("see", f"{folder}: benchmark.json benchmark.png")
    return folder


def size_of(options: BenchmarkOptions) -> tuple[int, int]:
    return read_size(options.size or "640")


def choose_heads(wanted: str) -> list[str]:
    """The detectors that are meant, in the order of the table.

    Raises:
        UserError: One is not known.
    """
    names = list(DETECTORS) if wanted == "all" else [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in DETECTORS:
            raise UserError(f"unknown detector {name}; nearest: {nearest(name, DETECTORS)}")
    return [name for name in DETECTORS if name in names]


def measure_memory(
    heads: Sequence[str], options: BenchmarkOptions, reporter: Reporter
) -> list[float | None]:
    """Peak memory of each detector, one process after the other."""
    found = []
    context = multiprocessing.get_context("spawn")  # a fork would begin with our own memory
    with reporter.progress("memory", len(heads)) as bar:
        for head in heads:
            with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
                found.append(pool.submit(peak_of, head, options).result())
            bar.advance(head)
    return found


def peak_of(head: str, options: BenchmarkOptions) -> float | None:
    """Megabytes that building and running a detector takes, in a process that did nothing else."""
    fabric = build_fabric(options.device, 1, options.precision or "float32")
    before = peak_memory()
    model = build(fabric, head, options)
    ask(fabric, model, make_batch(fabric, options))
    if fabric.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / MEGABYTE
    after = peak_memory()
    return None if before is None or after is None else (after - before) / MEGABYTE


def measure_all(
    fabric: Fabric,
    heads: Sequence[str],
    options: BenchmarkOptions,
    memory: Sequence[float | None],
    reporter: Reporter,
) -> list[Row]:
    """Times the detectors in turn, after a round that is not counted."""
    if options.threads:
        torch.set_num_threads(options.threads)
    batch = make_batch(fabric, options)
    models = [build(fabric, head, options) for head in heads]
    seconds: list[list[float]] = [[] for _ in heads]
    found = [0] * len(heads)
    with reporter.progress("latency", (1 + options.rounds) * len(heads)) as bar:
        for turn in range(1 + options.rounds):
            for i, (head, model) in enumerate(zip(heads, models, strict=True)):
                taken, found[i] = ask(fabric, model, batch)
                if turn:
                    seconds[i].append(taken)
                bar.advance(f"{head} {taken:.2f} s")
    size = (batch.images.shape[2], batch.images.shape[3])
    return [
        summarise(head, model, size, times, peak, count)
        for head, model, times, peak, count in zip(
            heads, models, seconds, memory, found, strict=True
        )
    ]


def summarise(
    head: str,
    model: nn.Module,
    size: tuple[int, int],
    times: list[float],
    memory: float | None,
    found: int,
) -> Row:
    operations = count_operations(model, size)
    median, lower, upper = spread(times)
    return Row(
        head=head,
        parameters=sum(p.numel() for p in model.parameters()),
        gflops=round(operations.published / 1e9, 2),
        macs=operations.macs,
        seconds=tuple(round(value, 5) for value in times),
        median=round(median, 5),
        lower=round(lower, 5),
        upper=round(upper, 5),
        memory_mb=None if memory is None else round(memory, 1),
        found=found,
    )


def make_batch(fabric: Fabric, options: BenchmarkOptions) -> Batch[Any]:
    size = size_of(options)
    images = torch.randn(options.batch_size, 3, *size, generator=torch.Generator().manual_seed(0))
    samples: list[Sample[Any]] = [
        Sample(image=image, target=None, origin=Origin(name=str(i), size=size))
        for i, image in enumerate(images)
    ]
    return collate(samples, divisor=DIVISOR).to(fabric.device)


def build(fabric: Fabric, head: str, options: BenchmarkOptions) -> Any:
    """A detector with random weights, that finds something where it has to draw what it finds.

    Random weights give scores below every published threshold. One that leaves as many as a
    detector may find is taken from one look at the image.
    """
    torch.manual_seed(0)
    built: Any = build_detector(head, options.backbone, options.num_classes)
    model = built.to(fabric.device).eval()
    if head_named(head).detect is None:
        published: Decoding = model.decoding
        model.decoding = replace(published, score_threshold=0.0, nms_threshold=1.0)
        scores = look(fabric, model, make_batch(fabric, options)).detections.scores
        threshold = scores.min().item() if len(scores) else 0.0
        model.decoding = replace(published, score_threshold=threshold)
    return model


@torch.inference_mode()
def look(fabric: Fabric, model: nn.Module, batch: Batch[Any]) -> RegionDetections:
    with fabric.autocast():
        outputs: RegionDetections = forward(model, batch, learn=False)
    return outputs


def ask(fabric: Fabric, model: nn.Module, batch: Batch[Any]) -> tuple[float, int]:
    """How many seconds a batch takes, from images to detections, and how many there are."""
    wait = waiter(fabric.device.type)
    wait()
    start = time.perf_counter()
    found = look(fabric, model, batch)
    wait()
    return time.perf_counter() - start, len(found.detections.scores)


def print_table(rows: Sequence[Row], reporter: Reporter) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("detector", "parameters", "GFLOPs", "median", "quartiles", "memory", "found"):
        table.add_column(heading, justify="left" if heading == "detector" else "right")
    for row in rows:
        table.add_row(
            row.head,
            f"{row.parameters / 1e6:.1f} M",
            f"{row.gflops:.1f}",
            f"{row.median * 1e3:.0f} ms",
            f"{row.lower * 1e3:.0f} to {row.upper * 1e3:.0f}",
            "?" if row.memory_mb is None else f"{row.memory_mb:.0f} MB",
            str(row.found),
        )
    reporter.console.print(table)


def chart(rows: Sequence[Row]) -> tuple[list[str], dict[str, list[tuple[float, float, float]]]]:
    """Names, and for each panel of the chart a value for each, with what it spreads over."""
    return [row.head for row in rows], {
        "parameters (M)": [exactly(row.parameters / 1e6) for row in rows],
        "GFLOPs": [exactly(row.gflops) for row in rows],
        "milliseconds, median and quartiles": [
            (row.median * 1e3, row.lower * 1e3, row.upper * 1e3) for row in rows
        ],
        "peak memory (MB)": [exactly(row.memory_mb or 0.0) for row in rows],
    }


def exactly(value: float) -> tuple[float, float, float]:
    return value, value, value
