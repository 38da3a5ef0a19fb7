"""`pvt demo`: the whole program on real images, in a few minutes and with nothing to give."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from jsonargparse import ArgumentParser

from ..options import require
from . import VERBS
from .arguments import build_parser, parse, to_options

DESCRIPTION = """Trains pvt_v2_b0 on 1,438 scans of handwritten digits, scores it on 359 others,
predicts some of them, and shows where the pictures are. About two minutes on two cores."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of the demonstration.

    Args:
        output: Folder to create; without it, demo/classification-<number>.
        epochs: Passes over the training images.
    """

    output: str | None = None
    epochs: int = 20


def run(arguments: list[str]) -> None:
    demo(to_options(DemoOptions, parse(make_parser(), arguments)))


def make_parser() -> ArgumentParser:
    parser = build_parser("demo", DESCRIPTION, VERBS["demo"].example)
    parser.add_class_arguments(DemoOptions, None)
    return parser


def demo(options: DemoOptions) -> None:
    from ..engine.folders import make_folder
    from ..engine.report import Reporter
    from ..tasks.classification.config import ClassificationOptions, recipe_changes
    from .evaluate import EvaluateOptions, evaluate
    from .predict import PredictOptions, predict
    from .train import train

    require(options, "epochs", options.epochs >= 1, "1 or more")
    folder = make_folder(options.output, "demo", "classification")
    settings = ClassificationOptions(recipe="digits", output=str(folder / "run"))
    changes = recipe_changes("digits", settings.model) | {"epochs": options.epochs}
    settings = replace(settings, **changes)
    started = time.perf_counter()
    train(settings)
    seconds = time.perf_counter() - started

    best = str(folder / "run" / "best.safetensors")
    reporter = Reporter()
    reporter.say("trained", f"in {seconds:.0f} s; now the best weights, on the held-out images:")
    evaluate(best, EvaluateOptions(output=str(folder / "evaluation")))
    files = write_digits(folder / "digits")
    predict(best, [str(files)], PredictOptions(output=str(folder / "predictions")))
    reporter.say("pictures", "")
    for name in (
        "run/samples.png",
        "run/curves.png",
        "run/confusion.png",
        "run/predictions.png",
        "predictions/",
    ):
        reporter.say("", str(folder / name))


def write_digits(folder: Path, count: int = 12) -> Path:
    """Writes some held-out digits as picture files, for prediction."""
    from PIL.Image import Image

    from ..data.digits import load_digit_data
    from ..structures import ClassTarget

    data = load_digit_data(seed=0)
    source = data.splits["validation"]
    folder.mkdir(parents=True)
    step = len(source) // count
    for number in range(count):
        sample = source[number * step]
        assert isinstance(sample.image, Image)
        assert isinstance(sample.target, ClassTarget)
        truth = data.classes.names[sample.target.label]
        sample.image.save(folder / f"{sample.origin.name}-{truth}.png")
    return folder
