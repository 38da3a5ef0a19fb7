"""`pvt inspect`: what a checkpoint file is, told without building a model."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from ..errors import UserError, printable
from . import VERBS
from .arguments import build_parser, parse

if TYPE_CHECKING:
    from ..weights.describe import Description

DESCRIPTION = """Says what a checkpoint is: whose names it uses, which model and task, its classes
and number format, and what loading it would leave out and why. Files, directories of transformers,
published names (pvt models --weights) and hub repositories; official, timm, transformers,
mmdetection and mmsegmentation, and PVTs inside other networks."""


def run(arguments: list[str]) -> None:
    parsed = parse(make_parser(), arguments)
    from ..weights.checkpoint import read_checkpoint
    from ..weights.describe import describe_checkpoint
    from ..weights.places import find_weights

    path = find_weights(parsed.checkpoint)
    checkpoint = read_checkpoint(path, ema=parsed.ema)
    description = describe_checkpoint(checkpoint, str(path), parsed.prefix)
    if parsed.json:
        sys.stdout.write(json.dumps({"file": str(path), **asdict(description)}, indent=2) + "\n")
    else:
        for label, text in lines(description):
            sys.stdout.write(f" {label:<11} {printable(text)}\n")
    if refused(description):
        raise UserError(f"{path} cannot be loaded as it is: see REFUSED above")


def refused(description: "Description") -> bool:
    """Whether loading would refuse the file whatever the model."""
    d = description
    return bool(d.unknown or d.missing or d.contradiction or d.not_finite)


def make_parser() -> ArgumentParser:
    parser = build_parser("inspect", DESCRIPTION, VERBS["inspect"].example)
    parser.add_argument("checkpoint", type=str, help="File, directory, name or repository.")
    parser.add_argument("--prefix", type=str | None, help="Which PVT of a file with several.")
    parser.add_argument("--ema", action="store_true", help="Looks at the averaged weights.")
    parser.add_argument("--json", action="store_true", help="Prints JSON.")
    return parser


def lines(description: "Description") -> Iterator[tuple[str, str]]:
    """A description as labelled lines; what there is nothing to say of is left out."""
    d = description
    channels = "1 channel" if d.in_chans == 1 else f"{d.in_chans} channels"
    yield "model", f"{d.model}, {d.parameters:,} parameters, {channels}"
    yield "source", d.source + (f", under {d.prefix!r}" if d.prefix else "")
    yield "task", d.task + (f", {d.head}" if d.head else "")
    if d.num_classes is not None:
        shown = ", ".join((d.classes or ())[:5]) + (", ..." if len(d.classes or ()) > 5 else "")
        yield "classes", f"{d.num_classes}" + (f": {shown}" if shown else ", not named")
    yield "numbers", ", ".join(f"{kind} ({count} tensors)" for kind, count in d.dtypes.items())
    if d.image_size:
        yield "positions", f"tables for images of {d.image_size} x {d.image_size} pixels"
    if d.place or d.others:
        others = f"; also there: {', '.join(d.others)}" if d.others else ""
        yield "taken from", (d.place or "the top") + others
    for reason, count in d.ignored.items():
        yield "left out", f"{count} tensors: {reason}"
    if d.facts:
        yield "it says", ", ".join(f"{name} {value}" for name, value in d.facts.items())
    yield from refusals(d)
    for note in d.notes:
        yield "note", note


def refusals(d: "Description") -> Iterator[tuple[str, str]]:
    """Why loading would refuse the file."""
    if d.unknown:
        yield "REFUSED", f"{len(d.unknown)} names that nothing explains: {', '.join(d.unknown[:3])}"
    if d.missing:
        yield "REFUSED", f"{len(d.missing)} tensors missing: {', '.join(d.missing[:3])}"
    if d.contradiction:
        yield "REFUSED", d.contradiction
    if d.not_finite:
        yield "REFUSED", f"numbers that are not finite in {', '.join(d.not_finite[:3])}"
