"""`pvt demo`: the whole program on real images, in a few minutes and with nothing to give."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser

from ..errors import UserError, nearest
from ..options import require
from . import VERBS
from .arguments import build_parser, parse, to_options

if TYPE_CHECKING:
    from ..engine.report import Reporter

DESCRIPTION = """Trains on the scans of handwritten digits that ship with scikit-learn, scores the
result on others, predicts some of them, and shows where the pictures are.
  classification  pvt_v2_b0 on single digits; about two minutes on two cores
  detection       the same, and from its weights Mask R-CNN on scenes of digits, with boxes
                  and masks; about seven minutes
  segmentation    the same, and from its weights Semantic FPN on those scenes, pixel by
                  pixel; about six minutes
  all             classification, and short versions of the others; about seven minutes"""

What = Literal["classification", "detection", "segmentation", "all"]
WHATS: tuple[What, ...] = ("classification", "detection", "segmentation", "all")


@dataclass(frozen=True, slots=True)
class Scenes:
    """A network that learns from scenes of digits.

    Attributes:
        task: Its name, and that of its folder.
        model: The network.
        full: Epochs when it is shown alone.
        short: Epochs when all is shown.
        pictures: What a run leaves to be looked at.
    """

    task: str
    model: str
    full: int
    short: int
    pictures: tuple[str, ...]


SCENES = (
    Scenes(
        "detection",
        "mask_rcnn",
        full=2,
        short=1,
        pictures=("samples", "curves", "precision_recall", "confusion", "predictions"),
    ),
    Scenes(
        "segmentation",
        "semantic_fpn",
        full=3,
        short=1,
        pictures=("samples", "curves", "confusion", "predictions"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of the demonstration.

    Args:
        output: Folder to create; without it, demo/<what>-<number>.
        epochs: Passes over the single digits.
        scene_epochs: Passes over the scenes; -1 takes what the words above promise.
    """

    output: str | None = None
    epochs: int = 20
    scene_epochs: int = -1


def run(arguments: list[str]) -> None:
    parsed = parse(make_parser(), arguments)
    if parsed.what not in WHATS:
        raise UserError(f"unknown demo {parsed.what}; nearest: {nearest(parsed.what, WHATS)}")
    demo(parsed.what, to_options(DemoOptions, parsed))


def make_parser() -> ArgumentParser:
    parser = build_parser("demo", DESCRIPTION, VERBS["demo"].example)
    parser.add_argument("what", type=str, nargs="?", default="all", help="What to show.")
    parser.add_class_arguments(DemoOptions, None)
    return parser


def demo(what: What, options: DemoOptions) -> Path:
    """Shows one task, or all of them; returns the folder of all that was made."""
    from ..engine.folders import make_folder
    from ..engine.report import Reporter

    require(options, "epochs", options.epochs >= 1, "1 or more")
    epochs = options.scene_epochs
    require(options, "scene_epochs", epochs == -1 or epochs >= 1, "-1, or 1 or more")
    folder = make_folder(options.output, "demo", what)
    reporter = Reporter()
    classify_digits(folder / "classification", options.epochs, reporter)
    weights = folder / "classification" / "run" / "best.safetensors"
    for scenes in SCENES:
        if what in (scenes.task, "all"):
            promised = scenes.short if what == "all" else scenes.full
            count = promised if epochs == -1 else epochs
            learn_scenes(scenes, folder / scenes.task, weights, count, reporter)
    return folder


def classify_digits(folder: Path, epochs: int, reporter: "Reporter") -> None:
    """Trains a classifier on single digits, scores it, predicts twelve of them."""
    from ..tasks.classification.config import ClassificationOptions, recipe_changes
    from .evaluate import EvaluateOptions, evaluate
    from .predict import PredictOptions, predict
    from .train import train

    settings = ClassificationOptions(recipe="digits", output=str(folder / "run"))
    changes = recipe_changes("digits", settings.model) | {"epochs": epochs}
    started = time.perf_counter()
    train(replace(settings, **changes))
    best = say_trained(folder, started, reporter)
    evaluate(best, EvaluateOptions(output=str(folder / "evaluation")))
    files = write_digits(folder / "digits")
    predict(best, [str(files)], PredictOptions(output=str(folder / "predictions")))
    say_pictures(folder, ("samples", "curves", "confusion", "predictions"), reporter)


def learn_scenes(
    scenes: Scenes, folder: Path, weights: Path, epochs: int, reporter: "Reporter"
) -> None:
    """Trains a network on scenes of digits, scores it, draws what it says of twelve of them."""
    from .evaluate import EvaluateOptions, evaluate
    from .kinds import KINDS
    from .predict import PredictOptions, predict
    from .train import train

    kind = KINDS[scenes.task]
    settings = kind.options(recipe="scenes", model=scenes.model, pretrained=str(weights))
    changes = kind.changes("scenes", settings)
    started = time.perf_counter()
    train(replace(settings, **changes | {"epochs": epochs, "output": str(folder / "run")}))
    best = say_trained(folder, started, reporter)
    evaluate(best, EvaluateOptions(output=str(folder / "evaluation")))
    files = write_scenes(folder / "scenes")
    predict(best, [str(files)], PredictOptions(output=str(folder / "predictions")))
    say_pictures(folder, scenes.pictures, reporter)


def say_trained(folder: Path, started: float, reporter: "Reporter") -> str:
    """Says how long it took; returns the best weights."""
    seconds = time.perf_counter() - started
    reporter.say("trained", f"in {seconds:.0f} s; now the best weights, on the held-out images:")
    return str(folder / "run" / "best.safetensors")


def say_pictures(folder: Path, names: tuple[str, ...], reporter: "Reporter") -> None:
    reporter.say("pictures", "")
    for name in names:
        reporter.say("", str(folder / "run" / f"{name}.png"))
    reporter.say("", str(folder / "predictions/"))


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


def write_scenes(folder: Path, count: int = 12) -> Path:
    """Writes some held-out scenes as picture files, for prediction."""
    from PIL.Image import Image

    from ..data.scenes import load_scene_data

    source = load_scene_data(seed=0).splits["validation"]
    folder.mkdir(parents=True)
    for number in range(count):
        sample = source[number]
        assert isinstance(sample.image, Image)
        sample.image.save(folder / f"{sample.origin.name}.png")
    return folder
