"""What the verbs share: tasks, data and checkpoints from what the user typed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..data.digits import load_digit_data
from ..data.image_folder import load_image_folder
from ..data.source import DataSet
from ..errors import UserError
from ..models import create_model
from ..structures import Classes
from ..task import Task
from ..tasks.classification.config import ClassificationOptions
from ..tasks.classification.task import CLASSIFICATION
from ..weights.checkpoint import read_checkpoint
from ..weights.load import head_size, load_weights

TASKS: dict[str, Task] = {"classification": CLASSIFICATION}


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A checkpoint ready for use.

    Attributes:
        model: In evaluation mode, on the CPU.
        classes: The label contract; of a foreign file, numbered names.
        named: False for a foreign file, which names no classes.
        input_record: What the model's input must be like.
        record: The rest of our JSON record; empty for a foreign file.
    """

    task: Task
    model: nn.Module
    classes: Classes
    named: bool
    input_record: dict[str, Any]
    record: dict[str, Any]


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
        task = TASKS[record["task"]]
        classes = Classes.from_records(record["classes"])
        described = record["model"]
        built = create_model(
            described["name"], num_classes=len(classes), in_chans=int(described["in_chans"])
        )
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
        record=record,
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
        record={},
    )


def load_data(
    place: str | None, *, seed: int, held_out: float, classes: Classes | None = None
) -> DataSet:
    """The data at a place; None, or "digits" where there is no such folder, are the digits."""
    if place is None or (place == "digits" and not Path(place).exists()):
        return load_digit_data(seed=seed, held_out=held_out)
    return load_image_folder(place, seed=seed, held_out=held_out, classes=classes)
