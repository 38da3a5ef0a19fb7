"""Reading and writing checkpoint files.

Ours is one safetensors file: the tensors under their released names, and in the header's metadata,
under the key "pyramidvit", a JSON record (model, classes, input, score). Of other people's files
the weights are read, and what else tells of them: class names, an architecture, an epoch.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from ..errors import UserError
from ..files import write_atomically
from .inputs import check_input, from_timm, from_transformers
from .pickled import Inert, owned_tensors, read_pickled
from .recognise import search
from .safetensors_file import parse_json, read_json, read_safetensors

METADATA_KEY = "pyramidvit"
DEPTH = 4  # how far into a training checkpoint's dicts weights are looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
        where: What it was read from, for messages.
        state: Parameter name to tensor, on the CPU, under the file's own names.
        record: Our JSON record; empty for other people's files.
        config: What `config.json` says, of a directory that transformers or our hub code wrote.
        place: Where in the file the weights stood, such as "state_dict"; empty at the top.
        others: Where other weights stand that were not taken, such as "state_dict_ema".
        classes: Names of the classes, if the file tells them.
        input: What a classifier's input must be like, if the file tells: see `weights.inputs`.
        facts: What else it tells of itself in single words and numbers, such as the epoch.
    """

    where: str = "the state dict"
    state: dict[str, Tensor]
    record: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    place: str = ""
    others: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    input: dict[str, Any] | None = None
    facts: dict[str, str | int | float] = field(default_factory=dict)


def save_checkpoint(path: Path, state: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Writes our checkpoint file, all or nothing.

    Raises:
        UserError: The file cannot be written.
    """
    write_safetensors(path, state, {METADATA_KEY: json.dumps(record)})


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def read_checkpoint(path: str | Path, *, ema: bool = False) -> Checkpoint:
    """Reads a checkpoint: ours, another `.safetensors`, a `.pth`, or a directory of transformers.

    Args:
        path: The file, or a directory with config.json and the weights, whole or in shards.
        ema: Takes the averaged copy of the weights where a training checkpoint has both; without
            it, the plain ones.

    Raises:
        UserError: No such file, not a checkpoint, damaged, or it asks to run code.
    """
    path = Path(path)
    if path.is_dir():
        return read_directory(path)
    if not path.is_file():
        raise UserError(f"no such checkpoint: {path}")
    start = read_start(path)
    if what_else(start):
        raise UserError(f"{path} is not a checkpoint file{what_else(start)}")
    if path.suffix == ".safetensors" or start[8:9] == b"{":  # behind the header's length
        state, metadata = read_safetensors(path)
        record = parse_json(metadata.get(METADATA_KEY, "{}"), f"{path}: its record")
        return Checkpoint(
            where=str(path),
            state=state,
            record=record,
            classes=named_classes(record.get("classes")),
            input=input_of_record(record, str(path)),
        )
    if start.startswith((b"PK", b"\x80")):  # torch's zip archive, or its older bare pickle
        return pick_weights(path, read_pickled(path), ema=ema)
    raise UserError(f"{path} is not a checkpoint file")


def input_of_record(record: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """The input of one of our classifiers."""
    described = record.get("input")
    if record.get("task") != "classification" or not isinstance(described, dict):
        return None
    return check_input(described, where)


def read_start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def what_else(start: bytes) -> str:
    """What a download that went wrong brought instead."""
    text = start.strip().lower()
    if text.startswith((b"<!doctype", b"<html")):
        return " but a web page: the download went wrong"
    if text.startswith(b"version https://git-lfs"):
        return " but a pointer to one: fetch it with git lfs pull"
    return ""


def read_directory(folder: Path) -> Checkpoint:
    """Reads a directory that transformers' or our own `save_pretrained` wrote."""
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    files = ("model.safetensors", "pytorch_model.bin")
    for file in files:
        if (folder / file).is_file():
            inner = read_checkpoint(folder / file)
            break
        if (folder / f"{file}.index.json").is_file():
            inner = Checkpoint(state=read_shards(folder, folder / f"{file}.index.json"))
            break
    else:
        run = folder / "best.safetensors"
        hint = f"; take {run}" if run.is_file() else ""
        raise UserError(f"{folder} has neither {files[0]} nor {files[1]}{hint}")
    described = inner.input or from_timm(config)
    if described is None and (folder / "preprocessor_config.json").is_file():
        described = from_transformers(read_json(folder / "preprocessor_config.json"))
    return Checkpoint(
        where=str(folder),
        state=inner.state,
        record=inner.record,
        config=config,
        classes=inner.classes or classes_of_config(config),
        input=None if described is None else check_input(described, str(folder)),
    )


def read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    """The tensors that an index spreads over several files of its folder.

    Raises:
        UserError: A shard is missing or outside the folder, or its tensors are not those named.
    """
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f"{index} has no weight_map")
    state: dict[str, Tensor] = {}
    for name in sorted({str(place) for place in places.values()}):
        shard = folder / name
        if Path(name).name != name or not shard.is_file():
            raise UserError(f"{index} names {name!r}, which is no file of {folder}")
        tensors = read_checkpoint(shard).state
        wrong = sorted(tensors.keys() ^ {key for key, place in places.items() if place == name})
        if wrong:
            raise UserError(f"{shard} and {index.name} disagree about {wrong[0]}")
        state.update(tensors)
    return state


def classes_of_config(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names: timm's and our own list, or transformers' table unless it is of stand-ins."""
    table = config.get("id2label")
    if not isinstance(table, dict):
        return named_classes(config.get("label_names"))
    names = [table.get(str(k)) for k in range(len(table))]
    if all(name == f"LABEL_{k}" for k, name in enumerate(names)):
        return None
    return named_classes(names)


def named_classes(classes: Any) -> tuple[str, ...] | None:
    """Class names out of a list of texts, or of our records; None for anything else."""
    if not isinstance(classes, list | tuple) or not classes:
        return None
    entries = [entry.get("name") if isinstance(entry, dict) else entry for entry in classes]
    names = tuple(entry for entry in entries if isinstance(entry, str))
    return names if len(names) == len(entries) else None


def pick_weights(path: Path, content: Any, *, ema: bool) -> Checkpoint:
    """Finds the weights in what torch.save wrote: bare, or nested beside a run's other state."""
    places = dict(state_dicts(content))
    if not places:
        raise UserError(f"{path} holds no state dict (a mapping of names to tensors)")
    with_pvt = [place for place, state in places.items() if search(state)] or list(places)
    averaged = [place for place in with_pvt if is_averaged(place)]
    plain = [place for place in with_pvt if place not in averaged]
    chosen = (averaged or plain) if ema else (plain or averaged)
    if ema and not averaged:
        raise UserError(f"{path} holds no averaged weights")
    if len(chosen) > 1:
        raise UserError(f"{path} holds weights at {', '.join(chosen)}: save the wanted ones apart")
    return Checkpoint(
        where=str(path),
        state=owned_tensors(places[chosen[0]], path),
        place=chosen[0],
        others=tuple(place for place in with_pvt if place != chosen[0]),
        classes=classes_of_meta(content),
        facts=dict(plain_facts(content)),
    )


def state_dicts(content: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping of names to tensors in nested mappings, each once, and where it stands."""
    waiting: list[tuple[str, Any, int]] = [("", content, DEPTH)]
    seen: set[int] = set()
    while waiting:
        place, inner, depth = waiting.pop(0)
        if not isinstance(inner, Mapping) or depth == 0 or id(inner) in seen:
            continue
        seen.add(id(inner))  # a pickle may hold one dict in many places, or within itself
        state = {k: v for k, v in inner.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if state:
            yield place, state
        for key, value in inner.items():
            if isinstance(key, str):
                waiting.append((f"{place}.{key}" if place else key, value, depth - 1))


def is_averaged(place: str) -> bool:
    return "ema" in place.lower().replace(".", "_").split("_") or "averag" in place.lower()


def classes_of_meta(content: Any) -> tuple[str, ...] | None:
    """The class names that mmcv ("CLASSES") and mmengine ("dataset_meta") keep."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping):
        return None
    inner = meta.get("dataset_meta")
    named = inner.get("classes") if isinstance(inner, Mapping) else None
    return named_classes(meta.get("CLASSES")) or named_classes(named)


FACTS = ("epoch", "iter", "arch", "mmdet_version", "mmseg_version", "mmengine_version", "time")


def plain_facts(content: Any) -> Iterator[tuple[str, str | int | float]]:
    """What a training checkpoint tells of itself, of the entries that are worth showing."""
    if not isinstance(content, Mapping):
        return
    meta, arguments = content.get("meta"), content.get("args")
    given = arguments.content if isinstance(arguments, Inert) else None
    for source in (content, meta, given):
        if isinstance(source, Mapping):
            for name in (*FACTS, "model"):
                value = source.get(name)
                if isinstance(value, str | int | float) and len(str(value)) < 100:
                    yield name, value
