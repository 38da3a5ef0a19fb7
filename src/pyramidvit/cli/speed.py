"""What `--optimize` of a verb means: the model of a checkpoint in the form that runs fastest."""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ..errors import UserError

if TYPE_CHECKING:
    from ..data.image_folder import FileSource
    from ..engine.report import Reporter
    from .tasks import Opened

Optimize = Literal["auto", "none", "packed", "compiled", "openvino"]

SAVED = 0.01  # seconds an image that a quicker route saves, roughly, of the smallest model
DETAIL = 2  # pixels that a JPEG is decoded to at least, for each that a classifier resizes it to
MANY = 2000  # pictures from which on whole batches are prepared for, which takes twice as long
SIDE = 224  # of the noise that a model for pictures of any size is compared on


def speed_up(
    opened: "Opened",
    asked: Optimize,
    precision: Literal["float32", "bf16"],
    images: int,
    batch: int,
) -> "Opened":
    """A checkpoint, its model prepared for inference as asked; the model lies on its device.

    Args:
        opened: The checkpoint.
        asked: The option; "auto" takes what pays for so many images, and nothing on a GPU.
        precision: In which the model computes.
        images: How many it will see.
        batch: How many of them at a time.

    Raises:
        UserError: The route cannot be taken here, or not with pictures of many sizes.
    """
    from ..inference.optimize import ROUTES, optimize

    device = next(opened.model.parameters()).device
    if asked == "none" or (asked == "auto" and device.type != "cpu"):
        return opened
    one_size = opened.task.name == "classification"
    if not one_size and asked != "auto" and ROUTES[asked].prepare is not None:
        raise UserError(
            f"--optimize {asked} prepares for one size, and {opened.task.name} sees pictures of"
            " many: use packed"
        )
    side = int(opened.input_record["size"]) if one_size else SIDE
    patience = max(1.0, SAVED * images) if one_size else 1.0
    count = batch if one_size and images >= MANY else 1
    model = optimize(
        opened.model, (count, 3, side, side), route=asked, precision=precision, patience=patience
    )
    return replace(opened, model=model)


def read_less(pictures: "FileSource", opened: "Opened", asked: Optimize) -> "FileSource":
    """The pictures, JPEG files of them decoded no further than a classifier looks.

    Args:
        pictures: Read whole.
        opened: What will see them.
        asked: The option; "none" reads them whole.
    """
    if asked == "none" or opened.task.name != "classification":
        return pictures
    record = opened.input_record
    return replace(pictures, side=int(DETAIL * record["size"] / record["crop_share"]))


def say_choice(opened: "Opened", reporter: "Reporter") -> None:
    """A line about what was chosen, if anything was."""
    choice = getattr(opened.model, "optimized", None)
    if choice is not None:
        reporter.say("route", f"{choice.route} in {choice.precision}")
