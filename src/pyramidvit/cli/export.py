"""`pvt export`: a model as one file for other programs, in ONNX, OpenVINO or torch.export."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from ..errors import UserError
from . import VERBS
from .arguments import build_parser, parse

if TYPE_CHECKING:
    from torch import nn

DESCRIPTION = """Writes a classifier, a segmenter, or with --features the backbone of any checkpoint
as a file that runs without this package:
  onnx          one .onnx file, for onnxruntime and many others
  openvino      an .xml file and its .bin, for OpenVINO
  torch-export  one .pt2 file, for torch alone
It takes RGB pictures, float32 [B, 3, H, W] of values from 0 to 1, of any batch and of any size from
32 x 32 (torch-export: 64 x 64); the normalisation is inside. Before it is handed over it is run at
three sizes and compared with the model. onnx and openvino need pip install 'pyramidvit[export]'."""

Target = Literal["onnx", "openvino", "torch-export"]
STAGES = ("stride4", "stride8", "stride16", "stride32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What is to be exported.

    Attributes:
        name: Of the model.
        model: Normalised images to outputs; in evaluation mode, on the CPU.
        outputs: Their names.
        input: The checkpoint's input record, "mean" and "std" among it.
        metadata: What else the file shall say.
    """

    name: str
    model: "nn.Module"
    outputs: tuple[str, ...]
    input: dict[str, Any]
    metadata: dict[str, Any]


def run(arguments: list[str]) -> None:
    parsed = parse(make_parser(), arguments)
    export(parsed.checkpoint, parsed.to, parsed.output, features=parsed.features)


def make_parser() -> ArgumentParser:
    parser = build_parser("export", DESCRIPTION, VERBS["export"].example)
    parser.add_argument("checkpoint", type=str, help="File, directory, name or repository.")
    parser.add_argument("--to", type=Target, required=True, help="What kind of file to write.")
    parser.add_argument(
        "--output", type=str | None, help="File to write; without it, the model's name here."
    )
    parser.add_argument(
        "--features", action="store_true", help="Exports the backbone: its four maps."
    )
    return parser


def export(checkpoint: str, to: str, output: str | None = None, *, features: bool = False) -> Path:
    """Exports; returns the file that was written.

    Raises:
        UserError: The checkpoint cannot be used or is a detector's, a package is missing, the file
            exists or cannot be written, or it computes something else than the model.
    """
    from ..engine.report import Reporter
    from ..export.formats import FORMATS, check_packages
    from ..export.graph import Exportable
    from ..export.write import sizes_of, write

    check_packages(to)
    form = FORMATS[to]
    suffixes = form.suffixes
    if output is not None:
        check_output(Path(output), suffixes)
    opened = open_features(checkpoint) if features else open_whole(checkpoint)
    stem = f"{opened.name}-features" if features else opened.name
    path = Path(output or f"{stem}{suffixes[0]}")
    check_output(path, suffixes)
    reporter = Reporter()
    reporter.say("export", f"{opened.name} to {to}: {', '.join(opened.outputs)}")
    network = Exportable(opened.model, opened.input["mean"], opened.input["std"]).eval()
    sizes = [f"{height} x {width}" for height, width in sizes_of(form)]
    with reporter.progress("export", 1 + len(sizes)) as bar:
        most = write(network, path, to, describe(opened, form.min_side), bar.advance)
    reporter.say("compared", f"{', '.join(sizes)}: within {most:.0e} of the largest value")
    written = " ".join(str(path.with_suffix(suffix)) for suffix in suffixes)
    reporter.say("see", f"{written} ({path.with_suffix(suffixes[-1]).stat().st_size / 1e6:.1f} MB)")
    return path


def check_output(path: Path, suffixes: tuple[str, ...]) -> None:
    """Refuses a place that cannot take the files, before any work is done."""
    if path.suffix != suffixes[0]:
        raise UserError(f"--output {path}: the name must end in {suffixes[0]}")
    for file in (path.with_suffix(suffix) for suffix in suffixes):
        if file.exists():
            raise UserError(f"{file} exists; name another --output or remove it")
    if not path.resolve().parent.is_dir():
        raise UserError(f"--output {path}: the folder {path.parent} does not exist; make it")


def open_whole(path: str) -> Exported:
    """A classifier or a segmenter, with its head.

    Raises:
        UserError: It is a detector, or cannot be used.
    """
    from .tasks import open_checkpoint

    opened = open_checkpoint(path)
    if opened.task.name == "detection":
        raise UserError(
            f"{path} holds a detector: detectors are exported by a later version;"
            " --features exports its backbone"
        )
    return Exported(
        name=opened.name,
        model=opened.model,
        outputs=("logits",),
        input=opened.input_record,
        metadata={
            "task": opened.task.name,
            "class_names": list(opened.classes.names),
            "class_ids": list(opened.classes.ids),
        },
    )


def open_features(path: str) -> Exported:
    """The backbone of any checkpoint, as a pyramid of four maps.

    Raises:
        UserError: There is none in it, or not all of it.
    """
    from ..models import create_model
    from ..weights.checkpoint import read_checkpoint
    from ..weights.inputs import PUBLISHED
    from ..weights.load import load_weights, name_of
    from ..weights.places import find_weights
    from ..weights.recognise import find_pvt
    from .tasks import check_channels

    checkpoint = read_checkpoint(find_weights(path))
    found = find_pvt(checkpoint.state, path)
    if len(found.variants) != 1:
        raise UserError(f"{path} holds {name_of(found)}: it cannot be built")
    check_channels(path, found.in_chans)
    model = create_model(found.variants[0], features_only=True)
    load_weights(model, checkpoint)
    described = checkpoint.input or checkpoint.record.get("input") or PUBLISHED
    return Exported(
        name=found.variants[0],
        model=model.eval(),
        outputs=STAGES,
        input={"mean": numbers(described, "mean"), "std": numbers(described, "std")},
        metadata={"task": "features"},
    )


def numbers(described: Any, name: str) -> list[float]:
    """Three numbers of an input record.

    Raises:
        UserError: There are none.
    """
    try:
        values = [float(x) for x in described[name]]
    except (LookupError, TypeError, ValueError):
        values = []
    if len(values) != 3 or (name == "std" and min(values) <= 0):
        raise UserError(f"the checkpoint's description is damaged: no {name} of three channels")
    return values


def describe(opened: Exported, min_side: int) -> dict[str, Any]:
    """What the file says of itself."""
    from .. import __version__

    return {
        "pyramidvit": __version__,
        "model": opened.name,
        **opened.metadata,
        "inputs": ["images"],
        "outputs": list(opened.outputs),
        "min_side": min_side,
        "mean": list(opened.input["mean"]),
        "std": list(opened.input["std"]),
        "input": opened.input,
    }
