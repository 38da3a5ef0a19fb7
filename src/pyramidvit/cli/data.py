"""`pvt data check`: what is in a data set, what is wrong with it, and how it looks."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser

from ..errors import UserError
from . import VERBS
from .arguments import build_parser, parse, to_options
from .data_report import MOST_CLASSES, plural, print_faults, print_sizes

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from ..data.check import Report
    from ..data.check_maps import MapReport
    from ..engine.report import Reporter

DESCRIPTION = """Checks data: COCO json, Pascal VOC XML, YOLO text with data.yaml, pictures with
label maps (a folder, ADE20K, Cityscapes, Pascal VOC, COCO panoptic), or class folders.
Counts images, objects or pixels and classes, names every fault with its place, and draws a page of
samples. Exits with 1 if there are faults."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Options of a check.

    Args:
        output: PNG file for the page of samples; without it, <data>-samples.png.
        task: What data are taken for that would do for both, such as instance masks.
    """

    output: str | None = None
    task: Literal["auto", "detection", "segmentation"] = "auto"


def run(arguments: list[str]) -> int:
    parsed = parse(make_parser(), arguments)
    if parsed.action != "check":
        raise UserError(f"unknown action {parsed.action}; pvt data has check")
    options = to_options(DataOptions, parsed)
    return check(parsed.place, options, quick=parsed.quick, as_json=parsed.json)


def make_parser() -> ArgumentParser:
    parser = build_parser("data", DESCRIPTION, VERBS["data"].example)
    parser.add_argument("action", type=str, help="What to do: check.")
    parser.add_argument("place", type=str, help="Folder, COCO json, data.yaml or classes.yaml.")
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
    from ..data.check_maps import MapReport
    from ..engine.report import Reporter
    from .data_maps import print_map_report

    path = Path(options.output or f"{Path(place).resolve().stem}-samples.png")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}")
    reporter = Reporter(speaks=not as_json)
    with reporter.progress("check", 0) as bar:

        def start(total: int) -> Callable[[], None]:
            bar.progress.update(bar.task, total=total)
            return bar.advance

        report = check_data(place, start=start, quick=quick, task=options.task)
    drawn = draw(report, path)
    if as_json:
        record = {"place": place, **report.to_record(), "page": str(path) if drawn else None}
        sys.stdout.write(json.dumps(record, indent=2) + "\n")
    else:
        if isinstance(report, MapReport):
            print_map_report(place, report, reporter)
        else:
            print_report(place, report, reporter)
        reporter.say("page", str(path) if drawn else "no picture could be read")
    return 1 if report.faults else 0


def draw(report: "Report | MapReport", path: "Path") -> bool:
    """Writes the page of samples; False where no picture can be read."""
    import io

    from ..files import write_atomically

    page = page_of(report)
    if page is None:
        return False
    content = io.BytesIO()
    page.save(content, format="png")
    write_atomically(path, content.getvalue())
    return True


def page_of(report: "Report | MapReport") -> "Image | None":
    """Samples of the first part that has any; None where no picture can be read."""
    from ..data.check_maps import MapReport
    from ..data.map_page import choose_maps, draw_map_page
    from ..data.sample_page import choose_samples, draw_page, read_pictures

    if isinstance(report, MapReport):
        maps = [m for source in list(report.sources.values())[:1] for m in choose_maps(source)]
        return draw_map_page(maps, report.classes) if maps else None
    if report.sources:
        samples = choose_samples(next(iter(report.sources.values())))
    else:
        samples = read_pictures(report.pictures)
    return draw_page(samples, report.classes) if samples else None


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
