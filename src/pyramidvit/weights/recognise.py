"""What a state dict is, told from its names and shapes alone."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..backbones import pvt_v1, pvt_v2
from ..errors import UserError
from .names import NAMINGS, Naming, join_parts, rename, turned

Size = pvt_v1.PVTv1Size | pvt_v2.PVTv2Size
MAX_DIMS = 5  # of no parameter; torch cannot even look at a tensor of more than 64
SIZES: dict[str, Size] = {**pvt_v1.SIZES, **pvt_v2.SIZES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A PVT inside a state dict.

    Attributes:
        naming: Whose names the file uses.
        prefix: What stands before every name of the PVT.
        state: Its tensors under official names.
        places: For each official name, the names in the file that it came from.
        outside: Names in the file that are no part of the PVT, each with the reason.
        unknown: Names in the file that nothing explains.
        family: "v1" or "v2".
        variants: The published models that it may be: none for sizes of somebody's own, several
            where the file has only the first stages of a model.
    """

    naming: Naming
    prefix: str
    state: dict[str, Tensor]
    places: dict[str, tuple[str, ...]]
    outside: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    family: str
    variants: tuple[str, ...]

    @property
    def num_classes(self) -> int | None:
        """Width of the classifier; None without one."""
        for name in ("head.weight", "head.bias"):  # one without the other is missing, not absent
            if name in self.state:
                return count_rows(self.state[name])
        return None

    @property
    def in_chans(self) -> int:
        return self.state["patch_embed1.proj.weight"].shape[1]

    @property
    def columns(self) -> list[tuple[int, ...]]:
        """Widths, depths, mlp_ratios, sr_ratios and linearity, one number a stage."""
        shapes = [stage_shape(self.state, i) for i in range(count_stages(self.state))]
        return list(zip(*shapes, strict=True))


def find_pvt(state: Mapping[str, Tensor], where: str, prefix: str | None = None) -> Found:
    """Finds the PVT in a state dict.

    Args:
        state: Names to tensors.
        where: What it was read from, for errors.
        prefix: Where to look, such as "backbone."; None searches.

    Raises:
        UserError: There is none, or several and no prefix says which.
    """
    found = [f for f in search(state) if prefix is None or f.prefix == prefix]
    if not found:
        raise UserError(f"{where} holds no PVT{no_pvt_hint(state, prefix)}")
    if len(found) > 1:
        prefixes = ", ".join(repr(f.prefix) for f in found)
        raise UserError(
            f"{where} holds {len(found)} PVTs: say which with prefix=, one of {prefixes}"
            " (pvt convert --prefix writes one of them apart)"
        )
    return found[0]


def no_pvt_hint(state: Mapping[str, Tensor], prefix: str | None) -> str:
    if prefix is not None:
        others = [f.prefix for f in search(state)]
        known = f"; there is one under {others[0]!r}" if others else ""
        return f" under {prefix!r}{known}"
    if not state:
        return ": it is empty"
    some = ", ".join(list(state)[:2])
    return f": its {len(state)} names ({some}, ...) are of no naming known here"


def search(state: Mapping[str, Tensor]) -> list[Found]:
    """Every PVT in a state dict, one a prefix."""
    best: dict[str, Found] = {}
    for naming in NAMINGS:
        for key in state:
            if key == naming.anchor or key.endswith(f".{naming.anchor}"):
                found = read_as(state, naming, key.removesuffix(naming.anchor))
                if found is not None:
                    rival = best.get(found.prefix)
                    if rival is None or len(found.unknown) < len(rival.unknown):
                        best[found.prefix] = found
    return list(best.values())


def read_as(state: Mapping[str, Tensor], naming: Naming, prefix: str) -> Found | None:
    """The state dict in the names of one library; None if it is no PVT."""
    rows, outer = turned(naming.rows), turned(naming.outer)
    # A classifier of transformers stands beside the prefix "pvt_v2." and not below it.
    parent = re.sub(r"[^.]+\.$", "", prefix)
    renamed: dict[str, str] = {}
    outside: dict[str, str] = {}
    unknown: list[str] = []
    for key in state:
        ours = rename(key.removeprefix(prefix), rows) if key.startswith(prefix) else None
        if ours is None and outer and key.startswith(parent):
            ours = rename(key.removeprefix(parent), outer)
        if ours is not None and ours not in renamed and state[key].ndim <= MAX_DIMS:
            renamed[ours] = key
        elif (reason := why_outside(key, prefix)) is not None:
            outside[key] = reason
        else:
            unknown.append(key)
    joined, parts = join_parts({ours: state[key] for ours, key in renamed.items()})
    if not is_pvt(joined):
        return None
    family = "v1" if "pos_embed1" in joined else "v2"
    return Found(
        naming=naming,
        prefix=prefix,
        state=joined,
        places={ours: tuple(renamed[part] for part in names) for ours, names in parts.items()},
        outside=outside,
        unknown=tuple(unknown),
        family=family,
        variants=match_sizes(joined, family),
    )


def is_pvt(state: Mapping[str, Tensor]) -> bool:
    """Whether official names hold a first stage, with the shapes of one."""
    dims = {
        "patch_embed1.proj.weight": 4,
        "patch_embed1.norm.weight": 1,
        "block1.0.attn.q.weight": 2,
        "block1.0.attn.kv.weight": 2,
        "block1.0.mlp.fc1.weight": 2,
    }
    return all(name in state and state[name].ndim == ndim for name, ndim in dims.items())


def why_outside(key: str, prefix: str) -> str | None:
    """Why an entry of a file is no part of its PVT; None if that is not clear."""
    if re.search(r"(^|\.)total_(ops|params)$", key):
        return "left behind by a FLOP counter"
    if key.startswith("ema_"):
        return "an averaged copy that mmcv made"
    if not prefix:
        return None
    if not key.startswith(prefix):
        return f"not below {prefix!r}: {key.split('.')[0]}"
    return None


def match_sizes(state: Mapping[str, Tensor], family: str) -> tuple[str, ...]:
    """The published models whose stages have these widths, depths and parts."""
    stages = count_stages(state)
    seen = [stage_shape(state, i) for i in range(stages)]
    table: dict[str, Size] = dict(pvt_v1.SIZES if family == "v1" else pvt_v2.SIZES)
    return tuple(
        name
        for name, size in table.items()
        if seen == [expected_shape(size, i) for i in range(stages)]
    )


def count_stages(state: Mapping[str, Tensor]) -> int:
    return next((i for i in range(4) if f"patch_embed{i + 1}.proj.weight" not in state), 4)


def stage_shape(state: Mapping[str, Tensor], index: int) -> tuple[int, int, int, int, bool]:
    """(width, blocks, mlp_ratio, sr_ratio, whether attention is linear) of a stage."""
    block = f"block{index + 1}"
    dim = count_rows(state[f"patch_embed{index + 1}.proj.weight"])
    numbers = {int(m[1]) for name in state if (m := re.match(rf"{block}\.(\d+)\.", name))}
    hidden = state.get(f"{block}.0.mlp.fc1.weight")
    reduction = state.get(f"{block}.0.attn.sr.weight")
    ratio = 1 if reduction is None or reduction.ndim != 4 else reduction.shape[2]
    return (
        dim,
        max(numbers, default=-1) + 1,
        0 if hidden is None or not dim else count_rows(hidden) // dim,
        ratio,
        reduction is not None and ratio == 1,
    )


def count_rows(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.ndim else 0


def expected_shape(size: Size, index: int) -> tuple[int, int, int, int, bool]:
    linear = isinstance(size, pvt_v2.PVTv2Size) and size.linear
    return (
        size.dims[index],
        size.depths[index],
        size.mlp_ratios[index],
        1 if linear else size.sr_ratios[index],
        linear,
    )


def check_config(found: Found, config: Mapping[str, Any], where: str) -> None:
    """Refuses a config.json that asks for what shapes do not show and no published model has.

    Raises:
        UserError: Naming the key, what it says, and what it must be.
    """
    if len(found.variants) != 1 or not config:
        return
    name, size = found.variants[0], SIZES[found.variants[0]]
    wanted: dict[str, Any] = {
        "hidden_act": "gelu",
        "qkv_bias": True,
        "strides": [4, 2, 2, 2],
        "patch_sizes": [4, 2, 2, 2] if found.family == "v1" else [7, 3, 3, 3],
        "num_attention_heads": list(size.num_heads),
    }
    said = dict(config)
    ours = config.get("size")  # in a directory of our own save_pretrained
    if isinstance(ours, Mapping):
        said["num_attention_heads"] = ours.get("num_heads")
    epsilon = said.get("layer_norm_eps", 1e-6)
    if not isinstance(epsilon, int | float) or not 1e-7 <= epsilon <= 1.01e-5:
        wanted["layer_norm_eps"] = 1e-6
    for key, value in wanted.items():
        if key in said and said[key] != value:
            raise UserError(
                f"{where}: config.json says {key} {said[key]}, and {name} has {value}: these"
                " weights would compute something else here"
            )


def describe_size(state: Mapping[str, Tensor], family: str) -> str:
    """The sizes of a PVT in words, for models of nobody's table."""
    shapes = [stage_shape(state, i) for i in range(count_stages(state))]
    dims, depths, mlp_ratios, sr_ratios, linear = zip(*shapes, strict=True)
    attention = "linear attention" if any(linear) else f"sr_ratios {list(sr_ratios)}"
    return (
        f"a PVT {family} with widths {list(dims)}, depths {list(depths)},"
        f" mlp_ratios {list(mlp_ratios)}, {attention}"
    )


def table_grid(table: Tensor, index: int) -> tuple[int, bool] | None:
    """The side of a square position table [1, N, C] of a v1 stage, and if a class token leads it.

    None for a table that is not square.
    """
    count = table.shape[1] if table.ndim == 3 else 0
    side = math.isqrt(count)
    if side > 0 and side * side == count:
        return side, False
    side = math.isqrt(max(count - 1, 0))
    if index == 3 and side > 0 and side * side == count - 1:
        return side, True
    return None
