"""`pvt data check`: what is in a data set, what is wrong with it, and how it looks."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from ..errors import UserError
from . import VERBS
from .arguments import build_parser, parse, to_options

if TYPE_CHECKING:
    from pathlib import Path

    from ..data.check import Report
    from ..engine.report import Reporter

DESCRIPTION = """Checks data: COCO json, Pascal VOC XML, YOLO text with data.yaml, or class folders.
Counts images, objects and classes, names every fault with its place, and draws a page of samples.
Exits with 1 if there are faults."""

MOST_LISTED = 10  # faults of a kind, and sizes
MOST_CLASSES = 100


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Options of a check.

    Args:
        output: PNG file for the page of samples; without it, <data>-samples.png.
    """

    output: str | None = None


def run(arguments: list[str]) -> int:
    parsed = parse(make_parser(), arguments)
    if parsed.action != "check":
        raise UserError(f"unknown action {parsed.action}; pvt data has check")
    options = to_options(DataOptions, parsed)
    return check(parsed.place, options, quick=parsed.quick, as_json=parsed.json)


def make_parser() -> ArgumentParser:
    parser = build_parser("data", DESCRIPTION, VERBS["data"].example)
    parser.add_argument("action", type=str, help="What to do: check.")
    parser.add_argument("place", type=str, help="Folder, COCO json or data.yaml.")
    parser.add_argument("--json", action="store_true", help="Prints JSON, with every fault.")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="Reads only the heads of pictures, and no masks; looks for no duplicates.",
    )
    parser.add_class_arguments(DataOptions, None)
    return parser


def check(place: str, options: DataOptions, *, quick: bool, as_json: bool) -> int:
    """Checks, reports and draws; returns 1 if there are faults, else 0.

    Raises:
        UserError: Nothing known is at the place, or the page cannot be written.
    """
    from pathlib import Path

    from ..data.check import check_data
    from ..engine.report import Reporter

    path = Path(options.output or f"{Path(place).resolve().stem}-samples.png")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}")
    reporter = Reporter(speaks=not as_json)
    with reporter.progress("check", 0) as bar:

        def start(total: int) -> Callable[[], None]:
            bar.progress.update(bar.task, total=total)
            return bar.advance

        report = check_data(place, start=start, quick=quick)
    drawn = draw(report, path)
    if as_json:
        record = {"place": place, **report.to_record(), "page": str(path) if drawn else None}
        sys.stdout.write(json.dumps(record, indent=2) + "\n")
    else:
        print_report(place, report, reporter)
        reporter.say("page", str(path) if drawn else "no picture could be read")
    return 1 if report.faults else 0


def draw(report: "Report", path: "Path") -> bool:
    """Writes the page of samples; False where no picture can be read."""
    import io

    from ..data.sample_page import choose_samples, draw_page, read_pictures
    from ..files import write_atomically

    if report.sources:
        samples = choose_samples(next(iter(report.sources.values())))
    else:
        samples = read_pictures(report.pictures)
    if not samples:
        return False
    content = io.BytesIO()
    draw_page(samples, report.classes).save(content, format="png")
    write_atomically(path, content.getvalue())
    return True


def print_report(place: str, report: "Report", reporter: "Reporter") -> None:
    what = "boxes and masks" if report.masks else "boxes"
    what = what if report.sources else "pictures"
    number = len(report.classes)
    reporter.say("data", f"{place}: {report.form}, {number} {plural(number, 'class')}, {what}")
    for name, part in report.parts.items():
        text = f"{name}: {part.images:,} {plural(part.images, 'picture')}"
        if report.sources:
            text += (
                f", {part.objects:,} {plural(part.objects, 'object')} (most in one: {part.most})"
                f", {part.empty:,} without objects"
            )
            text += f", {part.crowd:,} crowds or difficult" * bool(part.crowd)
        reporter.say("part", text)
    print_classes(report, reporter)
    print_sizes(report, reporter)
    print_faults(report, reporter)


def plural(number: int, word: str) -> str:
    return word if number == 1 else f"{word}es" if word.endswith("s") else f"{word}s"


def print_classes(report: "Report", reporter: "Reporter") -> None:
    from rich.markup import escape
    from rich.table import Table

    classes = report.classes
    numbered = classes.ids != classes.names
    table = Table(box=None, pad_edge=True)
    for heading in (*["id"] * numbered, "class", *report.parts):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    rows = list(enumerate(zip(classes.ids, classes.names, strict=True)))
    for k, (own, name) in rows[:MOST_CLASSES]:
        counts = [f"{part.per_class[k]:,}" for part in report.parts.values()]
        table.add_row(*[str(own)] * numbered, escape(name), *counts)
    reporter.console.print(table)
    if len(rows) > MOST_CLASSES:
        reporter.say("", f"and {len(rows) - MOST_CLASSES} more classes (--json lists all)")


def print_sizes(report: "Report", reporter: "Reporter") -> None:
    common = [f"{w}x{h} ({n:,})" for (h, w), n in report.sizes.most_common(MOST_LISTED)]
    more = len(report.sizes) - len(common)
    reporter.say("sizes", ", ".join(common) + f" and {more} more" * bool(more))
    if len(report.sizes) > 1:
        small, large = (f(report.sizes, key=lambda s: s[0] * s[1]) for f in (min, max))
        text = f"smallest {small[1]}x{small[0]}, largest {large[1]}x{large[0]}"
        reporter.say("", text)


def print_faults(report: "Report", reporter: "Reporter") -> None:
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
