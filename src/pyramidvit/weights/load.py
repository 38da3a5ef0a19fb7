"""Putting a checkpoint into a model, and saying what was done."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..backbones.trunk import Trunk
from ..errors import UserError
from .adapt import adapt_channels, resize_table
from .checkpoint import Checkpoint, read_checkpoint
from .inputs import to_timm
from .recognise import Found, check_config, describe_size, find_pvt


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What `load_weights` did.

    Attributes:
        loaded: Parameters that were filled as they stood in the file.
        resized: Parameters that were filled after a change of shape, each with the change.
        ignored: Entries of the file that the model has no use for, each with the reason.
        reinitialised: Parameters left at their initial values, each with the reason.
        notes: What else should be known.
    """

    loaded: tuple[str, ...]
    resized: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    reinitialised: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        groups = {
            "resized": self.resized,
            "ignored": self.ignored,
            "reinitialised": self.reinitialised,
        }
        for word, group in groups.items():
            if group:
                reasons = sorted(set(group.values()))
                parts.append(f"{len(group)} {word} ({'; '.join(reasons)})")
        return ". ".join([", ".join(parts), *self.notes])


def load_weights(
    model: nn.Module,
    source: str | Path | Checkpoint | Mapping[str, Tensor],
    *,
    new_head: bool | None = None,
    classes: Sequence[str] | None = None,
    prefix: str | None = None,
    ema: bool = False,
) -> LoadReport:
    """Fills a model with the PVT of a checkpoint; all of it, or nothing.

    The names may be the official ones, timm's, transformers' or mmdetection's, under any prefix.
    What the model has no use for, such as a detector's neck or, for a backbone, the classifier, is
    named in the report. Position tables of another size are resized bilinearly, and a stem for
    another number of channels is adapted (`weights.adapt`).

    Args:
        model: A classifier or a backbone of this package.
        source: A checkpoint file or directory, what `read_checkpoint` made of one, or a state dict.
        new_head: None starts the head afresh where the file has none, another class count, or
            other `classes`; True always does; False refuses instead.
        classes: Names of the model's classes, to compare with those that the file names, if any.
        prefix: Which PVT of a file with several, such as "backbone.".
        ema: Takes the averaged copy of the weights, where the file has both.

    Raises:
        UserError: No PVT or another model's in the file, a name missing or unexplained, a shape
            that differs, numbers that are not finite, or an unreadable file.
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    checkpoint = as_checkpoint(source, ema)
    where = checkpoint.where
    own = model.state_dict()
    found = find_pvt(checkpoint.state, where, prefix)
    check_variant(found, find_pvt(own, kind(model)), where, kind(model))
    check_config(found, checkpoint.config, where)
    if found.unknown:
        raise UserError(f"{where} does not fit: {some(found.unknown)} not known to {kind(model)}")

    fresh = fresh_parts(found, own, where, new_head, names_differ(checkpoint.classes, classes))
    ignored = dict(found.outside)
    fitted: dict[str, Tensor] = {}
    resized: dict[str, str] = {}
    for name, value in found.state.items():
        if name in own and name not in fresh:
            fitted[name], change = fit_shape(name, value, own[name].shape)
            if change:
                resized[name] = change
        elif name not in own:
            ignored.update(dict.fromkeys(found.places[name], why_unused(name, own, found, where)))
    check_complete(fitted, own, fresh, where, kind(model))
    check_numbers(fitted, own, where)

    model.load_state_dict(fitted, strict=not fresh)
    if isinstance(model, Trunk) and "head.weight" in fitted:
        describe_classifier(model, checkpoint, found.num_classes)
    return LoadReport(
        loaded=tuple(name for name in fitted if name not in resized),
        resized=resized,
        ignored=ignored,
        reinitialised=fresh,
        notes=tuple(notes_on(found, checkpoint)),
    )


def describe_classifier(model: Trunk, checkpoint: Checkpoint, count: int | None) -> None:
    """Tells a classifier what its checkpoint says of classes and input, for `save_pretrained`."""
    names = checkpoint.classes
    model.class_names = names if names is not None and len(names) == count else None
    if checkpoint.input is not None:
        model.pretrained_cfg |= to_timm(checkpoint.input, model.in_chans)


def as_checkpoint(source: str | Path | Checkpoint | Mapping[str, Tensor], ema: bool) -> Checkpoint:
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, Mapping):
        return Checkpoint(state=dict(source))
    if not isinstance(source, str | Path) or not str(source):
        raise UserError(f"weights must be a path or a state dict, got {source!r}")
    return read_checkpoint(source, ema=ema)


def check_variant(found: Found, target: Found, where: str, model: str) -> None:
    """Refuses the weights of another model, saying in what they differ."""
    if set(found.variants) & set(target.variants) or not target.variants:
        return
    is_what = name_of(found)
    differs = difference(found, target)
    # Two tables may agree in all that a file shows when it has only the first stages of a model.
    raise UserError(
        f"{where} holds {is_what}, the model is {target.variants[0]} ({model}): {differs}"
        + (f"; {remedy(found.variants[0])}" if found.variants else "")
    )


def remedy(variant: str) -> str:
    return f"take create_model({variant!r}), in the command --model or --backbone {variant}"


def name_of(found: Found) -> str:
    """Which model a file holds, in words."""
    if found.variants:
        return " or ".join(found.variants)
    return f"{describe_size(found.state, found.family)}, which no published model has"


def difference(found: Found, target: Found) -> str:
    """In what two models differ, for people."""
    if found.family != target.family:
        return f"one is PVT {found.family}, the other PVT {target.family}"
    names = ("widths", "depths", "mlp_ratios", "sr_ratios", "linear")
    theirs, ours = found.columns, target.columns
    differing = [
        n for n, a, b in zip(names, theirs, ours, strict=True) if a[: len(b)] != b[: len(a)]
    ]
    if "linear" in differing:
        linear, other = ("file", "model") if theirs[4][0] else ("model", "file")
        return f"the {linear} has linear attention, the {other} spatial reduction"
    pairs = zip(names, theirs, ours, strict=True)
    return ", ".join(
        f"{n} {list(a)} in the file, {list(b)} in the model" for n, a, b in pairs if n in differing
    )


def names_differ(theirs: Sequence[str] | None, ours: Sequence[str] | None) -> bool:
    """Whether outputs mean something else; of a file without names one cannot know."""
    return ours is not None and (theirs is None or tuple(theirs) != tuple(ours))


def fresh_parts(
    found: Found,
    own: Mapping[str, Tensor],
    where: str,
    new_head: bool | None,
    other_classes: bool,
) -> dict[str, str]:
    """Which parameters start afresh, each with the reason.

    Raises:
        UserError: The head would have to, and may not.
    """
    if "head.weight" not in own:
        return {}
    count, wanted = found.num_classes, len(own["head.bias"])
    reason = None
    if new_head:
        reason = "a new head was asked for"
    elif count is None:
        reason = "the file has no head"
    elif count != wanted:
        reason = f"the file has {count} classes, the model {wanted}"
    elif other_classes:
        reason = "the file names other classes, or none"
    if reason is None:
        return {}
    if new_head is False:
        differs = count is not None and count != wanted
        remedy = f": build the model with num_classes={count}" if differs else ""
        raise UserError(f"{where} does not fit: {reason}{remedy}")
    fresh = dict.fromkeys((name for name in own if name.startswith("head.")), reason)
    token = ("cls_token", "norm.weight", "norm.bias")
    if "cls_token" in own and not any(name in found.state for name in token):
        fresh.update(dict.fromkeys(token, "only a classifier's file has them"))
    return fresh


def fit_shape(name: str, value: Tensor, wanted: torch.Size) -> tuple[Tensor, str]:
    """A tensor in the model's shape, and what had to be changed: empty for nothing."""
    if value.shape == wanted:
        return value, ""
    if name.startswith("pos_embed"):
        return resize_table(name, value, wanted)
    if name == "patch_embed1.proj.weight" and value.ndim == 4:
        return adapt_channels(value, wanted)
    return value, ""


def why_unused(key: str, own: Mapping[str, Tensor], found: Found, where: str) -> str:
    """Why a model rightly has no place for an official name.

    Raises:
        UserError: It has no business there.
    """
    if key.startswith("head."):
        return "the model has no head"
    if found.family == "v1" and (key == "cls_token" or key.startswith("norm.")):
        return "only a v1 classifier has a class token and a last norm"
    stage = re.match(r"(?:patch_embed|block|norm|pos_embed)([1-4])(?:\.|$)", key)
    if stage and not any(k.startswith(f"patch_embed{stage[1]}.") for k in own):
        return f"stage {stage[1]} is not built"
    names = ", ".join(found.places[key])
    raise UserError(f"{where} does not fit: {names} not known to a PVT {found.family}")


def check_complete(
    fitted: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    fresh: Mapping[str, str],
    where: str,
    model: str,
) -> None:
    missing = [name for name in own if name not in fitted and name not in fresh]
    if missing:
        raise UserError(f"{where} does not fit {model}: {some(missing)} missing in it")
    for name, value in fitted.items():
        if value.shape != own[name].shape:
            raise UserError(
                f"{where} does not fit {model}: {name} is {list(value.shape)} in the file,"
                f" {list(own[name].shape)} in the model"
            )


def check_numbers(state: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str) -> None:
    """Refuses weights that no model can compute with, or not in the model's number format."""
    for name, value in state.items():
        if not value.is_floating_point():
            raise UserError(f"{where}: {name} holds {value.dtype} numbers, which are no weights")
        if value.is_meta:
            continue
        if not torch.isfinite(value).all():
            raise UserError(f"{where}: {name} holds numbers that are not finite")
        if not torch.isfinite(value.to(own[name].dtype)).all():
            raise UserError(f"{where}: {name} holds numbers too large for {own[name].dtype}")


def notes_on(found: Found, checkpoint: Checkpoint) -> list[str]:
    notes = []
    if found.naming.source != "official" or found.prefix:
        under = f" under {found.prefix!r}" if found.prefix else ""
        notes.append(f"Names: {found.naming.source}{under}")
    if checkpoint.place and checkpoint.others:
        notes.append(f"Taken from {checkpoint.place}; also there: {', '.join(checkpoint.others)}")
    if found.naming.source == "transformers":
        notes.append(epsilon_note(checkpoint.config))
    return notes


def epsilon_note(config: Mapping[str, object]) -> str:
    """In what transformers' arithmetic differs, for its files."""
    epsilon = config.get("layer_norm_eps", 1e-6)
    return (
        f"transformers computes every norm with epsilon {epsilon}, the reference and this package"
        " with 1e-5 in patch embedding and reduction and 1e-6 elsewhere: outputs can differ by some"
        " 1e-3"
    )


def kind(model: nn.Module) -> str:
    return type(model).__name__


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
