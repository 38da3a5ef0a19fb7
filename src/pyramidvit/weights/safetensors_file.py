"""Reading safetensors files: one, or the shards of a directory."""

import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from ..errors import UserError, one_line
from .pickled import check_name

MAX_HEADER = 10_000_000  # bytes; the largest PVT needs about 150,000
MAX_JSON = 10_000_000
# Of those that the format knows. Those of 8 bits and fewer are a quantiser's, and useless without
# its scales; torch cannot even compare them.
NUMBERS = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool),
}


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, and the texts in its header.

    Raises:
        UserError: Damaged, a name twice in the header, a header of absurd size, numbers that are
            none of `NUMBERS`, or a name that cannot be printed.
    """
    metadata = read_header(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # the library has several kinds of refusal
        raise UserError(f"{path} is not a readable safetensors file: {one_line(error)}") from error
    for name, value in state.items():
        check_name(name, path)
        if value.dtype not in NUMBERS:
            raise UserError(f"{path}: {name} holds {value.dtype} numbers, which are not read here")
    return state, metadata


def read_header(path: Path) -> dict[str, str]:
    """The texts under "__metadata__", after looking the header over before the library reads it."""
    with path.open("rb") as file:
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= size <= min(MAX_HEADER, path.stat().st_size - 8):
            raise UserError(
                f"{path} is not a readable safetensors file: its header claims {size} bytes"
            )
        header = parse_json(file.read(size), f"{path}: the header")
    texts = header.get("__metadata__", {})
    if not isinstance(texts, dict):
        raise UserError(f"{path}: the header's __metadata__ is not a JSON object")
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file of its own.

    Raises:
        UserError: Absent, too large, not JSON, a key twice, or not an object.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    if path.stat().st_size > MAX_JSON:
        raise UserError(f"{path} is too large for a description: {path.stat().st_size} bytes")
    return parse_json(path.read_bytes(), str(path))


def parse_json(text: str | bytes, where: str) -> dict[str, Any]:
    """A JSON object; `where` names it in errors."""
    try:
        content = json.loads(text, object_pairs_hook=refuse_twice)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not readable JSON: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{where} is not a JSON object")
    return content


def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two equal names they believe, so there must be none."""
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"{counts.most_common(1)[0][0]!r} stands there twice")
    return content
