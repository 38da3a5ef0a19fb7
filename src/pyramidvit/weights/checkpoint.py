"""Reading and writing checkpoint files.

Ours is one safetensors file: the tensors under their released names, and in the header's metadata,
under the key "pyramidvit", a JSON record (model, classes, input, score). Other people's `.pth`
files are read with torch's restricted unpickler, which builds tensors and plain containers only.
"""

import argparse
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..errors import UserError, one_line
from ..files import write_atomically

METADATA_KEY = "pyramidvit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        state: Parameter name to tensor, on the CPU.
        record: Our JSON record; empty for other people's files.
    """

    state: dict[str, Tensor]
    record: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, state: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Writes our checkpoint file, all or nothing.

    Raises:
        UserError: The file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    metadata = {METADATA_KEY: json.dumps(record)}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads `.safetensors`, or a `.pth` file: bare, or nested under "model" or "state_dict".

    Raises:
        UserError: No such file, not a checkpoint, damaged, or it asks to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such checkpoint: {path}")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    return Checkpoint(state=read_pickled(path))


def read_safetensors(path: Path) -> Checkpoint:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, json.JSONDecodeError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file: {one_line(error)}") from error
    return Checkpoint(state=state, record=record if isinstance(record, dict) else {})


def read_pickled(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        start = file.read(2)
    if not start.startswith((b"PK", b"\x80")):  # torch's zip archive, or a bare pickle
        raise UserError(f"{path} is not a checkpoint file")
    try:
        # The reference's training checkpoints carry their arguments as a Namespace: inert data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} was refused: {unsafe_reason(error)}") from error
    except Exception as error:  # a damaged file can fail anywhere in the reader
        kind = type(error).__name__
        raise UserError(
            f"{path} is not a readable checkpoint ({kind}: {one_line(error)})"
        ) from error

    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} holds no state dict (a mapping of names to tensors)")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(f"{path}: the state dict's entry {name!r} is not a tensor")
    return dict(content)


def unsafe_reason(error: Exception) -> str:
    """Names what a pickle asked for, out of torch's long message."""
    asked = re.search(r"GLOBAL (\S+)", str(error))  # torch's word for a function or a class
    what = f"it asks for {asked[1]}" if asked else "it holds more than tensors and plain containers"
    return f"{what}; weights are loaded without running code"
