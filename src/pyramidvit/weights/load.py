"""Putting a checkpoint into a model, and saying what was done."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from ..errors import UserError
from .checkpoint import read_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What `load_weights` did.

    Attributes:
        loaded: Parameters that were filled.
        ignored: Entries of the file that the model has no use for, each with the reason.
        reinitialised: Parameters left at their initial values, each with the reason.
    """

    loaded: tuple[str, ...]
    ignored: dict[str, str] = field(default_factory=dict)
    reinitialised: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for word, group in (("ignored", self.ignored), ("reinitialised", self.reinitialised)):
            if group:
                reasons = sorted(set(group.values()))
                parts.append(f"{len(group)} {word} ({'; '.join(reasons)})")
        return ", ".join(parts)


def load_weights(
    model: nn.Module, source: str | Path | Mapping[str, Tensor], *, new_head: bool = False
) -> LoadReport:
    """Fills a model with weights under their official names; all of them, or none.

    A backbone takes a classifier's checkpoint: what it has no use for is named in the report.

    Args:
        model: A model of this package.
        source: A checkpoint file (`.safetensors`, `.pth`) or a state dict.
        new_head: Leaves the head at its initial values where the class counts differ.

    Raises:
        UserError: A name is missing or unexplained, a shape differs, or the file is unreadable.
    """
    where = "the state dict" if isinstance(source, Mapping) else str(source)
    state = source if isinstance(source, Mapping) else read_checkpoint(source).state
    own = model.state_dict()

    ignored = {k: r for k in state if k not in own and (r := why_unused(k, own)) is not None}
    unknown = [k for k in state if k not in own and k not in ignored]
    if unknown:
        raise UserError(f"{where} does not fit: {some(unknown)} not known to {kind(model)}")

    reinitialised = {}
    if new_head and head_size(state) != head_size(own):
        reason = f"the file has {head_size(state)} classes, the model {head_size(own)}"
        reinitialised = {k: reason for k in own if k.startswith("head.")}
    state = {k: v for k, v in state.items() if k in own and k not in reinitialised}

    missing = [k for k in own if k not in state and k not in reinitialised]
    if missing:
        raise UserError(f"{where} does not fit {kind(model)}: {some(missing)} missing in it")
    if head_size(state) not in (None, head_size(own)):
        raise UserError(
            f"{where} has {head_size(state)} classes, the model {head_size(own)}: build the model"
            f" with num_classes={head_size(state)}"
        )
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise UserError(
                f"{where} does not fit {kind(model)}: {name} is {list(value.shape)} in the file,"
                f" {list(own[name].shape)} in the model"
            )

    model.load_state_dict(state, strict=not reinitialised)
    return LoadReport(loaded=tuple(state), ignored=ignored, reinitialised=reinitialised)


def why_unused(key: str, own: Mapping[str, Tensor]) -> str | None:
    """Why a backbone rightly has no place for an entry of a classifier; None if it is foreign."""
    if key.startswith("head."):
        return "the model has no head"
    if key == "cls_token" or key.startswith("norm."):
        return "only a v1 classifier has a class token and a last norm"
    stage = re.match(r"(?:patch_embed|block|norm|pos_embed)([1-4])(?:\.|$)", key)
    if stage and not any(k.startswith(f"patch_embed{stage[1]}.") for k in own):
        return f"stage {stage[1]} is not built"
    return None


def head_size(state: Mapping[str, Tensor]) -> int | None:
    return len(state["head.bias"]) if "head.bias" in state else None


def kind(model: nn.Module) -> str:
    return type(model).__name__


def some(names: list[str]) -> str:
    """The first names of a list, and how many there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
