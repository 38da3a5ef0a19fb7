"""`pvt verify`: holds a published classifier's logits against the published ones."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from ..errors import UserError
from . import VERBS
from .arguments import build_parser, parse

if TYPE_CHECKING:
    from PIL.Image import Image

DESCRIPTION = """Predicts the reference photograph (COCO val2017 000000039769, two cats) with a
published ImageNet classifier, in any format, and compares the first three logits with the published
ones. One command proves that the file, the reading of it, and the model are right."""


def run(arguments: list[str]) -> None:
    parsed = parse(make_parser(), arguments)
    verify(parsed.checkpoint, parsed.image)


def make_parser() -> ArgumentParser:
    parser = build_parser("verify", DESCRIPTION, VERBS["verify"].example)
    parser.add_argument("checkpoint", type=str, help="File, directory, name or repository.")
    parser.add_argument("--image", type=str | None, help="The photograph; else it is fetched.")
    return parser


def verify(checkpoint: str, image: str | None) -> None:
    """Compares, prints a table, and fails unless the logits agree.

    Raises:
        UserError: They do not agree, it is another photograph, or no published classifier.
    """
    from ..weights.reference_logits import TOLERANCE, compare_logits, published_logits
    from .tasks import open_checkpoint

    opened = open_checkpoint(checkpoint)
    name = opened.name
    wanted = published_logits(name, len(opened.classes), checkpoint)
    rows = compare_logits(opened.model, read_photograph(image), wanted)

    write("checkpoint", f"{checkpoint}: {name}, 1000 classes")
    write("published", f"{format_logits(wanted)}   (transformers, epsilon 1e-6 in every norm)")
    for row in rows:
        write("", f"{format_logits(row.logits)}   off by {row.distance:.4f}: {row.settings}")
    best = min(rows, key=lambda row: row.distance)
    if best.distance > TOLERANCE:
        raise UserError(
            f"{checkpoint} does not give the published logits of {name}: off by"
            f" {best.distance:.4f} at best, tolerance {TOLERANCE}"
        )
    write("verified", f"off by {best.distance:.4f} with {best.settings} (tolerance {TOLERANCE})")


def read_photograph(path: str | None) -> "Image":
    """The reference photograph, from a file, the cache or its server."""
    from ..data.images import BrokenImage, read_image
    from ..weights.reference_logits import check_photograph, fetch_photograph

    place = fetch_photograph() if path is None else Path(path)
    if not place.is_file():
        raise UserError(f"no such image: {place}")
    try:
        picture = read_image(place)
    except BrokenImage as error:
        raise UserError(str(error)) from error
    check_photograph(picture, str(place))
    return picture


def format_logits(logits: tuple[float, ...]) -> str:
    return " ".join(f"{value:8.4f}" for value in logits)


def write(label: str, text: str) -> None:
    sys.stdout.write(f" {label:<11} {text}\n")
