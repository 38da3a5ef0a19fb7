"""Filling detectors and segmenters, or their backbones alone from a classifier."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ..errors import UserError
from .adapt import TOKEN_ADDED
from .checkpoint import Checkpoint
from .detr_names import our_names
from .load import (
    LoadReport,
    check_complete,
    check_numbers,
    fit_shape,
    kind,
    load_weights,
    names_differ,
    some,
)
from .recognise import Found, find_pvt

PARTS = r"(neck|bbox_head|rpn_head|roi_head|decode_head)\."
TRANS2SEG = re.compile(r"^transformer_head\.")  # what xieenze/Trans2Seg calls the decode head
# What has rows for each class: logits, masks, and the boxes of a detector that proposes regions.
PER_CLASS = re.compile(
    r"(retina_cls|atss_cls|gfl_cls|bbox_head(\.\d+)?\.fc_(cls|reg)|conv_logits"
    r"|decode_head\.conv_seg)\.(weight|bias)$"
)
PROPOSES = "rpn_head.rpn_cls.weight"
QUERIES = "decode_head.transformer.vit.cls_embed"  # [1, K, E]: of Trans2Seg's classes
COUNTER = "num_batches_tracked"  # of batch normalisation: nothing is computed with it


class Parts(NamedTuple):
    """A detector inside a state dict."""

    found: Found  # its backbone
    rest: dict[str, Tensor]  # its neck and heads, under our names
    places: dict[str, str]  # for each of those, the name in the file that it came from


def find_parts(state: Mapping[str, Tensor], where: str) -> Parts:
    """Finds a detector's or a segmenter's parts; a file of a PVT alone has no rest.

    Names are ours but for what stands before them, and but for Trans2Seg's code, which calls its
    parts `encoder` and `transformer_head`.

    Raises:
        UserError: There is no PVT, or several.
    """
    found = find_pvt(state, where)
    parent = re.sub(r"(^|(?<=\.))(backbone|encoder)\.$", "", found.prefix)
    theirs = {
        TRANS2SEG.sub("decode_head.", name.removeprefix(parent)): name
        for name in state
        if name in found.outside
    }
    named = our_names(theirs)
    places = {ours: theirs[name] for name, ours in named.items() if re.match(PARTS, ours)}
    return Parts(found, {ours: state[name] for ours, name in places.items()}, places)


def load_detector(
    model: nn.Module,
    checkpoint: Checkpoint,
    where: str,
    *,
    classes: Sequence[str] | None = None,
    exact: bool = False,
) -> LoadReport:
    """Fills a detector or a segmenter, all of it or nothing.

    A file without neck and heads fills the backbone alone. What has a row for each class starts
    afresh where the file has other classes.

    Args:
        model: `backbone`, `neck` and heads under the names of mmdetection 2 and mmsegmentation.
        checkpoint: What `read_checkpoint` read; the backbone may be in any naming known here.
        where: What it was read from, for errors.
        classes: Names of the model's classes, to compare with those that the file names.
        exact: Refuses whatever would start afresh.

    Raises:
        UserError: As `load_weights`; or the file's neck and heads are not this model's.
    """
    own = model.state_dict()
    _, rest, places = find_parts(checkpoint.state, where)
    if not rest and exact:
        raise UserError(f"{where} does not fit {kind(model)}: it has no neck and no head")
    heads = {name: value for name, value in own.items() if re.match(PARTS, name)}
    fresh = {}
    if not rest:
        word = "segmenter" if any(n.startswith("decode_head.") for n in heads) else "detector"
        fresh = dict.fromkeys(heads, f"the file has no {word}")
    else:
        unknown = [name for name in rest if name not in own]
        if unknown:
            raise UserError(f"{where} does not fit: {some(unknown)} not known to {kind(model)}")
        fresh = other_rows(rest, heads, names_differ(checkpoint.classes, classes))
        if fresh and exact:
            raise UserError(f"{where} does not fit {kind(model)}: {next(iter(fresh.values()))}")
        uncounted = (n for n in heads if n.endswith(COUNTER) and n not in rest)
        fresh |= dict.fromkeys(uncounted, "the file counts no batches")
    kept = {name: value for name, value in rest.items() if name not in fresh}
    check_complete(kept, heads, fresh, where, kind(model))
    check_numbers({n: v for n, v in kept.items() if not n.endswith(COUNTER)}, heads, where)

    backbone = model.get_submodule("backbone")
    report = load_weights(backbone, checkpoint)  # the last that can fail, and it is all or nothing
    model.load_state_dict(kept, strict=False)
    used = set(places.values())
    return LoadReport(
        loaded=(*(f"backbone.{name}" for name in report.loaded), *kept),
        resized={f"backbone.{name}": change for name, change in report.resized.items()},
        ignored={name: why for name, why in report.ignored.items() if name not in used},
        reinitialised=fresh,
        notes=report.notes,
    )


def read_whole(model: nn.Module, checkpoint: Checkpoint, where: str) -> dict[str, Tensor]:
    """The tensors of a whole detector under our names, every bit as the file has them.

    The one change: mmdetection 3 has no row for the class token in v1's last position table, and
    gets a row of zeros, which no detector reads.

    Args:
        model: The same detector, which is filled on the way.
        checkpoint: What `read_checkpoint` read.
        where: What it was read from, for errors.

    Raises:
        UserError: The file is not all of this detector, or for another grid of positions.
    """
    report = load_detector(model, checkpoint, where, exact=True)
    for name, change in report.resized.items():
        if change != TOKEN_ADDED:
            raise UserError(f"{where}: {name} would have to change ({change})")
    found, rest, _ = find_parts(checkpoint.state, where)
    whole = rest | {f"backbone.{name}": value for name, value in found.state.items()}
    return {
        name: fit_shape(name.removeprefix("backbone."), whole.get(name, value), value.shape)[0]
        for name, value in model.state_dict().items()  # what no file must have: counted batches
    }


def other_rows(
    rest: dict[str, Tensor], heads: dict[str, Tensor], other_classes: bool
) -> dict[str, str]:
    """The parameters of the heads that the file has for other classes."""
    fresh = {}
    for name, value in heads.items():
        if is_per_class(name, heads) and name in rest:
            if has_other_count(rest[name].shape, value.shape, axis=int(name == QUERIES)):
                fresh[name] = "the file has another number of classes"
            elif other_classes:
                fresh[name] = "the file's classes have other names"
    return fresh


def is_per_class(name: str, heads: Mapping[str, Tensor]) -> bool:
    """Whether a parameter of heads has rows for each class; detectors with queries, and those that
    answer at every anchor, have one box for all classes."""
    if ".fc_reg." in name and PROPOSES not in heads:
        return False
    return name == QUERIES or PER_CLASS.search(name) is not None


def has_other_count(shape: Sequence[int], wanted: Sequence[int], axis: int) -> bool:
    """Whether two shapes differ along one axis alone."""
    both = list(zip(shape, wanted, strict=False))
    alike = len(shape) == len(wanted) and all(a == b for i, (a, b) in enumerate(both) if i != axis)
    return alike and shape[axis] != wanted[axis]
