"""What `pvt train` must know of a task before anything heavy is imported."""

import difflib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import UserError
from ..options import TrainOptions, is_embedded
from ..tasks.classification import config as classification
from ..tasks.detection import config as detection
from ..tasks.detection.table import DETECTORS
from ..tasks.segmentation import config as segmentation
from . import VERBS

if TYPE_CHECKING:
    from ..data.source import DataSet
    from ..engine.report import Reporter

CLASSIFIES = """Trains a classifier on a folder of class folders (class/image.jpg, or
train/class/... and validation/class/...); without --data on handwritten digits.
For detectors: pvt train --model retinanet --help (or faster_rcnn, mask_rcnn); for
segmenters: pvt train --model semantic_fpn --help (or trans2seg).

recipes: light (the defaults below, for small data), finetune (small data and a
--pretrained checkpoint), paper (ImageNet-1K as published), digits; auto takes digits
for the embedded digits and light for anything else."""
DETECTS = """Trains a detector on pictures with boxes and masks: COCO json, Pascal VOC XML or
YOLO text (see docs/data.md); without --data on scenes of handwritten digits.

recipes: light (the defaults below, for small data), 1x, 3x and 50ep (COCO as published),
scenes; auto takes scenes for the embedded scenes and light for anything else."""
SEGMENTS = """Trains a segmenter on pictures with a label for every pixel: folders of pictures
and PNG maps, COCO or Pascal VOC (see docs/data.md); without --data on scenes of
handwritten digits.

recipes: light (the defaults below, for small data), ade20k (as published), scenes;
auto takes scenes for the embedded scenes and light for anything else."""


def as_given(options: Any, data: "DataSet", reporter: "Reporter") -> Any:
    """Most tasks measure nothing on the data before they train."""
    return options


def with_class_weights(options: Any, data: "DataSet", reporter: "Reporter") -> Any:
    """The options with the weights of the classes, measured as `balance` asks, if it does."""
    if options.balance == "none" or options.class_weights:
        return options
    from ..data.segmentation import class_shares
    from ..tasks.segmentation.balance import weights_of

    source = data.splits["train"]
    with reporter.progress("class shares", len(source)) as bar:
        shares = class_shares(source, bar.advance)
    return replace(options, class_weights=weights_of(shares, options.balance))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A task on the command line.

    Attributes:
        task: Its name.
        options: The class of its options.
        recipes: Names of its recipes.
        changes: (recipe, parsed options) to what the recipe changes in the defaults.
        check: Refuses options out of range.
        embedded: The recipe for the data that ships with the package.
        says: What its help says first.
        example: A command, which its help shows last.
        measure: (options, data, reporter) to options with what follows from the data filled in.
    """

    task: str
    options: type[TrainOptions]
    recipes: Sequence[str]
    changes: Callable[[str, Any], dict[str, Any]]
    check: Callable[[Any], None]
    embedded: str
    says: str
    example: str
    measure: Callable[[Any, "DataSet", "Reporter"], Any] = as_given


KINDS = {
    "classification": Kind(
        task="classification",
        options=classification.ClassificationOptions,
        recipes=tuple(classification.RECIPES),
        changes=lambda recipe, given: classification.recipe_changes(recipe, given.model),
        check=classification.check_options,
        embedded="digits",
        says=CLASSIFIES,
        example=VERBS["train"].example,
    ),
    "detection": Kind(
        task="detection",
        options=detection.DetectionOptions,
        recipes=tuple(detection.RECIPES),
        changes=lambda recipe, given: detection.recipe_changes(recipe, given.model, given.backbone),
        check=detection.check_options,
        embedded="scenes",
        says=DETECTS,
        example="pvt train --data coco/ --model retinanet --backbone pvt_v2_b0",
    ),
    "segmentation": Kind(
        task="segmentation",
        options=segmentation.SegmentationOptions,
        recipes=tuple(segmentation.RECIPES),
        changes=lambda recipe, given: segmentation.recipe_changes(
            recipe, given.model, given.backbone
        ),
        check=segmentation.check_options,
        embedded="scenes",
        says=SEGMENTS,
        example="pvt train --data maps/ --model semantic_fpn --backbone pvt_v2_b0",
        measure=with_class_weights,
    ),
}


def tasks_of_heads() -> dict[str, str]:
    """The models that are put on a backbone, and the tasks that follow from them."""
    return {
        **dict.fromkeys(DETECTORS, "detection"),
        **dict.fromkeys(segmentation.SEGMENTERS, "segmentation"),
    }


def kind_of(model: str | None) -> Kind:
    """The task follows from the model; a name that is no detector's and no segmenter's is taken for
    a classifier.

    Raises:
        UserError: It looks like one of theirs with a slip in it.
    """
    heads = tasks_of_heads()
    slip = difflib.get_close_matches(model or "", heads, n=1, cutoff=0.75)
    if slip and model not in heads:
        raise UserError(f"unknown model {model}; nearest: {slip[0]}")
    return KINDS[heads.get(model or "", "classification")]


def named_model(arguments: Sequence[str]) -> str | None:
    """The model that a command line names, itself or in the YAML file of `--config`."""
    named = None
    for word, following in itertools.pairwise([*arguments, ""]):
        key, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and not equals:
            value = following
        elif not equals:
            continue
        if key == "config" and named is None:
            named = model_in(Path(value))
        if key == "model":
            named = value
    return named


def model_in(path: Path) -> str | None:
    """The model of a YAML file; what is wrong with the file is told when it is read in earnest."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    model = content.get("model") if isinstance(content, dict) else None
    return model if isinstance(model, str) else None


def pick_recipe(kind: Kind, data: str | None) -> str:
    """The recipe that "auto" stands for."""
    return kind.embedded if is_embedded(data) else "light"
