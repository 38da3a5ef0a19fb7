"""The command `pvt`: one file a verb. Nothing heavy is imported before a verb runs."""

import importlib
import os
import sys
from dataclasses import dataclass

from ..errors import UserError, nearest, printable


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of the command. Its file in this folder has `run(arguments: list[str])`, which returns
    an exit code, or None for 0."""

    says: str
    example: str


VERBS = {
    "train": Verb(
        "train a classifier, detector or segmenter",
        "pvt train --data photos/ --model pvt_v2_b0 --epochs 20",
    ),
    "evaluate": Verb("score a checkpoint", "pvt evaluate best.safetensors --data photos/"),
    "predict": Verb(
        "classify pictures, find objects, label pixels",
        "pvt predict best.safetensors holiday.jpg pictures/",
    ),
    "embed": Verb(
        "write pictures' features", "pvt embed best.safetensors pictures/ --output features.parquet"
    ),
    "inspect": Verb("say what a checkpoint is", "pvt inspect pvt_v2_b2.pth"),
    "convert": Verb("write another library's names", "pvt convert in.pth out/ --to transformers"),
    "export": Verb(
        "write a file for ONNX, OpenVINO or torch alone",
        "pvt export best.safetensors --to onnx",
    ),
    "verify": Verb("compare with published logits", "pvt verify pvt_v2_b2.pth"),
    "data": Verb("check data and draw samples", "pvt data check photos/"),
    "benchmark": Verb(
        "measure side by side: models, detectors",
        "pvt benchmark pvt_v2_b0 pvt_v2_b2 --threads 1 --rounds 9",
    ),
    "plan": Verb(
        "tell memory, operations, time beforehand",
        "pvt plan pvt_v2_b2 --size 512 --batch-size 8 --memory 16",
    ),
    "sweep": Verb(
        "run a checkpoint over input sizes",
        "pvt sweep best.safetensors --data photos/ --sizes 128,160,224",
    ),
    "models": Verb("list the models", "pvt models 'pvt_v2*' --json"),
    "demo": Verb("train, evaluate and predict on real digits", "pvt demo"),
}

HELP = """usage: pvt VERB [options]

Pyramid Vision Transformers, PVT v1 and v2.

{verbs}

Options are --key value or key=value; `pvt VERB --help` lists them.
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 1 for faults that `pvt data check` found, 2 for
    a user's mistake, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return dispatch(arguments)
    except UserError as error:
        say_error(str(error))
        return 2
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left; there is nobody to tell
        return 1
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        say_error(f"cannot read or write{where}: {error.strerror or error}")
        return 2
    except KeyboardInterrupt as interrupt:
        say_error(f"interrupted; {interrupt}".removesuffix("; "))
        return 130


def dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        lines = [f"  {name:<9} {verb.says:<50} {verb.example}" for name, verb in VERBS.items()]
        sys.stdout.write(HELP.format(verbs="\n".join(lines)))
        return 0
    if arguments[0] == "--version":
        from .. import __version__

        sys.stdout.write(f"pyramidvit {__version__}\n")
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        raise UserError(f"unknown verb {verb}; nearest: {nearest(verb, VERBS)} (pvt --help)")
    code: int | None = importlib.import_module(f".{verb}", __name__).run(arguments[1:])
    return code or 0


def say_error(text: str) -> None:
    """Prints one line; of several processes, which all meet a user's mistake, the first does."""
    if int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0):
        return
    sys.stderr.write(f"error: {printable(' '.join(text.split()))}\n")
