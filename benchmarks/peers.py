"""Every way to run a PVT, side by side in one run: how many times as fast as timm in float32.

    python benchmarks/peers.py --output peers.json
    python benchmarks/peers.py --cases b2-batch1 --ways timm,timm-openvino,ours --rounds 15

CPU time on one thread, in turn, each way in a process of its own with the allocator pinned; a cell
has the median over the rounds in float32 / in bf16. The same by hand: `pvt benchmark pvt_v2_b2`.
With --compare, an earlier run's JSON, every ratio is followed by what it was then.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyramidvit.cli.benchmark_models import (
    WayRow,
    as_record,
    choose_precisions,
    choose_ways,
    summarise,
)
from pyramidvit.costs.turns import measure
from pyramidvit.costs.ways import WAYS, Case

CASES = {
    "b0-batch1": Case(model="pvt_v2_b0"),
    "b2-batch1": Case(model="pvt_v2_b2"),
    "b0-batch8": Case(model="pvt_v2_b0", batch=8),
    "b2-batch8": Case(model="pvt_v2_b2", batch=8),
    "b2-features-512": Case(model="pvt_v2_b2", features=True, size=(512, 512)),
}


def run(names: Sequence[str], given: argparse.Namespace) -> dict[str, list[WayRow]]:
    ways, precisions = choose_ways(given.ways), choose_precisions(given.precision)
    found = {}
    for name in names:
        case = replace(CASES[name], official=given.official)
        timed = measure(case, ways, precisions, rounds=given.rounds, threads=given.threads)
        found[name] = summarise(case, timed)
        for row in found[name]:
            print(name, row.way, row.precision, cell([row], {}), row.reason, flush=True)
    return found


def cell(rows: Sequence[WayRow], then: dict[tuple[str, str], float]) -> str:
    """The ratios of a way in a case, one for each precision."""
    texts = []
    for row in rows:
        text = "-" if row.ratio is None else f"{row.ratio.median:.2f}"
        earlier = then.get((row.way, row.precision))
        texts.append(text if earlier is None else f"{text} ({earlier:.2f})")
    return " / ".join(texts)


def at_peak(rows: Sequence[WayRow]) -> str:
    """What the ratio would be if all arithmetic ran as products of matrices do."""
    texts = []
    for precision in dict.fromkeys(row.precision for row in rows):
        found = [r for r in rows if r.precision == precision and r.ratio and r.of_peak]
        texts.append(f"{found[0].ratio.median / found[0].of_peak:.1f}" if found else "-")
    return " / ".join(texts)


def earlier_ratios(path: str | None, name: str) -> dict[tuple[str, str], float]:
    if path is None:
        return {}
    rows: list[dict[str, Any]] = json.loads(Path(path).read_text()).get(name, [])
    return {(r["way"], r["precision"]): r["ratio"]["median"] for r in rows if r["ratio"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--ways", default="all", help="Names, with commas between them.")
    parser.add_argument("--official", help="Folder of the reference's classification code.")
    parser.add_argument("--precision", default="both", choices=["float32", "bf16", "both"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", help="JSON file to write.")
    parser.add_argument("--compare", help="JSON file of an earlier run.")
    given = parser.parse_args()

    found = run(given.cases, given)
    print(f"\n| | {' | '.join(given.cases)} |\n|---|{'---:|' * len(given.cases)}")
    for way in choose_ways(given.ways):
        cells = [
            cell([r for r in rows if r.way == way], earlier_ratios(given.compare, name))
            for name, rows in found.items()
        ]
        if any(any(c.isdigit() for c in text) for text in cells):
            print(f"| {WAYS[way].says} | {' | '.join(cells)} |")
    print(f"| all arithmetic at the measured peak | {' | '.join(map(at_peak, found.values()))} |")
    if given.output:
        records = {name: [as_record(row) for row in rows] for name, rows in found.items()}
        Path(given.output).write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
