"""`pvt benchmark`: what models cost, side by side in one run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser

from ..errors import UserError, nearest
from ..options import require
from . import VERBS
from .arguments import build_parser, parse, to_options

if TYPE_CHECKING:
    from pathlib import Path

DESCRIPTION = """Measures models side by side on this machine: parameters, GFLOPs by the papers'
rule, seconds for a batch, peak memory. The models take turns in every round, so that what else the
machine does meets all of them; each one's memory is that of a process of its own. Weights are
random and so are the images.

what can be measured: detectors (all of them on one backbone)"""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Options of a benchmark.

    Args:
        backbone: Name of the backbone that all detectors are put on, see `pvt models`.
        models: Names of the detectors, with commas between them; "all" takes every one.
        size: Image size: a side, or HEIGHTxWIDTH.
        num_classes: Classes that the detectors tell apart; COCO has 80.
        batch_size: Images at a time.
        rounds: How often each model is timed.
        threads: Threads of the CPU; 0 leaves them as they are.
        device: Where to compute.
        precision: float32, or bf16 mixed precision.
        output: Folder for the results; without it, benchmarks/detectors-BACKBONE-1 and so on.
    """

    backbone: str = "pvt_v2_b0"
    models: str = "all"
    size: str = "640"
    num_classes: int = 80
    batch_size: int = 1
    rounds: int = 7
    threads: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    output: str | None = None


def run(arguments: list[str]) -> None:
    parsed = parse(make_parser(), arguments)
    if parsed.subject not in SUBJECTS:
        near = nearest(parsed.subject, SUBJECTS)
        raise UserError(f"nothing known to measure is called {parsed.subject}; nearest: {near}")
    options = to_options(BenchmarkOptions, parsed)
    for name in ("num_classes", "batch_size", "rounds"):
        require(options, name, getattr(options, name) >= 1, "1 or more")
    require(options, "threads", options.threads >= 0, "0 or more")
    SUBJECTS[parsed.subject](options)


def make_parser() -> ArgumentParser:
    parser = build_parser("benchmark", DESCRIPTION, VERBS["benchmark"].example)
    parser.add_argument("subject", type=str, help="What to measure: detectors.")
    parser.add_class_arguments(BenchmarkOptions, None)
    return parser


def measure_detectors(options: BenchmarkOptions) -> "Path":
    from .benchmark_detectors import benchmark

    return benchmark(options)


SUBJECTS: dict[str, Callable[[BenchmarkOptions], object]] = {"detectors": measure_detectors}
