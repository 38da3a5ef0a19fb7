"""What a checkpoint is, for `pvt inspect`: everything that can be told without a model."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..backbones import pvt_v1, pvt_v2
from ..errors import UserError
from .checkpoint import Checkpoint
from .load import epsilon_note, name_of
from .recognise import (
    Found,
    check_config,
    count_stages,
    describe_size,
    find_pvt,
    table_grid,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSigns:
    """How a detector or a segmenter is known by its parameters.

    Attributes:
        head, task: What it is.
        sign: The end of a name that only this one has.
        classes: The bias that has a number for each class, or another tensor that does.
        axis: Of that tensor, the one along which the classes lie.
        per_class: Numbers of that bias for one class: the anchors of a place.
        background: Its numbers that are for no class.
    """

    head: str
    task: str
    sign: str
    classes: str
    axis: int = 0
    per_class: int = 1
    background: int = 0


STAGE = r"(?:patch_embed|pos_embed|block|norm)(\d)"
BOXES, DENSE = "roi_head.bbox_head", "bbox_head"
HEADS = (  # the names that mmdetection 2 and 3 and mmsegmentation give
    HeadSigns(
        head="sparse_rcnn",
        task="detection",
        sign="rpn_head.init_proposal_bboxes.weight",
        classes=f"{BOXES}.0.fc_cls.bias",
    ),
    HeadSigns(
        head="cascade_mask_rcnn",
        task="detection",
        sign="roi_head.mask_head.0.conv_logits.weight",
        classes=f"{BOXES}.0.fc_cls.bias",
        background=1,
    ),
    HeadSigns(
        head="mask_rcnn",
        task="detection",
        sign="roi_head.mask_head.conv_logits.weight",
        classes=f"{BOXES}.fc_cls.bias",
        background=1,
    ),
    HeadSigns(
        head="faster_rcnn",
        task="detection",
        sign=f"{BOXES}.fc_cls.bias",
        classes=f"{BOXES}.fc_cls.bias",
        background=1,
    ),
    HeadSigns(
        head="retinanet",
        task="detection",
        sign=f"{DENSE}.retina_cls.bias",
        classes=f"{DENSE}.retina_cls.bias",
        per_class=9,
    ),
    HeadSigns(
        head="atss",
        task="detection",
        sign=f"{DENSE}.atss_cls.bias",
        classes=f"{DENSE}.atss_cls.bias",
    ),
    HeadSigns(
        head="gfl",
        task="detection",
        sign=f"{DENSE}.gfl_cls.bias",
        classes=f"{DENSE}.gfl_cls.bias",
    ),
    HeadSigns(
        head="detr",
        task="detection",
        sign="query_embedding.weight",
        classes=f"{DENSE}.fc_cls.bias",
        background=1,
    ),
    HeadSigns(
        head="semantic_fpn",
        task="segmentation",
        sign="decode_head.scale_heads.0.0.conv.weight",
        classes="decode_head.conv_seg.bias",
    ),
    HeadSigns(
        head="trans2seg",
        task="segmentation",
        sign="transformer.vit.cls_embed",
        classes="transformer.vit.cls_embed",
        axis=1,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a checkpoint is.

    Attributes:
        source: Whose names it uses, or "pyramidvit" for our own files.
        model: The published model, or the sizes in words.
        task: "classification", "detection", "segmentation" or "backbone".
        head: Which detector or segmenter; None for others.
        num_classes: None where there is no head, or one that is not known.
        classes: Their names, where the file tells them.
        in_chans: Channels of the images.
        image_size: v1: the side in pixels of the images that its position tables are for.
        dtypes: Number formats of the weights, and of how many tensors each.
        parameters: Numbers in the PVT.
        prefix: What stands before its names.
        place: Where in the file the weights stand.
        others: Where other weights stand.
        ignored: What a classifier or backbone of this package leaves out: reason to count.
        unknown: Names that nothing explains; loading refuses them.
        missing: Names that the model has and the file lacks; loading refuses that.
        contradiction: What a config.json says against it; empty for nothing.
        not_finite: Names of tensors with NaN or infinite numbers; loading refuses them.
        facts: What the file tells of itself.
        notes: What should be known.
    """

    source: str
    model: str
    task: str
    head: str | None
    num_classes: int | None
    classes: tuple[str, ...] | None
    in_chans: int
    image_size: int | None
    dtypes: dict[str, int]
    parameters: int
    prefix: str
    place: str
    others: tuple[str, ...]
    ignored: dict[str, int]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    contradiction: str
    not_finite: tuple[str, ...]
    facts: dict[str, str | int | float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def describe_checkpoint(
    checkpoint: Checkpoint, where: str, prefix: str | None = None
) -> Description:
    """Says what a checkpoint is; `where` names it in errors.

    Raises:
        UserError: There is no PVT in it, or several and no prefix says which.
    """
    found = find_pvt(checkpoint.state, where, prefix)
    signs = find_head(checkpoint.state)
    told = None if signs is not None else recorded_head(checkpoint.record)
    task = "classification" if found.num_classes is not None else "backbone"
    head, count = None, found.num_classes
    if signs is not None:
        task, head, count = signs.task, signs.head, count_classes(signs, checkpoint.state)
    elif told is not None:
        task, head, count = told
    values = found.state.values()
    notes = []
    if not found.variants:
        notes.append("its sizes are in no table of the papers: it cannot be built by name")
    if found.naming.source == "transformers":
        notes.append(epsilon_note(checkpoint.config))
    return Description(
        source="pyramidvit" if is_ours(checkpoint) else found.naming.source,
        model=name_of(found) if found.variants else describe_size(found.state, found.family),
        task=task,
        head=head,
        num_classes=count,
        classes=checkpoint.classes,
        in_chans=found.in_chans,
        image_size=trained_size(found),
        dtypes=dict(Counter(str(value.dtype).removeprefix("torch.") for value in values)),
        parameters=sum(value.numel() for value in values),
        prefix=found.prefix,
        place=checkpoint.place,
        others=checkpoint.others,
        ignored=dict(Counter(found.outside.values())),
        unknown=found.unknown,
        missing=missing_names(found, may_be_cut=told is not None),
        contradiction=contradiction(found, checkpoint),
        not_finite=tuple(n for n, v in found.state.items() if not torch.isfinite(v).all()),
        facts=checkpoint.facts | record_facts(checkpoint.record),
        notes=tuple(notes),
    )


def is_ours(checkpoint: Checkpoint) -> bool:
    return bool(checkpoint.record) or checkpoint.config.get("library_name") == "pyramidvit"


def find_head(state: Mapping[str, Tensor]) -> HeadSigns | None:
    return next((signs for signs in HEADS if ends_with(state, signs.sign) is not None), None)


def ends_with(state: Mapping[str, Tensor], name: str) -> Tensor | None:
    """The tensor of that name, whatever prefix stands before it."""
    return next((v for key, v in state.items() if key == name or key.endswith(f".{name}")), None)


def count_classes(signs: HeadSigns, state: Mapping[str, Tensor]) -> int | None:
    value = ends_with(state, signs.classes)
    if value is None or (signs.axis and value.ndim <= signs.axis):
        return None
    rows = value.shape[signs.axis] if signs.axis else value.numel()
    return (rows - signs.background) // signs.per_class


def recorded_head(record: Mapping[str, Any]) -> tuple[str, str, int] | None:
    """Task, name and number of classes of a head of one's own, as our own record tells them."""
    model, classes = record.get("model"), record.get("classes")
    if not isinstance(model, dict) or "backbone" not in model or not isinstance(classes, list):
        return None
    return str(record.get("task")), str(model.get("name")), len(classes)


def missing_names(found: Found, *, may_be_cut: bool) -> tuple[str, ...]:
    """What a whole model of these sizes has and the file lacks; a backbone needs no head.

    One that may be cut need not have the last stages: only its builder knows how many it has.
    """
    if not found.variants:
        return ()
    name = found.variants[0]
    with torch.device("meta"):
        if found.family == "v1":
            whole = set(pvt_v1.PVTv1Classifier(pvt_v1.SIZES[name]).state_dict())
        else:
            whole = set(pvt_v2.PVTv2Classifier(pvt_v2.SIZES[name]).state_dict())
    for part in (("head.weight", "head.bias"), ("cls_token", "norm.weight", "norm.bias")):
        if not any(entry in found.state for entry in part):
            whole -= set(part)
    if may_be_cut:
        stages = count_stages(found.state)
        whole -= {n for n in whole if (m := re.match(STAGE, n)) and int(m[1]) > stages}
    return tuple(sorted(whole - set(found.state)))


def contradiction(found: Found, checkpoint: Checkpoint) -> str:
    try:
        check_config(found, checkpoint.config, checkpoint.where)
    except UserError as error:
        return str(error)
    return ""


def trained_size(found: Found) -> int | None:
    """The side of the images that the position tables of a v1 model are for."""
    table = found.state.get("pos_embed1")
    grid = None if table is None else table_grid(table, 0)
    return None if grid is None else grid[0] * 4


def record_facts(record: Mapping[str, Any]) -> dict[str, str | int | float]:
    """The figures of our own record."""
    figures = record.get("figures")
    facts = dict(figures) if isinstance(figures, dict) else {}
    facts |= {name: record[name] for name in ("epoch", "version", "data") if name in record}
    return {k: v for k, v in facts.items() if isinstance(v, str | int | float)}
