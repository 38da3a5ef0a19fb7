"""`pvt convert`: writes a checkpoint under the names of another library, bit for bit."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jsonargparse

from ..errors import UserError
from . import VERBS
from .arguments import build_parser, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ..weights.checkpoint import Checkpoint
    from ..weights.recognise import Found

DESCRIPTION = """Writes the PVT of any checkpoint that pvt inspect knows under other names:
  official      a plain state dict, .pth or .safetensors
  timm          the same, for timm.create_model(..., checkpoint_path=...); v2 only
  transformers  a directory for from_pretrained
  pyramidvit    our .safetensors, with classes and input described
  mmdetection   of a detector, all: .pth for the reference's detection code (mmdetection 2)
  mmdetection3  the same, for mmdetection 3 and its own PVT
  mmsegmentation  of Semantic FPN, all: .pth for the reference's segmentation code
  trans2seg     of Trans2Seg, all: a plain state dict for its authors' code
The others take of a detector or segmenter the PVT alone; but pyramidvit takes all, unless --prefix
names the PVT. The tensors keep every bit; what was written is read back and compared."""

Target = Literal[
    "official",
    "timm",
    "transformers",
    "pyramidvit",
    "mmdetection",
    "mmdetection3",
    "mmsegmentation",
    "trans2seg",
]


def run(arguments: list[str]) -> None:
    parsed = parse(make_parser(), arguments)
    convert(parsed.source, Path(parsed.output), parsed.to, parsed.prefix, ema=parsed.ema)


def make_parser() -> jsonargparse.ArgumentParser:
    parser = build_parser("convert", DESCRIPTION, VERBS["convert"].example)
    parser.add_argument("source", type=str, help="File, directory, name or repository.")
    parser.add_argument("output", type=str, help="What to write; must not exist.")
    parser.add_argument("--to", type=Target, required=True, help="Whose names to write.")
    parser.add_argument("--prefix", type=str | None, help="Which PVT of a file with several.")
    parser.add_argument("--ema", action="store_true", help="Takes the averaged weights.")
    return parser


def convert(source: str, output: Path, to: str, prefix: str | None, *, ema: bool = False) -> None:
    """Converts, reads back and compares.

    Raises:
        UserError: The source cannot be read or is not whole, or the output exists already.
    """
    from ..weights.checkpoint import read_checkpoint
    from ..weights.places import find_weights
    from ..weights.recognise import find_pvt
    from .convert_detector import convert_detector, is_for_detectors

    if output.exists():
        raise UserError(f"{output} exists already: choose another name, or remove it first")
    if not output.resolve().parent.is_dir():
        raise UserError(f"no such folder: {output.parent}")
    path = find_weights(source)
    checkpoint = read_checkpoint(path, ema=ema)
    with written_whole(output) as partial:
        if is_for_detectors(checkpoint, to, prefix):
            lines = convert_detector(checkpoint, output, partial, to)
        else:
            found = find_pvt(checkpoint.state, str(path), prefix)
            check_whole(found, checkpoint, prefix)
            write(partial, found, checkpoint, to)
            compare(found.state, find_pvt(read_checkpoint(partial).state, "it").state, output)
            lines = report(found, checkpoint, output, to)
    for label, text in lines:
        sys.stdout.write(f" {label:<11} {text}\n")


@contextmanager
def written_whole(output: Path) -> Iterator[Path]:
    """A place beside `output` that becomes it in the end; interrupted, nothing half-written stays.

    Its name has the same ending, which says what is to be written.
    """
    partial = output.with_name(f".partial-{output.name}")
    try:
        yield partial
        partial.rename(output)
    except UserError as error:  # it should name the place that was asked for
        raise UserError(str(error).replace(str(partial), str(output))) from error
    finally:
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)


def write(output: Path, found: "Found", checkpoint: "Checkpoint", to: str) -> None:
    """Writes the PVT under the names that `to` asks for."""
    from ..weights.convert import write_official, write_timm, write_transformers
    from ..weights.inputs import PUBLISHED

    if to == "official":
        write_official(output, found)
    elif to == "timm":
        write_timm(output, found)
    elif to == "transformers":
        names = fitting_classes(found, checkpoint)
        write_transformers(output, found, names, checkpoint.input or PUBLISHED)
    else:
        write_ours(output, found, checkpoint)


def check_whole(found: "Found", checkpoint: "Checkpoint", prefix: str | None) -> None:
    """Refuses what does not fill a model of the tables, before anything is written."""
    from ..models import create_model
    from ..weights.load import load_weights, name_of

    where = checkpoint.where
    if found.unknown:
        raise UserError(f"{where}: nothing explains {', '.join(found.unknown[:3])}")
    if len(found.variants) != 1:
        raise UserError(f"{where} holds {name_of(found)}: only whole published models convert")
    name = found.variants[0]
    if found.num_classes is None:
        pyramid = create_model(name, features_only=True, in_chans=found.in_chans)
        load_weights(pyramid, checkpoint, prefix=prefix)
    else:
        model = create_model(name, num_classes=found.num_classes, in_chans=found.in_chans)
        load_weights(model, checkpoint, prefix=prefix, new_head=False)


def fitting_classes(found: "Found", checkpoint: "Checkpoint") -> tuple[str, ...] | None:
    """The file's class names, if they are those of its classifier and not of a detector."""
    names = checkpoint.classes
    return names if names is not None and len(names) == found.num_classes else None


def write_ours(output: Path, found: "Found", checkpoint: "Checkpoint") -> None:
    """Writes our own format; the record of one of our files is kept as it is."""
    from .. import __version__
    from ..weights.checkpoint import save_checkpoint
    from .tasks import describe_classifier

    if output.suffix != ".safetensors":
        raise UserError(f"{output}: give the file a name that ends in .safetensors")
    record: dict[str, Any] = checkpoint.record
    if not record and found.num_classes is not None:
        record = {
            "version": __version__,
            **describe_classifier(found, fitting_classes(found, checkpoint), checkpoint.input),
        }
    save_checkpoint(output, found.state, record)


def compare(before: "Mapping[str, Tensor]", after: "Mapping[str, Tensor]", output: Path) -> None:
    """Holds what was written against what was read, bit for bit."""
    import torch

    same = before.keys() == after.keys() and all(
        value.dtype == after[name].dtype and torch.equal(value, after[name])
        for name, value in before.items()
    )
    if not same:
        raise UserError(f"{output} does not hold what was read; do not use it, and report this")


def report(
    found: "Found", checkpoint: "Checkpoint", output: Path, to: str
) -> list[tuple[str, str]]:
    """What was done, in labelled lines."""
    from ..weights.load import epsilon_note

    left_out = f"; {len(found.outside)} tensors outside the PVT left out" if found.outside else ""
    what = f"{found.variants[0]}, {len(found.state)} tensors"
    lines = [("read", f"{checkpoint.where}: {what}, {found.naming.source} names{left_out}")]
    lines.append(("written", f"{output}: {to} names, read back and equal bit for bit"))
    if "transformers" in (to, found.naming.source):
        lines.append(("note", epsilon_note(checkpoint.config)))
    if to == "transformers":
        lines.append(("", "docs/weights.md shows how to set its epsilons to the reference's"))
    return lines
