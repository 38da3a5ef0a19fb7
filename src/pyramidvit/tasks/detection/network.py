"""The detector of a run: built from options, described for checkpoints, run on batches."""

import inspect
import logging
from dataclasses import asdict
from typing import Any

from torch import nn

from ...errors import UserError
from ...structures import Batch, Classes, DetectionTarget
from ...weights.checkpoint import Checkpoint, read_checkpoint
from ...weights.describe import find_head
from ...weights.load_detector import load_detector
from ...weights.places import find_weights
from .config import DetectionOptions
from .model import build_detector
from .outputs import Decoding, RegionDetections, network_inputs
from .table import DETECTORS, detect, head_named

log = logging.getLogger(__name__)

NUMBERS = ("width", "hidden", "anchor_scale", "candidates", "proposals", "region_samples")


def build_model(options: DetectionOptions, classes: Classes) -> nn.Module:
    """A detector, filled from a checkpoint where the options name one."""
    record = describe_model(options, classes)
    rate = None if options.drop_path_rate < 0 else options.drop_path_rate
    model = rebuild(record, drop_path_rate=rate)
    if options.pretrained is not None:
        path = find_weights(options.pretrained, options.backbone)
        checkpoint = read_checkpoint(path)
        try:
            report = load_detector(model, checkpoint, str(path), classes=classes.names)
        except UserError as error:
            theirs = name_in(checkpoint)
            if theirs in (None, options.model):
                raise
            raise UserError(
                f"{path} holds {theirs}, not {options.model}: add --model {theirs}, or start from a"
                " classifier"
            ) from error
        log.info("%s on %s from %s: %s", options.model, options.backbone, path, report)
    return model


def name_in(checkpoint: Checkpoint) -> str | None:
    """Which detector a file holds, by its record or its parameters; None if there is no telling."""
    model = checkpoint.record.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    if name is None:
        signs = find_head(checkpoint.state)
        name = None if signs is None else signs.head
    return name if name in DETECTORS else None


def describe_model(options: DetectionOptions, classes: Classes) -> dict[str, Any]:
    """The JSON record from which `rebuild` makes the network again.

    Raises:
        UserError: Padding is to be masked, and the detector knows nothing of it.
    """
    taken = inspect.signature(head_named(options.model).build).parameters
    asked = {name: getattr(options, name) for name in NUMBERS if name in taken}
    numbers: dict[str, Any] = {name: value for name, value in asked.items() if value}
    if "drop_rate" in taken:
        numbers["drop_rate"] = options.drop_rate
    if options.padding != "published":
        if "padding" not in taken:
            raise UserError(
                f"--padding must be published for {options.model}, whose builder takes no padding,"
                f" got {options.padding}"
            )
        numbers["padding"] = options.padding
    published: Decoding = taken["decoding"].default
    decoding = Decoding(
        score_threshold=published.score_threshold
        if options.score_threshold < 0
        else options.score_threshold,
        nms_threshold=options.nms_threshold or published.nms_threshold,
        max_detections=options.max_detections or published.max_detections,
    )
    return {
        "name": options.model,
        "backbone": options.backbone,
        "num_classes": len(classes),
        "in_chans": 3,
        "numbers": numbers,  # what is left out is as published
        "decoding": asdict(decoding),
    }


def rebuild(record: dict[str, Any], drop_path_rate: float | None = None) -> nn.Module:
    """The detector of such a record, with fresh weights."""
    built: nn.Module = build_detector(
        record["name"],
        record["backbone"],
        int(record["num_classes"]),
        in_chans=int(record["in_chans"]),
        drop_path_rate=drop_path_rate,
        decoding=Decoding(**record["decoding"]),
        **record["numbers"],
    )
    return built


def forward(model: nn.Module, batch: Batch[DetectionTarget], learn: bool) -> Any:
    """Outputs to learn from, or detections.

    A two-stage detector chooses detections itself, since it draws masks for them; those of the
    others are chosen here.
    """
    outputs = model(batch.images, **network_inputs(batch, learn=learn))
    if learn or isinstance(outputs, RegionDetections):
        return outputs
    decoding = model.decoding
    assert isinstance(decoding, Decoding)
    return detect(outputs, batch.sizes, decoding)


def frozen(options: DetectionOptions, model: nn.Module) -> set[str]:
    """The names of the parameters of the backbone's first `freeze` stages."""
    names = {name for name, _ in model.named_parameters() if name.startswith("backbone.")}
    return {name for name in names if stage_of(name) <= options.freeze}


def stage_of(name: str) -> int:
    """The stage, 1 to 4, that a parameter of the backbone is part of: patch_embed2.proj.weight."""
    part = name.split(".")[1]
    return int(part[-1])
