"""`pvt benchmark`: what models cost, side by side in one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser

from ..errors import UserError, nearest
from ..options import require
from . import VERBS
from .arguments import build_parser, parse, to_options

if TYPE_CHECKING:
    from pathlib import Path

DESCRIPTION = """Measures side by side on this machine, in turn in every round, so that what else
the machine does meets all alike. Weights are random and so are the images.

  NAME ...   models (see pvt models), each run in every way that is installed here: ours, timm,
             transformers, the official code, torch.compile, ONNX Runtime, OpenVINO. Each way has a
             process of its own, with the same allocator's settings. CPU time and wall, the ratio to
             timm in float32, and the share of the device's peak.
  detectors  all of them on one backbone: parameters, GFLOPs by the papers' rule, seconds for a
             batch, peak memory."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Options of a benchmark.

    Args:
        size: Image size: a side, or HEIGHTxWIDTH; without it, 224, and of detectors 640.
        batch_size: Images at a time.
        rounds: How often each is timed.
        threads: Threads of the CPU; 0 leaves them as they are.
        device: Where to compute.
        precision: float32, bf16 (of detectors mixed precision), or of models both; without it,
            both, and of detectors float32.
        output: Folder for the results; without it, benchmarks/NAME-1 and so on.
        ways: Of models: the ways to run them, with commas between them; "all" takes every one.
        official: Of models: folder of the reference's classification code, to be measured too.
        backbone: Of detectors: name of the backbone that all are put on.
        models: Of detectors: their names, with commas between them; "all" takes every one.
        num_classes: Of detectors: classes that they tell apart; COCO has 80.
    """

    size: str | None = None
    batch_size: int = 1
    rounds: int = 7
    threads: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bf16", "both"] | None = None
    output: str | None = None
    ways: str = "all"
    official: str | None = None
    backbone: str = "pvt_v2_b0"
    models: str = "all"
    num_classes: int = 80


def run(arguments: list[str]) -> None:
    parsed = parse(make_parser(), arguments)
    options = to_options(BenchmarkOptions, parsed)
    for name in ("num_classes", "batch_size", "rounds"):
        require(options, name, getattr(options, name) >= 1, "1 or more")
    require(options, "threads", options.threads >= 0, "0 or more")
    if parsed.subjects == ["detectors"]:
        require(options, "precision", options.precision != "both", "float32 or bf16 for detectors")
        measure_detectors(options)
    else:
        measure_models(parsed.subjects, options, features=parsed.features)


def make_parser() -> ArgumentParser:
    parser = build_parser("benchmark", DESCRIPTION, VERBS["benchmark"].example)
    parser.add_argument("subjects", type=str, nargs="+", help="Names of models, or: detectors.")
    parser.add_argument(
        "--features", action="store_true", help="Of models: the four maps instead of logits."
    )
    parser.add_class_arguments(BenchmarkOptions, None)
    return parser


def measure_detectors(options: BenchmarkOptions) -> "Path":
    from .benchmark_detectors import benchmark

    return benchmark(options)


def measure_models(
    names: Sequence[str], options: BenchmarkOptions, *, features: bool = False
) -> "Path":
    from ..models import list_models
    from .benchmark_models import benchmark

    known = list_models()
    for name in names:
        if name not in known:
            near = nearest(name, [*known, "detectors"])
            raise UserError(f"nothing known to measure is called {name}; nearest: {near}")
    return benchmark(names, options, features=features)
