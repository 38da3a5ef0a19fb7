"""What the verbs share: tasks, data and checkpoints from what the user typed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..data.detection import load_detection_data
from ..data.digits import load_digit_data
from ..data.image_folder import load_image_folder
from ..data.scenes import load_scene_data, load_scene_maps
from ..data.segmentation import load_segmentation_data
from ..data.source import DataSet
from ..engine.report import Reporter
from ..errors import UserError
from ..models import create_model
from ..options import is_embedded
from ..structures import Classes
from ..task import Task
from ..tasks.classification.config import ClassificationOptions
from ..tasks.classification.task import CLASSIFICATION
from ..tasks.detection import foreign as detector
from ..tasks.detection.config import DetectionOptions
from ..tasks.detection.task import DETECTION
from ..tasks.segmentation import foreign as segmenter
from ..tasks.segmentation.config import SegmentationOptions
from ..tasks.segmentation.task import SEGMENTATION
from ..weights.checkpoint import Checkpoint, read_checkpoint
from ..weights.load import load_weights, name_of
from ..weights.load_detector import load_detector
from ..weights.places import find_weights
from ..weights.recognise import Found, find_pvt
from .kinds import HEADS

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, DETECTION, SEGMENTATION)}
PUBLISHED: dict[str, tuple[Task, Any]] = {  # input as in the papers
    "detection": (DETECTION, DetectionOptions(short_side=800, long_side=1333)),
    "segmentation": (
        SEGMENTATION,
        SegmentationOptions(short_side=512, long_side=2048, aligned=True),
    ),
}


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """What a checkpoint remembers of its data: enough to find the held-out part again."""

    data: str | None  # None: the digits
    seed: int
    held_out: float
    max_detections: int = 0  # how many of an image its figures counted; 0: as COCO does
    tile: int = 0  # side of the windows that it learnt from; 0: whole images


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A checkpoint ready for use.

    Attributes:
        name: The model's.
        model: In evaluation mode, on the CPU.
        classes: The label contract; of a foreign file, numbered names.
        named: False for a foreign file, which names no classes.
        input_record: What the model's input must be like.
        trained_on: Which data it was trained on; None for a foreign file.
    """

    task: Task
    name: str
    model: nn.Module
    classes: Classes
    named: bool
    input_record: dict[str, Any]
    trained_on: TrainedOn | None


def open_checkpoint(path: str, model: str | None = None) -> Opened:
    """Builds the model of a checkpoint and fills it.

    Args:
        path: A checkpoint file or directory, ours or foreign, or the name of published weights.
        model: The model's name, to be compared with what the file holds.

    Raises:
        UserError: Unreadable, damaged, not fitting, another model than `model`, or a backbone
            alone.
    """
    checkpoint = read_checkpoint(find_weights(path))
    record = checkpoint.record or describe_head(path, checkpoint)
    if not record:
        return open_foreign(path, checkpoint, model)
    try:
        task = TASKS[record["task"]]
        classes = Classes.from_records(record["classes"])
        named = str(record["model"]["name"])
        check_channels(path, find_pvt(checkpoint.state, path).in_chans)
        built = task.rebuild({**record["model"], "num_classes": len(classes), "in_chans": 3})
        input_record = record["input"]
        task.eval_transform(input_record)
        trained_on = read_training(record)
    except UserError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{path}: its description is damaged ({error!r})") from error
    check_model(path, named, model)
    if task is not CLASSIFICATION:
        load_detector(built, checkpoint, path, exact=True)
    else:
        load_weights(built, checkpoint, new_head=False)
    return Opened(
        task=task,
        name=named,
        model=built.eval(),
        classes=classes,
        named=record.get("named", True) is True,
        input_record=input_record,
        trained_on=trained_on,
    )


def read_training(record: dict[str, Any]) -> TrainedOn | None:
    """What our record says of the training data; a converted file says nothing."""
    trained = record.get("options")
    if trained is None:
        return None
    return TrainedOn(
        data=None if trained["data"] is None else str(trained["data"]),
        seed=int(trained["seed"]),
        held_out=float(trained["held_out"]),
        max_detections=int(trained.get("max_detections", 0)),
        tile=int(trained.get("tile", 0)),
    )


def check_model(path: str, found: str, asked: str | None) -> None:
    if asked is not None and asked != found:
        raise UserError(f"{path} holds {found}, not {asked}: leave --model out")


def check_channels(path: str, in_chans: int) -> None:
    """Refuses a model for other than colour pictures, which is what can be read."""
    if in_chans != 3:
        raise UserError(f"{path} is for images of {in_chans} channels; pictures have 3")


def describe_head(path: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """The record that our own file of a foreign detector or segmenter would have; of others, {}."""
    if detector.holds_detector(checkpoint):
        return make_record(checkpoint, detector.describe_file(checkpoint, path))
    if segmenter.holds_segmenter(checkpoint):
        return make_record(checkpoint, segmenter.describe_file(checkpoint, path))
    return {}


def make_record(checkpoint: Checkpoint, model: dict[str, Any]) -> dict[str, Any]:
    """The record of a detector or segmenter; its input is that of the published ones."""
    task, options = PUBLISHED[HEADS[model["name"]]]
    count = model["num_classes"]
    names = checkpoint.classes
    named = names is not None and len(names) == count
    shown = names if names is not None and named else [f"class {k}" for k in range(count)]
    return {
        "task": task.name,
        "model": model,
        "classes": Classes(names=tuple(shown), ids=tuple(range(count))).to_records(),
        "named": named,
        "input": task.describe_input(options),
    }


def open_foreign(path: str, checkpoint: Checkpoint, model: str | None) -> Opened:
    """Somebody else's classifier: its model is told by its shapes, its classes perhaps not."""
    found = find_pvt(checkpoint.state, path)
    if len(found.variants) != 1:
        raise UserError(f"{path} holds {name_of(found)}: it cannot be built")
    if found.num_classes is None:
        raise UserError(f"{path} has no classifier head: train one with pvt train --pretrained")
    check_model(path, found.variants[0], model)
    check_channels(path, found.in_chans)
    built = create_model(found.variants[0], num_classes=found.num_classes, in_chans=found.in_chans)
    load_weights(built, checkpoint, new_head=False)
    names = checkpoint.classes
    named = names is not None and len(names) == found.num_classes
    record = describe_classifier(found, names if named else None, checkpoint.input)
    return Opened(
        task=CLASSIFICATION,
        name=found.variants[0],
        model=built.eval(),
        classes=Classes.from_records(record["classes"]),
        named=named,
        input_record=record["input"],
        trained_on=None,
    )


def describe_classifier(
    found: Found, names: Sequence[str] | None, described: dict[str, Any] | None
) -> dict[str, Any]:
    """The record that our own file of a foreign classifier would have.

    Its input is what the file described, or that of the published classifiers.
    """
    count = found.num_classes or 0
    shown = tuple(names or assumed_names(count))
    return {
        "task": CLASSIFICATION.name,
        "model": {"name": found.variants[0], "num_classes": count, "in_chans": found.in_chans},
        "classes": Classes(names=shown, ids=tuple(range(count))).to_records(),
        "named": names is not None,
        "input": described or CLASSIFICATION.describe_input(ClassificationOptions()),
    }


def assumed_names(count: int) -> tuple[str, ...]:
    """Names where a file has none; 1000 classes are taken for ImageNet-1K in its usual order."""
    if count != 1000:
        return tuple(f"class {k}" for k in range(count))
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    names = [info.index_to_description(k).split(",")[0] for k in range(count)]
    counts = Counter(names)  # a crane is a bird and a machine
    return tuple(n if counts[n] == 1 else f"{n} ({k})" for k, n in enumerate(names))


def note_windows(opened: Opened, tile: int, reporter: Reporter) -> None:
    """Says how images are to be looked at, where they are not looked at as in training."""
    side = opened.trained_on.tile if opened.trained_on else 0
    if side and not tile:
        reporter.say("note", f"it learnt from windows: --tile {side} looks at large images so too")


def load_data(
    task: str,
    place: str | None,
    *,
    seed: int,
    held_out: float,
    classes: Classes | None = None,
    need_masks: bool = False,
) -> DataSet:
    """The data of a task at a place; what ships with the package where none is named.

    That is, for detection and segmentation scenes, and otherwise single digits. With `need_masks`,
    objects of detection must have masks.
    """
    if task == "detection":
        if place is None or is_embedded(place):
            return load_scene_data(seed=seed)
        return load_detection_data(
            place, seed=seed, held_out=held_out, classes=classes, need_masks=need_masks
        )
    if task == "segmentation":
        if place is None or is_embedded(place):
            return load_scene_maps(seed=seed)
        return load_segmentation_data(place, seed=seed, held_out=held_out, classes=classes)
    if place is None or is_embedded(place):
        return load_digit_data(seed=seed, held_out=held_out)
    return load_image_folder(place, seed=seed, held_out=held_out, classes=classes)
