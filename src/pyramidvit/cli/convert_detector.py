"""`pvt convert` for whole detectors."""

import inspect
from pathlib import Path
from typing import Any, Literal

from .. import __version__
from ..errors import UserError
from ..tasks.detection.foreign import describe_file, holds_detector
from ..tasks.detection.network import rebuild
from ..tasks.detection.table import HEADS
from ..weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from ..weights.convert import write_mmdetection
from ..weights.load_detector import find_parts, read_whole
from .convert import compare
from .tasks import describe_head

VERSIONS: dict[str, Literal[2, 3]] = {"mmdetection": 2, "mmdetection3": 3}


def is_for_detectors(checkpoint: Checkpoint, to: str, prefix: str | None) -> bool:
    """Whether all of a file's detector is asked for.

    Raises:
        UserError: It is, with the prefix of a PVT alone.
    """
    if to in VERSIONS and prefix is not None:
        raise UserError(f"--prefix takes a PVT alone, and --to {to} is for whole detectors")
    to_ours = to == "pyramidvit" and prefix is None
    return to in VERSIONS or (to_ours and holds_detector(checkpoint))


def convert_detector(
    checkpoint: Checkpoint, output: Path, partial: Path, to: str
) -> list[tuple[str, str]]:
    """Writes all of a detector to `partial`, reads it back, compares, and says what was done.

    Raises:
        UserError: The file is not all of a detector known here, or cannot be written so.
    """
    where = checkpoint.where
    model = describe_file(checkpoint, where)
    record = checkpoint.record or {"version": __version__, **describe_head(where, checkpoint)}
    state = read_whole(rebuild(model), checkpoint, where)
    if to in VERSIONS:
        write_mmdetection(partial, state, checkpoint.classes, VERSIONS[to])
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
    if to in VERSIONS and unusual:
        said = ", ".join(f"{name} {value}" for name, value in unusual.items())
        lines.append(("note", f"not as published, so its configuration must say it too: {said}"))
    return lines


def other_numbers(model: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a detector that are not as published."""
    published = inspect.signature(HEADS[model["name"]].build).parameters
    return {n: v for n, v in model["numbers"].items() if v != published[n].default}
