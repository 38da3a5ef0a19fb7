"""What the verbs share: tasks, data and checkpoints from what the user typed."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..data.digits import load_digit_data
from ..data.image_folder import load_image_folder
from ..data.source import DataSet
from ..errors import UserError
from ..models import create_model
from ..options import is_embedded
from ..structures import Classes
from ..task import Task
from ..tasks.classification.config import ClassificationOptions
from ..tasks.classification.task import CLASSIFICATION
from ..weights.checkpoint import read_checkpoint
from ..weights.load import head_size, load_weights

TASKS: dict[str, Task] = {"classification": CLASSIFICATION}


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """What a checkpoint remembers of its data: enough to find the held-out part again."""

    data: str | None  # None: the digits
    seed: int
    held_out: float


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A checkpoint ready for use.

    Attributes:
        model: In evaluation mode, on the CPU.
        classes: The label contract; of a foreign file, numbered names.
        named: False for a foreign file, which names no classes.
        input_record: What the model's input must be like.
        trained_on: Which data it was trained on; None for a foreign file.
    """

    task: Task
    model: nn.Module
    classes: Classes
    named: bool
    input_record: dict[str, Any]
    trained_on: TrainedOn | None


def open_checkpoint(path: str, model: str | None) -> Opened:
    """Builds the model of a checkpoint and fills it.

    Args:
        path: Ours, or with `model` an official file.
        model: The model's name, for a file that does not say it.

    Raises:
        UserError: Unreadable, damaged, not fitting, or a foreign file without `model`.
    """
    checkpoint = read_checkpoint(path)
    if not checkpoint.record:
        return open_foreign(path, checkpoint.state, model)
    try:
        record = checkpoint.record
        trained = record["options"]
        trained_on = TrainedOn(
            data=None if trained["data"] is None else str(trained["data"]),
            seed=int(trained["seed"]),
            held_out=float(trained["held_out"]),
        )
        task = TASKS[record["task"]]
        classes = Classes.from_records(record["classes"])
        built = create_model(record["model"]["name"], num_classes=len(classes))
        input_record = record["input"]
        task.eval_transform(input_record)
    except UserError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{path}: its description is damaged ({error!r})") from error
    load_weights(built, checkpoint.state)
    return Opened(
        task=task,
        model=built.eval(),
        classes=classes,
        named=True,
        input_record=input_record,
        trained_on=trained_on,
    )


def open_foreign(path: str, state: dict[str, Any], model: str | None) -> Opened:
    """An official classifier, which tells neither its size nor its classes."""
    if model is None:
        raise UserError(f"{path} does not say what it is; name the model with --model pvt_v2_b2")
    count = head_size(state)
    if count is None:
        raise UserError(f"{path} has no classifier head: train one with pvt train --pretrained")
    built = create_model(model, num_classes=count)
    load_weights(built, state)
    return Opened(
        task=CLASSIFICATION,
        model=built.eval(),
        classes=Classes(names=tuple(f"class {k}" for k in range(count)), ids=tuple(range(count))),
        named=False,
        input_record=CLASSIFICATION.describe_input(ClassificationOptions()),
        trained_on=None,
    )


def load_data(
    place: str | None, *, seed: int, held_out: float, classes: Classes | None = None
) -> DataSet:
    """The data at a place; None, or "digits" where there is no such folder, are the digits."""
    if place is None or is_embedded(place):
        return load_digit_data(seed=seed, held_out=held_out)
    return load_image_folder(place, seed=seed, held_out=held_out, classes=classes)
