"""The segmenter of a run: built from options, described for checkpoints, run on batches."""

import logging
from typing import Any

from torch import nn

from ...errors import UserError
from ...structures import Batch, Classes, SegmentationTarget
from ...weights.checkpoint import Checkpoint, read_checkpoint
from ...weights.load_detector import load_detector
from ...weights.places import find_weights
from .config import SegmentationOptions
from .foreign import describe_file, holds_segmenter
from .model import build_segmenter
from .outputs import SegmentationOutputs

log = logging.getLogger(__name__)


def build_model(options: SegmentationOptions, classes: Classes) -> nn.Module:
    """A segmenter, filled from a checkpoint where the options name one."""
    record = describe_model(options, classes)
    rate = None if options.drop_path_rate < 0 else options.drop_path_rate
    model = rebuild(record, drop_path_rate=rate)
    if options.pretrained is not None:
        path = find_weights(options.pretrained, options.backbone)
        checkpoint = read_checkpoint(path)
        check_numbers(options, record, checkpoint, str(path))
        report = load_detector(model, checkpoint, str(path), classes=classes.names)
        log.info("%s on %s from %s: %s", options.model, options.backbone, path, report)
    return model


def check_numbers(
    options: SegmentationOptions, record: dict[str, Any], checkpoint: Checkpoint, where: str
) -> None:
    """Refuses a segmenter's file of other sizes than the options ask for, and says what to ask for.

    Raises:
        UserError: Naming them.
    """
    if not holds_segmenter(checkpoint):
        return
    theirs = describe_file(checkpoint, where)
    if theirs["name"] != record["name"]:
        raise UserError(f"{where} holds {theirs['name']}, not {record['name']}")
    names = {"width": "width", "image_size": "attention_size"}
    other = {
        option: theirs["numbers"][name]
        for name, option in names.items()
        if name in record["numbers"] and theirs["numbers"][name] != getattr(options, option)
    }
    if other:
        words = " ".join(f"--{option} {value}" for option, value in other.items())
        raise UserError(f"{where} holds another size of {theirs['name']}: add {words}")


def describe_model(options: SegmentationOptions, classes: Classes) -> dict[str, Any]:
    """The JSON record from which `rebuild` makes the network again."""
    numbers: dict[str, Any] = {"width": options.width}
    if options.model == "semantic_fpn":
        numbers["dropout"] = options.dropout
    else:
        numbers["image_size"] = options.attention_size
    return {
        "name": options.model,
        "backbone": options.backbone,
        "num_classes": len(classes),
        "in_chans": 3,
        "numbers": numbers,
    }


def rebuild(record: dict[str, Any], drop_path_rate: float | None = None) -> nn.Module:
    """The segmenter of such a record, with fresh weights."""
    return build_segmenter(
        record["name"],
        record["backbone"],
        int(record["num_classes"]),
        in_chans=int(record["in_chans"]),
        drop_path_rate=drop_path_rate,
        **record["numbers"],
    )


def forward(model: nn.Module, batch: Batch[SegmentationTarget], learn: bool) -> SegmentationOutputs:
    """Outputs for a batch; learning from them needs no others."""
    outputs: SegmentationOutputs = model(batch.images)
    return outputs


def frozen(options: SegmentationOptions, model: nn.Module) -> set[str]:
    """The names of the parameters that training leaves alone.

    They are those of the backbone's first `freeze` stages, and those that never learn.
    """
    names = dict(model.named_parameters())
    idle = {name for name, parameter in names.items() if not parameter.requires_grad}
    backbone = {name for name in names if name.startswith("backbone.")}
    return idle | {name for name in backbone if stage_of(name) <= options.freeze}


def stage_of(name: str) -> int:
    """The stage, 1 to 4, that a parameter of the backbone is part of: patch_embed2.proj.weight."""
    part = name.split(".")[1]
    return int(part[-1])
