"""What `pvt data check` prints of labelled pixels."""

from typing import TYPE_CHECKING

from .data_report import MOST_CLASSES, plural, print_faults, print_sizes

if TYPE_CHECKING:
    from ..data.check_maps import MapPart, MapReport
    from ..engine.report import Reporter


def print_map_report(place: str, report: "MapReport", reporter: "Reporter") -> None:
    number = len(report.classes)
    reporter.say("data", f"{place}: {report.form}, {number} {plural(number, 'class')} of pixels")
    for name, part in report.parts.items():
        text = f"{name}: {part.images:,} {plural(part.images, 'picture')}"
        text += f", {part.unlabelled_share:.1%} of the pixels unlabelled" * report.counted
        reporter.say("part", text)
    print_shares(report, reporter)
    print_sizes(report, reporter)
    print_faults(report, reporter)


def print_shares(report: "MapReport", reporter: "Reporter") -> None:
    """Each class's share of the labelled pixels and the pictures it is in, by part; and the weight
    that would make up for its share."""
    from rich.markup import escape
    from rich.table import Table

    classes = report.classes
    table = Table(box=None, pad_edge=True)
    parts = report.parts if report.counted else {}
    counted = [word for part in parts for word in (part, "pictures")]
    for heading in ("id", "class", *counted, *["weight"] * bool(parts)):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    weights = median_weights(next(iter(parts.values()))) if parts else ()
    rows = list(enumerate(zip(classes.ids, classes.names, strict=True)))
    for k, (own, name) in rows[:MOST_CLASSES]:
        cells = [
            cell
            for part in parts.values()
            for cell in (f"{part.shares[k]:.2%}", f"{int(part.pictures[k]):,}")
        ]
        weight = [f"{weights[k]:.3g}"] if weights else []
        table.add_row(str(own), escape(name), *cells, *weight)
    reporter.console.print(table)
    if len(rows) > MOST_CLASSES:
        reporter.say("", f"and {len(rows) - MOST_CLASSES} more classes (--json lists all)")
    if weights:
        reporter.say("weights", "of the first part; pvt train uses them with --balance median")


def median_weights(part: "MapPart") -> tuple[float, ...]:
    import torch

    from ..tasks.segmentation.balance import weights_of

    return weights_of(torch.from_numpy(part.shares), "median")
