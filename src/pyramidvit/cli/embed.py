"""`pvt embed`: the features of pictures, into one Parquet file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from ..errors import UserError
from ..options import require
from . import VERBS
from .arguments import build_parser, parse, to_options

if TYPE_CHECKING:
    from ..engine.report import Reporter

DESCRIPTION = """Writes what the head of a classifier reads, a vector for each picture, into one
Parquet file with the columns path (string) and features (float32). Pictures: files, folders
(with all below them) and quoted patterns."""


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """Options of an embedding.

    Args:
        model: Name of the model, for a checkpoint that does not say it.
        batch_size: Pictures a step.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "float32", or "bf16" for mixed precision.
        workers: Picture-reading processes; -1 decides by the machine.
        output: Parquet file to write; there must be none of that name.
    """

    model: str | None = None
    batch_size: int = 16
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    workers: int = -1
    output: str = "features.parquet"


def run(arguments: list[str]) -> None:
    parsed = parse(make_parser(), arguments)
    embed(parsed.checkpoint, parsed.images, to_options(EmbedOptions, parsed))


def make_parser() -> ArgumentParser:
    parser = build_parser("embed", DESCRIPTION, VERBS["embed"].example)
    parser.add_argument("checkpoint", type=str, help="Checkpoint file.")
    parser.add_argument("images", type=str, nargs="+", help="Files, folders, patterns.")
    parser.add_class_arguments(EmbedOptions, None)
    return parser


def embed(checkpoint: str, images: list[str], options: EmbedOptions) -> Path:
    """Embeds; returns the file that was written.

    Raises:
        UserError: The checkpoint is none of a classifier, a place does not exist, no picture can be
            read, or the output cannot be written.
    """
    from ..data.picture_list import list_pictures
    from ..engine.device import build_fabric, reading_processes
    from ..engine.features import PooledFeatures, to_rows, write_features
    from ..engine.predict import predict
    from ..engine.report import Reporter
    from .tasks import open_checkpoint

    require(options, "batch_size", options.batch_size >= 1, "1 or more")
    source = list_pictures(images)
    output = Path(options.output)
    check_file(output)
    opened = open_checkpoint(checkpoint, options.model)
    if not hasattr(opened.model, "forward_head"):
        raise UserError(f"{checkpoint} holds no classifier, and pvt embed needs one")
    fabric = build_fabric(options.device, 1, options.precision)
    model = PooledFeatures(opened.model).eval().to(fabric.device)
    results = predict(
        fabric,
        replace(opened.task, postprocess=to_rows),
        model,
        source,
        opened.input_record,
        batch_size=options.batch_size,
        workers=reading_processes(options.workers, in_memory=len(source) < 32, ranks=1),
    )
    description = {
        "model": opened.name,
        "checkpoint": Path(checkpoint).name,
        "input": opened.input_record,
    }
    reporter = Reporter()
    count = write_features(output, whole_ones(results, len(source), reporter), description)
    failed = len(source) - count
    if not count:
        raise UserError(f"none of the {failed} images could be read; {output} is not written")
    shape = f"{count} x {opened.model.num_features} features"
    reporter.say("see", f"{output}: {shape}" + (f" ({failed} skipped)" if failed else ""))
    return output


def check_file(output: Path) -> None:
    """Refuses a place that cannot take the file, before any work is done."""
    if output.exists():
        raise UserError(f"{output} exists; name another --output or remove it")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: the folder {output.parent} does not exist; make it")


def whole_ones(
    results: Iterable[tuple[str, Any]], count: int, reporter: "Reporter"
) -> Iterator[tuple[str, Any]]:
    """The pictures that could be read; the others are named and passed over."""
    from ..data.images import BrokenImage

    with reporter.progress("embed", count) as bar:
        for name, result in results:
            bar.advance()
            if isinstance(result, BrokenImage):
                reporter.say("skipped", str(result))
            else:
                yield name, result
