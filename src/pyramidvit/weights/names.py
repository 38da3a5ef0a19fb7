"""How other libraries name the parameters of a PVT: tables, read in both directions.

Our own names are the official ones. A row pairs an official name with a foreign one; in it
{i} is a stage from 1, {s} the same stage from 0, {b} a block from 0, {n} the same block from 1,
{p} "weight" or "bias". The first row that fits holds.

Where two libraries cut a matrix differently, a name in brackets stands for the part: kv[0] and
kv[1] are the key and value rows of `attn.kv`, qkv holds the rows of `attn.q` and `attn.kv`.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Row = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """The names of one library for one family.

    Attributes:
        source: Whose names they are.
        family: "v1", "v2", or "" where the names do not tell.
        anchor: A foreign name that is always there; what stands before it is a prefix.
        rows: Pairs of (official, foreign) patterns.
        head: Where the classifier lies, when it is outside the prefix: (official, foreign).
    """

    source: str
    family: str
    anchor: str
    rows: tuple[Row, ...]
    outer: tuple[Row, ...] = field(default=())


BLOCK_PARTS = (
    *("norm1", "norm2", "attn.q", "attn.kv", "attn.proj", "attn.sr", "attn.norm"),
    *("mlp.fc1", "mlp.fc2", "mlp.dwconv.dwconv"),
)

# classification/pvt.py and pvt_v2.py of the reference; its detection and segmentation files too.
OFFICIAL = Naming(
    source="official",
    family="",
    anchor="patch_embed1.proj.weight",
    rows=(
        *(
            (f"{name}.{{p}}", f"{name}.{{p}}")
            for name in ("patch_embed{i}.proj", "patch_embed{i}.norm")
        ),
        *((f"block{{i}}.{{b}}.{part}.{{p}}",) * 2 for part in BLOCK_PARTS),
        ("pos_embed{i}", "pos_embed{i}"),
        ("norm{i}.{p}", "norm{i}.{p}"),
        ("cls_token", "cls_token"),
        ("norm.{p}", "norm.{p}"),
        ("head.{p}", "head.{p}"),
    ),
)

# timm/models/pvt_v2.py; timm has no v1.
TIMM_ROWS: tuple[Row, ...] = (
    *((f"patch_embed1.{part}.{{p}}", f"patch_embed.{part}.{{p}}") for part in ("proj", "norm")),
    *(
        (f"patch_embed{{i}}.{part}.{{p}}", f"stages.{{s}}.downsample.{part}.{{p}}")
        for part in ("proj", "norm")
    ),
    *(
        (f"block{{i}}.{{b}}.{part}.{{p}}", f"stages.{{s}}.blocks.{{b}}.{part}.{{p}}")
        for part in BLOCK_PARTS[:-1]
    ),
    ("block{i}.{b}.mlp.dwconv.dwconv.{p}", "stages.{s}.blocks.{b}.mlp.dwconv.{p}"),
    ("norm{i}.{p}", "stages.{s}.norm.{p}"),
    ("head.{p}", "head.{p}"),
)
TIMM = Naming(source="timm", family="v2", anchor="patch_embed.proj.weight", rows=TIMM_ROWS)
# What features_only makes of the same names.
TIMM_FEATURES = Naming(
    source="timm (features only)",
    family="v2",
    anchor="patch_embed.proj.weight",
    rows=tuple((ours, theirs.replace("stages.", "stages_")) for ours, theirs in TIMM_ROWS),
)

# transformers/models/pvt_v2/modeling_pvt_v2.py. A classifier has the prefix "pvt_v2.".
TRANSFORMERS_V2 = Naming(
    source="transformers",
    family="v2",
    anchor="encoder.layers.0.patch_embedding.proj.weight",
    rows=(
        ("patch_embed{i}.proj.{p}", "encoder.layers.{s}.patch_embedding.proj.{p}"),
        ("patch_embed{i}.norm.{p}", "encoder.layers.{s}.patch_embedding.layer_norm.{p}"),
        ("block{i}.{b}.norm1.{p}", "encoder.layers.{s}.blocks.{b}.layer_norm_1.{p}"),
        ("block{i}.{b}.norm2.{p}", "encoder.layers.{s}.blocks.{b}.layer_norm_2.{p}"),
        ("block{i}.{b}.attn.q.{p}", "encoder.layers.{s}.blocks.{b}.attention.query.{p}"),
        ("block{i}.{b}.attn.kv[0].{p}", "encoder.layers.{s}.blocks.{b}.attention.key.{p}"),
        ("block{i}.{b}.attn.kv[1].{p}", "encoder.layers.{s}.blocks.{b}.attention.value.{p}"),
        ("block{i}.{b}.attn.proj.{p}", "encoder.layers.{s}.blocks.{b}.attention.proj.{p}"),
        (
            "block{i}.{b}.attn.sr.{p}",
            "encoder.layers.{s}.blocks.{b}.attention.spatial_reduction.{p}",
        ),
        ("block{i}.{b}.attn.norm.{p}", "encoder.layers.{s}.blocks.{b}.attention.layer_norm.{p}"),
        ("block{i}.{b}.mlp.fc1.{p}", "encoder.layers.{s}.blocks.{b}.mlp.dense1.{p}"),
        ("block{i}.{b}.mlp.fc2.{p}", "encoder.layers.{s}.blocks.{b}.mlp.dense2.{p}"),
        (
            "block{i}.{b}.mlp.dwconv.dwconv.{p}",
            "encoder.layers.{s}.blocks.{b}.mlp.dwconv.dwconv.{p}",
        ),
        ("norm{i}.{p}", "encoder.layers.{s}.layer_norm.{p}"),
    ),
    outer=(("head.{p}", "classifier.{p}"),),
)
# transformers/models/pvt/modeling_pvt.py. A classifier has the prefix "pvt.".
TRANSFORMERS_V1 = Naming(
    source="transformers",
    family="v1",
    anchor="encoder.patch_embeddings.0.projection.weight",
    rows=(
        ("patch_embed{i}.proj.{p}", "encoder.patch_embeddings.{s}.projection.{p}"),
        ("patch_embed{i}.norm.{p}", "encoder.patch_embeddings.{s}.layer_norm.{p}"),
        ("pos_embed{i}", "encoder.patch_embeddings.{s}.position_embeddings"),
        ("cls_token", "encoder.patch_embeddings.3.cls_token"),
        ("block{i}.{b}.norm1.{p}", "encoder.block.{s}.{b}.layer_norm_1.{p}"),
        ("block{i}.{b}.norm2.{p}", "encoder.block.{s}.{b}.layer_norm_2.{p}"),
        ("block{i}.{b}.attn.q.{p}", "encoder.block.{s}.{b}.attention.self.query.{p}"),
        ("block{i}.{b}.attn.kv[0].{p}", "encoder.block.{s}.{b}.attention.self.key.{p}"),
        ("block{i}.{b}.attn.kv[1].{p}", "encoder.block.{s}.{b}.attention.self.value.{p}"),
        ("block{i}.{b}.attn.proj.{p}", "encoder.block.{s}.{b}.attention.output.dense.{p}"),
        ("block{i}.{b}.attn.sr.{p}", "encoder.block.{s}.{b}.attention.self.sequence_reduction.{p}"),
        ("block{i}.{b}.attn.norm.{p}", "encoder.block.{s}.{b}.attention.self.layer_norm.{p}"),
        ("block{i}.{b}.mlp.fc1.{p}", "encoder.block.{s}.{b}.mlp.dense1.{p}"),
        ("block{i}.{b}.mlp.fc2.{p}", "encoder.block.{s}.{b}.mlp.dense2.{p}"),
        ("norm.{p}", "encoder.layer_norm.{p}"),
    ),
    outer=(("head.{p}", "classifier.{p}"),),
)

# mmdet/models/backbones/pvt.py of mmdetection 3; a block's attention is torch's own.
MMDET_EMBED: tuple[Row, ...] = (
    ("patch_embed{i}.proj.{p}", "layers.{s}.0.projection.{p}"),
    ("patch_embed{i}.norm.{p}", "layers.{s}.0.norm.{p}"),
)


def mmdet_block(number: str, inner: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows of a block, whose number in the file is {b} or, behind a position table, {n}."""
    block = f"layers.{{s}}.1.{number}"
    return (
        ("block{i}.{b}.norm1.{p}", f"{block}.norm1.{{p}}"),
        ("block{i}.{b}.norm2.{p}", f"{block}.norm2.{{p}}"),
        ("block{i}.{b}.attn.qkv.{p}", f"{block}.attn.attn.in_proj_{{p}}"),
        ("block{i}.{b}.attn.proj.{p}", f"{block}.attn.attn.out_proj.{{p}}"),
        ("block{i}.{b}.attn.sr.{p}", f"{block}.attn.sr.{{p}}"),
        ("block{i}.{b}.attn.norm.{p}", f"{block}.attn.norm.{{p}}"),
        ("block{i}.{b}.mlp.fc1.{p}", f"{block}.ffn.layers.0.{{p}}"),
        *((ours, f"{block}.ffn.layers.{theirs}") for ours, theirs in inner),
    )


MMDET_V1 = Naming(
    source="mmdetection 3",
    family="v1",
    anchor="layers.0.0.projection.weight",
    rows=(
        *MMDET_EMBED,
        ("pos_embed{i}", "layers.{s}.1.0.pos_embed"),
        *mmdet_block("{n}", (("block{i}.{b}.mlp.fc2.{p}", "3.{p}"),)),
    ),
)
MMDET_V2 = Naming(
    source="mmdetection 3",
    family="v2",
    anchor="layers.0.0.projection.weight",
    rows=(
        *MMDET_EMBED,
        ("norm{i}.{p}", "layers.{s}.2.{p}"),
        *mmdet_block(
            "{b}",
            (
                ("block{i}.{b}.mlp.dwconv.dwconv.{p}", "1.{p}"),
                ("block{i}.{b}.mlp.fc2.{p}", "4.{p}"),
            ),
        ),
    ),
)

NAMINGS = (OFFICIAL, TRANSFORMERS_V2, TRANSFORMERS_V1, TIMM, TIMM_FEATURES, MMDET_V2, MMDET_V1)

PLACEHOLDERS = {
    "{i}": r"(?P<i>[1-4])",
    "{s}": r"(?P<s>[0-3])",
    "{b}": r"(?P<b>\d{1,3})",
    "{n}": r"(?P<n>[1-9]\d{0,2})",
    "{p}": r"(?P<p>weight|bias)",
}


@functools.lru_cache(maxsize=512)
def to_regex(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\{", "{").replace(r"\}", "}")
    for placeholder, expression in PLACEHOLDERS.items():
        text = text.replace(placeholder, expression)
    return re.compile(text)


def rename(name: str, rows: Iterable[Row]) -> str | None:
    """The name on the right of the first row whose left fits; None where none does."""
    for left, right in rows:
        found = to_regex(left).fullmatch(name)
        if found:
            return right.format(**complete(found.groupdict()))
    return None


def complete(values: dict[str, str]) -> dict[str, str]:
    """Adds what counts the same from another start."""
    values = dict(values)
    for one, two, shift in (("i", "s", -1), ("b", "n", 1)):
        if one in values:
            values[two] = str(int(values[one]) + shift)
        elif two in values:
            values[one] = str(int(values[two]) - shift)
    return values


def turned(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows for the way back, from foreign to official."""
    return tuple((theirs, ours) for ours, theirs in rows)


def join_parts(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Official tensors out of parts, and for each the parts' names.

    Parts that do not fit together, such as one half of a pair, keep their names with brackets.
    """
    joined: dict[str, Tensor] = {}
    parts: dict[str, tuple[str, ...]] = {}
    for name, value in state.items():
        key, other = name.replace(".kv[1].", ".kv[0]."), name.replace(".kv[0].", ".kv[1].")
        if key != other and are_halves(state.get(key), state.get(other)):
            if name == key:
                whole = name.replace("[0]", "")
                joined[whole] = torch.cat([value, state[other]])
                parts[whole] = (key, other)
        elif ".attn.qkv." in name and value.ndim and len(value) % 3 == 0:
            dim = len(value) // 3
            for piece, rows in (("q", value[:dim]), ("kv", value[dim:])):
                joined[name.replace(".qkv.", f".{piece}.")] = rows.contiguous()
                parts[name.replace(".qkv.", f".{piece}.")] = (name,)
        else:
            # mmdetection writes the layers of a v2 feed-forward as 1x1 convolutions.
            linear = re.search(r"\.mlp\.fc[12]\.weight$", name) and value.ndim == 4
            joined[name] = value.flatten(1) if linear else value
            parts[name] = (name,)
    return joined, parts


def are_halves(key: Tensor | None, value: Tensor | None) -> bool:
    """Whether the rows of keys and of values can stand in one matrix."""
    if key is None or value is None or not key.ndim:
        return False
    return key.shape == value.shape and key.dtype == value.dtype


def cut_kv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way, for transformers: each `attn.kv` as its key and value rows."""
    cut: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".attn.kv." in name:
            half = len(value) // 2
            cut[name.replace(".kv.", ".kv[0].")] = value[:half].contiguous()
            cut[name.replace(".kv.", ".kv[1].")] = value[half:].contiguous()
        else:
            cut[name] = value
    return cut


def join_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way, for mmdetection 3: one matrix of queries, keys and values in each attention,
    and feed-forward layers as 1x1 convolutions."""
    joined: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".attn.q." in name:
            parts = (value, state[name.replace(".q.", ".kv.")])
            joined[name.replace(".q.", ".qkv.")] = torch.cat(parts)
        elif re.search(r"\.mlp\.fc[12]\.weight$", name):
            joined[name] = value[:, :, None, None]
        elif ".attn.kv." not in name:
            joined[name] = value
    return joined
