"""Files that torch.save did not write: pickles put together by hand, around tensors or lies."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION


class Storage:
    """Numbers in a file, of which a pickle says `claimed`."""

    def __init__(self, key: str, claimed: int, legacy: bool) -> None:
        self.pid = ("storage", torch.FloatStorage, key, "cpu", claimed)
        if legacy:
            self.pid += (None,)


class Claim:
    """What a pickle says of a tensor."""

    def __init__(
        self, storage: Storage, offset: Any, size: tuple[Any, ...], stride: tuple[Any, ...]
    ) -> None:
        self.arguments = (storage, offset, size, stride, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, thing: Any) -> Any:
        return thing.pid if isinstance(thing, Storage) else None


def to_pickle(content: Any, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(content)
    return buffer.getvalue()


def forge(
    path: Path,
    state: Mapping[str, Tensor],
    lies: Mapping[str, Mapping[str, Any]],
    *,
    legacy: bool = False,
) -> Path:
    """A .pth of float32 tensors; of those in `lies` another numel, offset, size or stride is told.

    With `lies` empty the file is as honest as torch.save's.
    """
    claims, stored = {}, {}
    for number, (name, value) in enumerate(state.items()):
        told = {
            "numel": value.numel(),
            "offset": 0,
            "size": tuple(value.shape),
            "stride": tuple(value.stride()),
            **lies.get(name, {}),
        }
        storage = Storage(str(number), told["numel"], legacy)
        claims[name] = Claim(storage, told["offset"], told["size"], told["stride"])
        stored[str(number)] = value.numpy().tobytes()
    if legacy:
        write_legacy(path, to_pickle(claims), stored)
    else:
        write_zip(path, to_pickle(claims), stored)
    return path


def write_zip(
    path: Path,
    data: bytes,
    stored: Mapping[str, bytes],
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """torch's archive."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        for key, numbers in stored.items():
            archive.writestr(f"archive/data/{key}", numbers)
        archive.writestr("archive/version", "3\n")


def write_legacy(path: Path, data: bytes, stored: Mapping[str, bytes], listed: bool = True) -> None:
    """torch's older format: pickles in a row, then the numbers."""
    system = {"protocol_version": PROTOCOL_VERSION, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(x, 2) for x in (MAGIC_NUMBER, PROTOCOL_VERSION, system)]
    parts += [data, pickle.dumps(list(stored) if listed else [], 2)]
    for numbers in stored.values():
        parts += [struct.pack("<q", len(numbers) // 4), numbers]
    path.write_bytes(b"".join(parts))


def write_safetensors(
    path: Path, header: bytes | str, data: bytes, size: int | None = None
) -> Path:
    """A safetensors file with any header and any stated header length."""
    text = header.encode() if isinstance(header, str) else header
    path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + data)
    return path
