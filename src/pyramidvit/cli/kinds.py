"""What `pvt train` must know of a task before anything heavy is imported."""

import difflib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from ..options import TrainOptions, is_embedded
from ..tasks.classification import config as classification
from ..tasks.detection import config as detection

CLASSIFIES = """Trains a classifier on a folder of class folders (class/image.jpg, or
train/class/... and validation/class/...); without --data on handwritten digits.
For detectors: pvt train --model retinanet --help (or faster_rcnn, mask_rcnn).

recipes: light (the defaults below, for small data), finetune (small data and a
--pretrained checkpoint), paper (ImageNet-1K as published), digits; auto takes digits
for the embedded digits and light for anything else."""
DETECTS = """Trains a detector on pictures with boxes and masks: COCO json, Pascal VOC XML or
YOLO text (see docs/data.md); without --data on scenes of handwritten digits.

recipes: light (the defaults below, for small data), 1x and 3x (COCO as published),
scenes; auto takes scenes for the embedded scenes and light for anything else."""


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
    """

    task: str
    options: type[TrainOptions]
    recipes: Sequence[str]
    changes: Callable[[str, Any], dict[str, Any]]
    check: Callable[[Any], None]
    embedded: str
    says: str


KINDS = {
    "classification": Kind(
        task="classification",
        options=classification.ClassificationOptions,
        recipes=tuple(classification.RECIPES),
        changes=lambda recipe, given: classification.recipe_changes(recipe, given.model),
        check=classification.check_options,
        embedded="digits",
        says=CLASSIFIES,
    ),
    "detection": Kind(
        task="detection",
        options=detection.DetectionOptions,
        recipes=tuple(detection.RECIPES),
        changes=lambda recipe, given: detection.recipe_changes(recipe, given.model, given.backbone),
        check=detection.check_options,
        embedded="scenes",
        says=DETECTS,
    ),
}


def kind_of(model: str | None) -> Kind:
    """The task follows from the model; a name that is no detector's is taken for a classifier.

    Raises:
        UserError: It looks like a detector's with a slip in it.
    """
    slip = difflib.get_close_matches(model or "", detection.DETECTORS, n=1, cutoff=0.75)
    if slip and model not in detection.DETECTORS:
        raise UserError(f"unknown model {model}; nearest: {slip[0]}")
    return KINDS["detection" if model in detection.DETECTORS else "classification"]


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
