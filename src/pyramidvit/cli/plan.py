"""`pvt plan`: memory, operations and time of a model, without running it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from ..errors import UserError, nearest
from ..options import require
from . import VERBS
from .arguments import build_parser, parse, to_options

if TYPE_CHECKING:
    from ..costs.machine import Machine
    from ..costs.plan import Setting, Use
    from ..costs.ways import Precision

DESCRIPTION = """Says what models would take at a size and a batch: peak memory, operations and
seconds of a step, in inference and in training with AdamW, in float32 and bf16, with and without
recomputation. Nothing is run: the models go over shapes alone.

Memory is that of weights, gradients, moments and activations together; on 12 settings it was within
{memory_error} of what was measured on a CPU.
Seconds are an estimate. On this machine's CPU every kind of operation is timed first, which takes
two seconds; then they were right to a factor of {time_error}. For a GPU, and with --tflops and
--bandwidth, they are taken from the peaks and were not compared with anything yet."""
MEMORY_ERROR = "15 % (20 % where blocks are computed again)"
TIME_ERROR = "2"
TRIES = 6  # plans that are made, at most, to find the largest batch


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Options of a plan.

    Args:
        size: Image size: a side, or HEIGHTxWIDTH.
        batch_size: Images at a time.
        use: What the model is to do.
        precision: float32, bf16 mixed precision, or both.
        recompute: In training, what is computed again instead of being kept: a name of the table,
            or all for every one.
        device: Whose memory and time; auto takes a GPU where there is one. A GPU that is not here
            takes in float32 about what a CPU does.
        memory: Gigabytes that there are: the largest batch that fits is told; 0 tells none.
        tflops: Of the device, in float32 and bf16 (such as 60,790), a multiply-add being two; by
            default this machine is measured.
        bandwidth: Of its memory, in gigabytes a second; 0 measures it.
    """

    size: str = "224"
    batch_size: int = 1
    use: Literal["inference", "training", "both"] = "both"
    precision: Literal["float32", "bf16", "both"] = "both"
    recompute: str = "all"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory: float = 0.0
    tflops: str | None = None
    bandwidth: float = 0.0


def run(arguments: list[str]) -> None:
    parsed = parse(make_parser(), arguments)
    options = to_options(PlanOptions, parsed)
    require(options, "batch_size", options.batch_size >= 1, "1 or more")
    for name in ("memory", "bandwidth"):
        require(options, name, getattr(options, name) >= 0, "0 or more")
    plan_models(parsed.models, options, features=parsed.features, as_json=parsed.json)


def make_parser() -> ArgumentParser:
    description = DESCRIPTION.format(memory_error=MEMORY_ERROR, time_error=TIME_ERROR)
    parser = build_parser("plan", description, VERBS["plan"].example)
    parser.add_argument("models", type=str, nargs="+", help="Names, see pvt models.")
    parser.add_argument("--json", action="store_true", help="Prints JSON instead of a table.")
    parser.add_argument(
        "--features",
        action="store_true",
        help="The backbone with its four maps, not the classifier.",
    )
    parser.add_class_arguments(PlanOptions, None)
    return parser


def plan_models(
    names: Sequence[str], options: PlanOptions, *, features: bool, as_json: bool
) -> None:
    """Plans every setting that the options name, and prints.

    Raises:
        UserError: An unknown model or recomputation, or a wrong size.
    """
    import torch

    from ..costs.machine import estimate
    from ..costs.plan import plan
    from ..engine.report import Reporter

    settings = settings_of(names, options, features)
    machine = machine_of(settings[0].device, options)
    rows: list[dict[str, Any]] = []
    with Reporter(speaks=not as_json).progress("plan", len(settings)) as bar:
        for setting in settings:
            planned = plan(setting)
            seconds = estimate(planned.operations, machine)
            rows.append(
                {
                    "model": setting.model,
                    "use": setting.use,
                    "precision": setting.precision,
                    "recompute": setting.recompute,
                    "size": list(setting.size),
                    "batch_size": setting.batch,
                    "parameters": planned.parameters,
                    "macs": planned.macs,
                    "attention_macs": planned.attention,
                    "fixed_bytes": planned.fixed,
                    "memory_bytes": planned.memory,
                    "seconds": seconds,
                }
            )
            if options.memory:
                rows[-1]["largest_batch"] = largest_batch(setting, options.memory * 1e9)
            bar.advance()
    record = {
        "device": machine.device,
        "threads": torch.get_num_threads(),
        "gmacs_per_second": {k: round(v / 1e9, 1) for k, v in machine.macs.items()},
        "gigabytes_per_second": round(machine.bandwidth / 1e9, 1),
        "memory_error": MEMORY_ERROR,
        "time_error": f"a factor of {TIME_ERROR}" if machine.timed else None,
        "rows": rows,
    }
    if as_json:
        sys.stdout.write(json.dumps(record, indent=2) + "\n")
    else:
        print_plan(record)


def settings_of(names: Sequence[str], options: PlanOptions, features: bool) -> "list[Setting]":
    """Every setting that the options name; inference recomputes nothing."""
    import torch

    from ..costs.plan import RECOMPUTATIONS, Setting
    from ..models import list_models
    from .models import read_size

    for name in names:
        if name not in list_models():
            raise UserError(f"unknown model {name}; nearest: {nearest(name, list_models())}")
    if options.recompute not in ("all", *RECOMPUTATIONS):
        known = ", ".join(("all", *RECOMPUTATIONS))
        raise UserError(f"--recompute must be one of {known}, got {options.recompute}")
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available here; use --device cpu")
    ways = list(RECOMPUTATIONS) if options.recompute == "all" else [options.recompute]
    steps: list[tuple[Use, str]] = [("inference", "none")]
    steps += [("training", way) for way in ways]
    return [
        Setting(
            model=name,
            size=read_size(options.size),
            batch=options.batch_size,
            use=use,
            precision=precision,
            recompute=recompute,
            features=features,
            device=device,
        )
        for name in names
        for use, recompute in steps
        if options.use in ("both", use)
        for precision in ("float32", "bf16")
        if options.precision in ("both", precision)
    ]


def machine_of(device: str, options: PlanOptions) -> "Machine":
    """The device as described, or measured where it is not."""
    from ..costs.machine import describe_machine, measure_machine
    from ..engine.device import keep_freed_memory

    if options.tflops is not None and options.bandwidth:
        try:
            single, half = (float(word) for word in options.tflops.split(","))
        except ValueError as error:
            raise UserError(
                f"--tflops must be two numbers, of float32 and bf16, got {options.tflops}"
            ) from error
        macs: dict[Precision, float] = {"float32": single * 5e11, "bf16": half * 5e11}
        return describe_machine(device, macs, options.bandwidth * 1e9)
    if options.tflops is not None or options.bandwidth:
        raise UserError("--tflops and --bandwidth go together: give both, or neither")
    keep_freed_memory()  # as what is planned does
    return measure_machine(device)


def largest_batch(setting: "Setting", room: float) -> int:
    """A batch whose plan fits, the largest or near it; 0 where one image does not fit.

    Memory bends upwards with the batch: another moment becomes the worst. So a straight line is
    laid through what fits and what does not, which meets the room at a batch that fits.
    """
    from dataclasses import replace

    from ..costs.plan import plan

    fits, beyond = 1, 16
    low, high = (plan(replace(setting, batch=count)).memory for count in (fits, beyond))
    if low > room:
        return 0
    for _ in range(TRIES):
        guess = fits + int((room - low) / (high - low) * (beyond - fits))
        if guess == fits:
            break
        memory = plan(replace(setting, batch=guess)).memory
        if memory > room:
            beyond, high = guess, memory
        elif guess > beyond:
            return guess  # the line met the room: no bend in between
        else:
            fits, low = guess, memory
    return fits


def print_plan(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    fits = any("largest_batch" in row for row in record["rows"])
    table = Table(box=None, pad_edge=False)
    headings = ("model", "use", "precision", "recomputes", "GMACs", "in attention", "memory")
    for heading in (*headings, "seconds", "images/s", *["largest batch"] * fits):
        left = heading in ("model", "use", "precision", "recomputes")
        table.add_column(heading, justify="left" if left else "right")
    for row in record["rows"]:
        table.add_row(
            row["model"],
            row["use"],
            row["precision"],
            row["recompute"],
            f"{row['macs'] * row['batch_size'] / 1e9:.1f}",
            f"{row['attention_macs'] / row['macs']:.0%}",
            f"{row['memory_bytes'] / 1e6:.0f} MB",
            f"{row['seconds']:.3g}",
            f"{row['batch_size'] / row['seconds']:.3g}",
            *[str(row.get("largest_batch"))] * fits,
        )
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 110)  # ten columns: better broken later
    console.print(table)
    peak, half = record["gmacs_per_second"].values()
    error = record["time_error"]
    within = "were not compared yet" if error is None else f"were within {error}"
    console.print(
        f"on {record['device']}: {peak:.0f} GMACs/s in float32, {half:.0f} in bf16,"
        f" {record['gigabytes_per_second']:.0f} GB/s. On a CPU memory was right"
        f" within {record['memory_error']}; seconds {within}."
    )
