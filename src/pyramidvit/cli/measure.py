"""What a run takes from its data before it trains, such as the weights of classes."""

import csv
import io
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from ..data.source import DataSet
from ..engine.report import Reporter
from ..errors import UserError
from ..files import write_atomically
from ..structures import Classes
from .kinds import Kind


def measure(kind: Kind, options: Any, data: DataSet, fabric: Fabric, reporter: Reporter) -> Any:
    """The options with what follows from the data filled in; the first process reads the data, and
    all learn what it found, or raise its error."""
    measured, error = options, ""
    if fabric.is_global_zero:
        try:
            measured = kind.measure(options, data, reporter)
        except UserError as refused:
            error = str(refused)
    if fabric.world_size > 1:
        measured, error = fabric.broadcast((measured, error))
    if error:
        raise UserError(error)
    return measured


def write_measured(folder: Path, asked: Any, options: Any, classes: Classes) -> None:
    """Writes weights of classes that were measured as `class_weights.csv`.

    `args.yaml` keeps what was asked for, which on other data means other weights.
    """
    if options == asked:
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("id", "name", "weight"))
    table.writerows(zip(classes.ids, classes.names, options.class_weights, strict=True))
    write_atomically(folder / "class_weights.csv", text.getvalue().encode(errors="replace"))
