"""`pvt models`: the models with their sizes, their cost at an image size, and published figures."""

import fnmatch
import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from ..errors import UserError, nearest
from . import VERBS
from .arguments import build_parser, parse, to_options

if TYPE_CHECKING:
    from ..weights.catalog import Published

DESCRIPTION = """Lists the models: parameters with the 1000-class head, GFLOPs by the papers' rule
(one multiply-add is one FLOP, attention included), published ImageNet-1K top-1 accuracy.
With --weights it lists the published weights instead, and which of them are on this machine."""

# The papers' Table 2 and the official README, which corrects PVTv2-B3 from 83.2 to 83.1.
PUBLISHED_TOP1 = {
    "pvt_tiny": 75.1,
    "pvt_small": 79.8,
    "pvt_medium": 81.2,
    "pvt_large": 81.7,
    "pvt_v2_b0": 70.5,
    "pvt_v2_b1": 78.7,
    "pvt_v2_b2": 82.0,
    "pvt_v2_b2_li": 82.1,
    "pvt_v2_b3": 83.1,
    "pvt_v2_b4": 83.6,
    "pvt_v2_b5": 83.8,
}


@dataclass(frozen=True, kw_only=True)
class ModelsOptions:
    """Options of the list.

    Args:
        size: Image size for the GFLOPs: a side, or HEIGHTxWIDTH.
    """

    size: str = "224"


def run(arguments: list[str]) -> None:
    parsed = parse(make_parser(), arguments)
    options = to_options(ModelsOptions, parsed)
    if parsed.weights:
        list_weights(parsed.pattern, as_json=parsed.json)
        return
    rows = describe_models(parsed.pattern, read_size(options.size))
    if parsed.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        print_table(rows, options.size)
        if parsed.pattern == "*":
            say_heads()


def make_parser() -> ArgumentParser:
    parser = build_parser("models", DESCRIPTION, VERBS["models"].example)
    parser.add_argument("pattern", type=str, nargs="?", default="*", help="Names, as in a shell.")
    parser.add_argument("--json", action="store_true", help="Prints JSON instead of a table.")
    parser.add_argument(
        "--weights", action="store_true", help="Lists published weights, by model or name."
    )
    parser.add_class_arguments(ModelsOptions, None)
    return parser


def read_size(text: str) -> tuple[int, int]:
    """(H, W) from "224" or "800x1344"."""
    sides = text.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(s.isdecimal() and int(s) >= 32 for s in sides):
        raise UserError(f"--size must be a side or HEIGHTxWIDTH from 32 up, got {text}")
    return int(sides[0]), int(sides[-1])


def describe_models(pattern: str, size: tuple[int, int]) -> list[dict[str, object]]:
    """One record a model whose name fits the pattern."""
    import torch

    from ..backbones.operations import count_operations
    from ..models import create_model, list_models

    names = list_models(pattern)
    if not names:
        raise UserError(f"no model is named {pattern}; nearest: {nearest(pattern, list_models())}")
    rows: list[dict[str, object]] = []
    for name in names:
        with torch.device("meta"):
            model = create_model(name)
        operations = count_operations(model, size)
        rows.append(
            {
                "model": name,
                "parameters": sum(p.numel() for p in model.parameters()),
                "size": list(size),
                "gflops": round(operations.published / 1e9, 3),
                "macs": operations.macs,
                "imagenet_top1": PUBLISHED_TOP1[name],
            }
        )
    return rows


def print_table(rows: list[dict[str, object]], size: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "parameters", f"GFLOPs@{size}", "ImageNet top-1"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        parameters, gflops = row["parameters"], row["gflops"]
        assert isinstance(parameters, int)
        assert isinstance(gflops, float)
        table.add_row(
            str(row["model"]),
            f"{parameters / 1e6:.1f} M",
            f"{gflops:.2f}",
            f"{row['imagenet_top1']} %",
        )
    Console(highlight=False).print(table)


def say_heads() -> None:
    """What else can be built, on any of the models."""
    from ..models import list_heads

    heads = list_heads()
    sys.stdout.write(
        f"on any of them: {', '.join(heads)} (pvt train --model {heads[0]} --backbone NAME)\n"
    )


def list_weights(pattern: str, *, as_json: bool) -> None:
    """Prints the published weights whose name or model fits a pattern.

    Raises:
        UserError: There are none.
    """
    from ..weights.catalog import CATALOG
    from ..weights.download import cached_path

    found = [
        row
        for row in CATALOG
        if fnmatch.fnmatchcase(row.model, pattern) or fnmatch.fnmatchcase(row.name, pattern)
    ]
    if not found:
        known = [row.name for row in CATALOG]
        raise UserError(f"no weights are named {pattern}; nearest: {nearest(pattern, known)}")
    cached = [cached_path(row) for row in found]
    if as_json:
        rows = [
            asdict(row) | {"cached": None if path is None else str(path)}
            for row, path in zip(found, cached, strict=True)
        ]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        print_weights([(row, path is not None) for row, path in zip(found, cached, strict=True)])


def print_weights(rows: "list[tuple[Published, bool]]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("weights", "model", "source", "score", "size", "licence", "where"):
        table.add_column(heading, no_wrap=True)
    for row, is_cached in rows:
        where = {"url": "server", "hub": "hub", "drive": "Drive, by hand"}[row.place]
        masks = "" if row.mask_ap is None else f", mask AP {row.mask_ap}"
        table.add_row(
            row.name,
            row.model,
            row.source,
            f"{row.metric} {row.score}{masks}",
            row.size or "?",
            row.licence or "?",
            "here" if is_cached else where,
        )
    console = Console(highlight=False)
    console.width = max(console.width, 180)  # names are to be copied: better broken by the terminal
    console.print(table)
