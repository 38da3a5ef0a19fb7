"""`pvt convert` for whole detectors and segmenters."""

import inspect
from pathlib import Path
from typing import Any, Literal

from torch import nn

from .. import __version__
from ..errors import UserError
from ..tasks.detection import foreign as detector
from ..tasks.detection import network as detectors
from ..tasks.detection.table import head_named
from ..tasks.segmentation import foreign as segmenter
from ..tasks.segmentation import network as segmenters
from ..tasks.segmentation.model import BUILDERS
from ..weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from ..weights.convert import write_mmdetection, write_trans2seg
from ..weights.load_detector import find_parts, read_whole
from .convert import compare
from .tasks import describe_head

VERSIONS: dict[str, Literal[2, 3]] = {"mmdetection": 2, "mmdetection3": 3}
SEGMENTERS = {"mmsegmentation": "semantic_fpn", "trans2seg": "trans2seg"}  # what has whose names


def is_for_detectors(checkpoint: Checkpoint, to: str, prefix: str | None) -> bool:
    """Whether all of a file's detector or segmenter is asked for.

    Raises:
        UserError: It is, with the prefix of a PVT alone.
    """
    if to in VERSIONS | SEGMENTERS and prefix is not None:
        what = "detectors" if to in VERSIONS else "segmenters"
        raise UserError(f"--prefix takes a PVT alone, and --to {to} is for whole {what}")
    held = detector.holds_detector(checkpoint) or segmenter.holds_segmenter(checkpoint)
    return to in VERSIONS | SEGMENTERS or (to == "pyramidvit" and prefix is None and held)


def describe_for(checkpoint: Checkpoint, to: str) -> dict[str, Any]:
    """The record of the detector or segmenter that is to be converted.

    Raises:
        UserError: The file holds none that can be written so, or not all of it.
    """
    where = checkpoint.where
    if to in VERSIONS or (to not in SEGMENTERS and detector.holds_detector(checkpoint)):
        return detector.describe_file(checkpoint, where)
    model = segmenter.describe_file(checkpoint, where)
    if to in SEGMENTERS and model["name"] != SEGMENTERS[to]:
        raise UserError(f"{where} holds {model['name']}; --to {to} writes {SEGMENTERS[to]} alone")
    return model


def rebuild(model: dict[str, Any]) -> nn.Module:
    """The network of a record, with fresh weights."""
    if model["name"] in BUILDERS:
        return segmenters.rebuild(model)
    return detectors.rebuild(model)


def convert_detector(
    checkpoint: Checkpoint, output: Path, partial: Path, to: str
) -> list[tuple[str, str]]:
    """Writes all of a detector or segmenter to `partial`, reads it back and compares; says so.

    Raises:
        UserError: The file is not all of one known here, or cannot be written so.
    """
    where = checkpoint.where
    model = describe_for(checkpoint, to)
    record = checkpoint.record or {"version": __version__, **describe_head(where, checkpoint)}
    state = read_whole(rebuild(model), checkpoint, where)
    if to in VERSIONS or to == "mmsegmentation":
        write_mmdetection(partial, state, checkpoint.classes, VERSIONS.get(to, 2))
    elif to == "trans2seg":
        write_trans2seg(partial, state)
    elif output.suffix == ".safetensors":
        save_checkpoint(partial, state, record)
    else:
        raise UserError(f"{output}: give the file a name that ends in .safetensors")
    again = read_whole(rebuild(model), read_checkpoint(partial), str(output))
    expected = dict(state)
    found, rest, _ = find_parts(checkpoint.state, where)
    what = f"{model['name']} on {model['backbone']}, {len(state)} tensors"
    others = len(found.outside) - len(rest)
    left_out = f"; {others} tensors outside it left out" if others else ""
    lines = [("read", f"{where}: {what}, {found.naming.source} names{left_out}")]
    lines.append(("written", f"{output}: {to} names, read back and equal bit for bit"))
    if to == "mmdetection3" and "backbone.pos_embed4" in state:
        expected["backbone.pos_embed4"] = state["backbone.pos_embed4"].clone()
        expected["backbone.pos_embed4"][:, 0] = 0
        lines.append(("", "but for the class token's row in pos_embed4, which no detector reads"))
    compare(expected, again, output)
    unusual = other_numbers(checkpoint.record.get("model") or model)
    if to != "pyramidvit" and unusual:
        said = ", ".join(f"{name} {value}" for name, value in unusual.items())
        lines.append(("note", f"not as published, so its configuration must say it too: {said}"))
    return lines


def other_numbers(model: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a detector or segmenter that are not as published."""
    name = model["name"]
    build = BUILDERS[name] if name in BUILDERS else head_named(name).build
    usual = {key: row.default for key, row in inspect.signature(build).parameters.items()}
    if name == "trans2seg":
        usual["hidden"] = usual["width"] // 4
    return {key: value for key, value in model["numbers"].items() if value != usual[key]}
