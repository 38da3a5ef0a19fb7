"""What `pvt data check` prints of all kinds of data: sizes and faults."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..data.check import Report
    from ..data.check_maps import MapReport
    from ..engine.report import Reporter

MOST_LISTED = 10  # faults of a kind, and sizes
MOST_CLASSES = 100


def plural(number: int, word: str) -> str:
    return word if number == 1 else f"{word}es" if word.endswith("s") else f"{word}s"


def print_sizes(report: "Report | MapReport", reporter: "Reporter") -> None:
    common = [f"{w}x{h} ({n:,})" for (h, w), n in report.sizes.most_common(MOST_LISTED)]
    more = len(report.sizes) - len(common)
    reporter.say("sizes", ", ".join(common) + f" and {more} more" * bool(more))
    if len(report.sizes) > 1:
        small, large = (f(report.sizes, key=lambda s: s[0] * s[1]) for f in (min, max))
        text = f"smallest {small[1]}x{small[0]}, largest {large[1]}x{large[0]}"
        reporter.say("", text)


def print_faults(report: "Report | MapReport", reporter: "Reporter") -> None:
    from ..data.faults import KINDS

    if not report.faults:
        reporter.say("faults", "none")
    for kind, meaning in KINDS.items():
        found = [fault for fault in report.faults if fault.kind == kind]
        if found:
            reporter.say("faults", f"{meaning.count(len(found))}: {meaning.then}")
        for fault in found[:MOST_LISTED]:
            reporter.say("", f"  {fault.place}: {fault.text}")
        if len(found) > MOST_LISTED:
            reporter.say("", f"  and {len(found) - MOST_LISTED:,} more (--json lists all)")
