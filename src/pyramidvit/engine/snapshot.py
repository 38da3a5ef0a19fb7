"""The state of a run, from which it goes on bit for bit: written whole or not at all."""

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError, one_line
from ..files import write_atomically


@dataclass(kw_only=True)
class Progress:
    """Where a run stands. Random numbers need no keeping: they follow from seed and step.

    Attributes:
        step: Updates made.
        loss_sum: Sum of the losses of this epoch's updates so far.
        best: Best figure so far.
        history: One record an epoch, the rows of `metrics.csv`.
        broken: Unreadable images met so far, with reasons.
    """

    step: int = 0
    loss_sum: float = 0.0
    best: float = float("-inf")
    history: list[dict[str, float]] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)


def save_snapshot(path: Path, progress: Progress, parts: dict[str, Any]) -> None:
    """Writes progress and the state dicts of model, optimizer and so on.

    Raises:
        UserError: The file cannot be written; the snapshot before it survives.
    """
    content = io.BytesIO()
    torch.save({"progress": asdict(progress), **parts}, content)
    write_atomically(path, content.getvalue())


def load_snapshot(path: Path) -> tuple[Progress, dict[str, Any]]:
    """Reads a snapshot, without running code from it.

    Raises:
        UserError: There is none, or it is damaged.
    """
    if not path.is_file():
        raise UserError(f"nothing to go on from: {path} does not exist")
    try:
        parts = torch.load(path, map_location="cpu", weights_only=True)
        if not {"progress", "identity", "model", "optimizer"} <= set(parts):
            raise ValueError("parts are missing")
        return Progress(**parts.pop("progress")), parts
    except Exception as error:  # a damaged file can fail anywhere in the reader
        raise UserError(f"{path} is damaged: {one_line(error)}") from error
