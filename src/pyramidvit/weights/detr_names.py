"""How DETR's neck and heads are named by other versions of mmdetection than 2.8 to 2.28.

Those of RetinaNet, Mask R-CNN, ATSS, GFL, Sparse R-CNN and the cascade never changed their names.
Rows are those of `names`: {b} is a layer, {s} a norm's number, {p} "weight" or "bias".
"""

from collections.abc import Iterable, Mapping

from torch import Tensor

from .names import Row, rename, turned

OURS = "bbox_head.transformer"
QUERIES = "query_embedding.weight"  # that a file of DETR has, behind bbox_head. or without it


def layer_rows(ours: str, theirs: str, attentions: Iterable[tuple[str, str]]) -> tuple[Row, ...]:
    """The rows of a layer, whose attentions are given as pairs of names."""
    pairs = [
        (f"{own}.attn.{part}", f"{other}.attn.{part}")
        for own, other in attentions
        for part in ("in_proj_{p}", "out_proj.{p}")
    ]
    pairs += [(f"ffns.0.layers.{part}", f"ffn.layers.{part}") for part in ("0.0.{p}", "1.{p}")]
    pairs += [("norms.{s}.{p}", "norms.{s}.{p}")]
    return tuple((f"{ours}.layers.{{b}}.{a}", f"{theirs}.layers.{{b}}.{b}") for a, b in pairs)


SELF = ("attentions.0", "self_attn")
# mmdet/models/detectors/detr.py of mmdetection 3, whose names were recorded from a build of it.
MMDET_3: tuple[Row, ...] = (
    *layer_rows(f"{OURS}.encoder", "encoder", [SELF]),
    *layer_rows(f"{OURS}.decoder", "decoder", [SELF, ("attentions.1", "cross_attn")]),
    (f"{OURS}.decoder.post_norm.{{p}}", "decoder.post_norm.{p}"),
    ("bbox_head.input_proj.{p}", "neck.convs.0.conv.{p}"),
    (f"bbox_head.{QUERIES}", QUERIES),
)
# Before 2.8: the names that mmdetection 2.13 turns into its own when it loads an old file.
BEFORE_2_8: tuple[Row, ...] = (
    *layer_rows(f"{OURS}.encoder", f"{OURS}.encoder", [SELF]),
    *layer_rows(f"{OURS}.decoder", f"{OURS}.decoder", [SELF, ("attentions.1", "multihead_attn")]),
    (f"{OURS}.decoder.post_norm.{{p}}", f"{OURS}.decoder.norm.{{p}}"),
)


def our_names(names: Iterable[str]) -> dict[str, str]:
    """Our name of each of a detector's parameters; of two for one, the second keeps its own."""
    names = list(names)
    is_detr = any(name in (QUERIES, f"bbox_head.{QUERIES}") for name in names)
    rows = turned((*MMDET_3, *BEFORE_2_8)) if is_detr else ()
    ours = {}
    taken = set(names)
    for name in names:
        found = rename(name, rows) or name
        ours[name] = name if found in taken else found
        taken.add(ours[name])
    return ours


def to_mmdet3(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A neck and heads, of any detector of ours, under the names of mmdetection 3."""
    rows = MMDET_3 if f"bbox_head.{QUERIES}" in state else ()
    return {rename(name, rows) or name: value for name, value in state.items()}
