"""`pvt sweep`: one checkpoint over sizes of its input: seconds, memory, accuracy, and the knee."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser

from ..errors import UserError
from ..options import require
from . import VERBS
from .arguments import build_parser, parse, to_options

if TYPE_CHECKING:
    from pathlib import Path

DESCRIPTION = """Runs a checkpoint at several sizes of its input, in turn: seconds of a batch, peak
memory of a process of its own, and with --data how well it does. The knee is the size beyond which
accuracy costs the most: where its share of all that is to be gained lies highest above its share of
the time. Writes a table and a chart."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Options of a sweep.

    Args:
        sizes: Sides of the images in pixels, with commas between them, 32 or more; without them
            from half to twice the checkpoint's own. Of detectors and segmenters the short side.
        data: Folder of data to score on, as of pvt evaluate; without it nothing is scored.
        split: Part of the data, as of pvt evaluate.
        model: Name of the model, for a checkpoint that does not say it.
        batch_size: Images at a time where seconds and memory are measured.
        rounds: How often each size is timed.
        threads: Threads of the CPU; 0 leaves them as they are.
        device: Where to compute.
        precision: float32, or bf16 for mixed precision.
        workers: Image-reading processes; -1 decides by the machine.
        max_broken: Share of unreadable images that is left out before scoring is refused.
        output: Folder for the results; without it, sweeps/<checkpoint>-<number>.
    """

    sizes: str | None = None
    data: str | None = None
    split: Literal["auto", "train", "validation", "test", "all"] = "auto"
    model: str | None = None
    batch_size: int = 1
    rounds: int = 5
    threads: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    workers: int = -1
    max_broken: float = 0.05
    output: str | None = None


def run(arguments: list[str]) -> None:
    parsed = parse(make_parser(), arguments)
    sweep(parsed.checkpoint, to_options(SweepOptions, parsed))


def make_parser() -> ArgumentParser:
    parser = build_parser("sweep", DESCRIPTION, VERBS["sweep"].example)
    parser.add_argument("checkpoint", type=str, help="File, directory, name or repository.")
    parser.add_class_arguments(SweepOptions, None)
    return parser


def sweep(checkpoint: str, options: SweepOptions) -> "Path":
    """Sweeps; returns the folder of the results.

    Raises:
        UserError: Checkpoint, data or sizes cannot be used, or do not belong together.
    """
    for name in ("batch_size", "rounds"):
        require(options, name, getattr(options, name) >= 1, "1 or more")
    require(options, "threads", options.threads >= 0, "0 or more")
    asked = read_sides(options.sizes) if options.sizes is not None else None
    from .sweep_sizes import sweep_sizes

    return sweep_sizes(checkpoint, asked, options)


def read_sides(text: str) -> list[int]:
    """Increasing sides from "224,160,320".

    Raises:
        UserError: Something else, or a side below 32.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 32 <= int(word) <= 8192 for word in words):
        raise UserError(f"--sizes must be sides from 32 to 8192, such as 160,224,320, got {text}")
    return sorted({int(word) for word in words})
