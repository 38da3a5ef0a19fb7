"""`pvt benchmark NAME ...`: a model in every way that it can be run here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from ..backbones.operations import count_operations
from ..costs.clock import Spread, spread
from ..costs.turns import PRODUCT, Key, Timed, count_steps, measure
from ..costs.ways import WAYS, Case, Precision, product_side
from ..engine.device import build_fabric
from ..engine.folders import check_output, make_folder, write_environment
from ..engine.report import Reporter
from ..errors import UserError, nearest
from ..export.write import difference
from ..files import write_atomically
from ..models import create_model
from .benchmark import BenchmarkOptions
from .models import read_size

NOTHING = (float("nan"), float("nan"), float("nan"))
BASES = ("timm", "official", "transformers", "ours")  # ratios are to the first that was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class WayRow:
    """What was measured of a model in a way and a precision.

    Attributes:
        cpu_seconds: Of a batch, of all threads together, in each round.
        wall_seconds: The same by the clock.
        cpu, wall: Median and quartiles of these.
        ratio: How many times as fast as `base`, in CPU time (on a GPU: by the clock); median and
            quartiles over the rounds, each a ratio within its round.
        base: A way and its precision.
        of_peak: Arithmetic that was done, as a share of what products of matrices did meanwhile.
        differs: The largest difference of an output from the base's, as a share of the largest.
        starting: Seconds until the way could run: building, converting, compiling.
        reason: Why nothing was measured; "" where it was.
    """

    model: str
    way: str
    precision: Precision
    cpu_seconds: tuple[float, ...] = ()
    wall_seconds: tuple[float, ...] = ()
    cpu: Spread | None = None
    wall: Spread | None = None
    ratio: Spread | None = None
    base: str = ""
    of_peak: float | None = None
    differs: float | None = None
    starting: float = 0.0
    reason: str = ""


def benchmark(names: Sequence[str], options: BenchmarkOptions, *, features: bool) -> Path:
    """Measures, prints a table, and writes it with a chart; returns their folder.

    Raises:
        UserError: An unknown way or device, a wrong size, or a folder that is not empty.
    """
    ways = choose_ways(options.ways)
    precisions = choose_precisions(options.precision)
    size = read_size(options.size or "224")
    check_output(options.output)
    if options.official is not None and not Path(options.official).exists():
        raise UserError(f"--official {options.official}: there is no such folder")
    device = str(build_fabric(options.device, 1, "float32").device)
    reporter = Reporter()
    folder = make_folder(options.output, "benchmarks", "-".join(names[:3]))
    rows: list[WayRow] = []
    for name in names:
        case = Case(
            model=name,
            features=features,
            size=size,
            batch=options.batch_size,
            device=device,
            official=options.official,
        )
        total = count_steps(ways, precisions, options.rounds)
        with reporter.progress(name, total) as bar:
            timed = measure(
                case,
                ways,
                precisions,
                rounds=options.rounds,
                threads=options.threads,
                step=bar.advance,
            )
        rows += summarise(case, timed)
    write_environment(folder, device)
    record = {
        **asdict(options),
        "size": list(size),
        "precision": list(precisions),
        "features": features,
        "device": device,
        "torch": torch.__version__,
        "rows": [as_record(row) for row in rows],
    }
    write_atomically(folder / "benchmark.json", json.dumps(record, indent=2) + "\n")
    print_table(rows, reporter)
    from ..engine.plots import draw_bars

    measured = [row for row in rows if row.ratio is not None]
    title = f"{size[0]}x{size[1]} pixels, batch {options.batch_size}, {device}"
    if measured:
        draw_bars(*chart(measured), title, folder / "benchmark.png")
    reporter.say("see", f"{folder}: benchmark.json{' benchmark.png' * bool(measured)}")
    return folder


def choose_ways(wanted: str) -> list[str]:
    """The ways that are meant, in the order of the table.

    Raises:
        UserError: One is not known.
    """
    names = list(WAYS) if wanted == "all" else [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in WAYS:
            raise UserError(f"unknown way {name}; nearest: {nearest(name, WAYS)}")
    return [name for name in WAYS if name in names]


def choose_precisions(wanted: str | None) -> list[Precision]:
    known: tuple[Precision, ...] = get_args(Precision)
    return [precision for precision in known if wanted in (None, "both", precision)]


def summarise(case: Case, timed: Mapping[Key, Timed]) -> list[WayRow]:
    """The rows of a model."""
    with torch.device("meta"):
        bare = create_model(case.model, features_only=case.features)
    macs = count_operations(bare, case.size).macs * case.batch
    base = next((key for name in BASES for key in timed if can_be_base(key, name, timed)), None)
    rows = []
    for (way, precision), record in timed.items():
        if way == PRODUCT:
            continue
        if record.reason or base is None:
            rows.append(
                WayRow(model=case.model, way=way, precision=precision, reason=record.reason)
            )
            continue
        times = decisive(record, case.device)
        peak = spread(decisive(timed[PRODUCT, precision], case.device)).median
        side = product_side(case.device)
        rows.append(
            WayRow(
                model=case.model,
                way=way,
                precision=precision,
                cpu_seconds=tuple(seconds.cpu for seconds in record.seconds),
                wall_seconds=tuple(seconds.wall for seconds in record.seconds),
                cpu=spread([seconds.cpu for seconds in record.seconds]),
                wall=spread([seconds.wall for seconds in record.seconds]),
                ratio=spread(quotients(decisive(timed[base], case.device), times)),
                base=" ".join(base),
                of_peak=(macs / spread(times).median) / (side**3 / peak),
                differs=largest_difference(record, timed[base]),
                starting=record.starting,
            )
        )
    return rows


def can_be_base(key: Key, name: str, timed: Mapping[Key, Timed]) -> bool:
    return key[0] == name and not timed[key].reason


def decisive(record: Timed, device: str) -> list[float]:
    """Seconds by which ways are compared: the processor's, unless something else computes."""
    return [seconds.cpu if device == "cpu" else seconds.wall for seconds in record.seconds]


def quotients(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def largest_difference(record: Timed, base: Timed) -> float | None:
    if record.outputs is None or base.outputs is None:
        return None
    if len(record.outputs) != len(base.outputs):
        return float("inf")
    return max(difference(a, b) for a, b in zip(record.outputs, base.outputs, strict=True))


def as_record(row: WayRow) -> dict[str, Any]:
    """For JSON, which knows no infinity."""
    record = asdict(row)
    for name in ("cpu", "wall", "ratio"):
        record[name] = None if record[name] is None else getattr(row, name)._asdict()
    if row.differs == float("inf"):
        record["differs"] = None
    return record


def print_table(rows: Sequence[WayRow], reporter: Reporter) -> None:
    from rich.table import Table

    bases = sorted({row.base for row in rows if row.base})
    table = Table(box=None, pad_edge=False)
    for heading in (
        *("model", "way", "precision", "CPU ms", "quartiles", "wall ms"),
        *(f"times {' or '.join(bases)}", "of peak", "differs", "start s"),
    ):
        left = heading in ("model", "way", "precision")
        table.add_column(heading, justify="left" if left else "right")
    for row in rows:
        table.add_row(row.model, row.way, row.precision, *cells(row))
    reporter.console.width = max(reporter.console.width, 130)  # ten columns: better broken later
    reporter.console.print(table)


def cells(row: WayRow) -> list[str]:
    """What the table says of a row beside its name."""
    if row.cpu is None or row.wall is None or row.ratio is None:
        return [row.reason[:60] or "not measured"]
    return [
        f"{row.cpu.median * 1e3:.1f}",
        f"{row.cpu.lower * 1e3:.1f} to {row.cpu.upper * 1e3:.1f}",
        f"{row.wall.median * 1e3:.1f}",
        f"{row.ratio.median:.2f}",
        f"{row.of_peak or 0:.0%}",
        "?" if row.differs is None else f"{row.differs:.0e}",
        f"{row.starting:.1f}",
    ]


def chart(
    rows: Sequence[WayRow],
) -> tuple[list[str], dict[str, list[tuple[float, float, float]]]]:
    """Names of ways, and for each panel of the chart a ratio for each, with its quartiles."""
    ways = list(dict.fromkeys(row.way for row in rows))
    panels: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        assert row.ratio is not None
        heading = f"{row.model} {row.precision}: times {row.base}"
        bars = panels.setdefault(heading, [NOTHING] * len(ways))
        bars[ways.index(row.way)] = (row.ratio.median, row.ratio.lower, row.ratio.upper)
    return ways, panels
