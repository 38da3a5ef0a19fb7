"""Writing a PVT, or a detector on one, under the names of another library, tensor for tensor."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..backbones import pvt_v2
from ..errors import UserError
from ..files import write_atomically
from .checkpoint import write_safetensors
from .describe import trained_size
from .detr_names import to_mmdet3
from .inputs import PUBLISHED, to_transformers
from .names import (
    MMDET_V1,
    MMDET_V2,
    TIMM,
    TRANSFORMERS_V1,
    TRANSFORMERS_V2,
    Row,
    cut_kv,
    join_qkv,
    rename,
)
from .recognise import SIZES, Found

# transformers has one epsilon for all norms, the reference two: 1e-5 in patch embedding and
# reduction, 1e-6 elsewhere. 1e-6 is its own default and right for most norms.
TRANSFORMERS_EPSILON = 1e-6


def write_official(path: Path, found: Found) -> None:
    """Writes the reference's format: a plain state dict, `.pth` or `.safetensors`."""
    write_state(path, found.state)


def write_timm(path: Path, found: Found) -> None:
    """Writes timm's names, as `timm.create_model(..., checkpoint_path=path)` reads them.

    Raises:
        UserError: For v1, which timm has not.
    """
    if found.family == "v1":
        raise UserError(
            "timm has no PVT v1; with pyramidvit.register_with_timm() it takes the official names"
            " (--to official)"
        )
    write_state(path, renamed(found.state, TIMM.rows))


def write_transformers(
    folder: Path,
    found: Found,
    classes: Sequence[str] | None,
    described: Mapping[str, Any] = PUBLISHED,
) -> None:
    """Writes a directory that transformers' `from_pretrained` reads: a classifier, or a backbone.

    Args:
        folder: Made where it is missing.
        found: The PVT.
        classes: Names for its outputs.
        described: What its input must be like: see `weights.inputs`.

    Raises:
        UserError: A model of nobody's table, or a v1 without class token: transformers has none.
    """
    if len(found.variants) != 1:
        raise UserError("transformers needs a model of the papers' tables, whole: see pvt inspect")
    if found.family == "v1" and "cls_token" not in found.state:
        raise UserError("this v1 backbone has no class token, without which transformers has none")
    naming = TRANSFORMERS_V1 if found.family == "v1" else TRANSFORMERS_V2
    has_head = found.num_classes is not None
    inner = renamed(cut_kv(without_head(found.state)), naming.rows)
    prefix = {"v1": "pvt.", "v2": "pvt_v2."}[found.family] if has_head else ""
    state = {f"{prefix}{name}": value for name, value in inner.items()}
    if has_head:
        head = {name: found.state[name] for name in ("head.weight", "head.bias")}
        state |= renamed(head, naming.outer)
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", state, {"format": "pt"})
    write_json(folder / "preprocessor_config.json", to_transformers(described))
    write_json(folder / "config.json", transformers_config(found, classes, described["size"]))


def transformers_config(found: Found, classes: Sequence[str] | None, side: int) -> dict[str, Any]:
    """The config.json of a model."""
    size = SIZES[found.variants[0]]
    config: dict[str, Any] = {
        "image_size": trained_size(found) or side,
        "num_channels": found.in_chans,
        "num_encoder_blocks": 4,
        "depths": list(size.depths),
        "hidden_sizes": list(size.dims),
        "num_attention_heads": list(size.num_heads),
        "mlp_ratios": list(size.mlp_ratios),
        "hidden_act": "gelu",
        "drop_path_rate": 0.0,
        "layer_norm_eps": TRANSFORMERS_EPSILON,
        "qkv_bias": True,
    }
    if isinstance(size, pvt_v2.PVTv2Size):
        kind = "PvtV2ForImageClassification" if found.num_classes is not None else "PvtV2Backbone"
        config |= {
            "model_type": "pvt_v2",
            "architectures": [kind],
            "sr_ratios": list(size.sr_ratios),
            "patch_sizes": [7, 3, 3, 3],
            "strides": [4, 2, 2, 2],
            "linear_attention": size.linear,
        }
    else:
        kind = "PvtForImageClassification" if found.num_classes is not None else "PvtModel"
        config |= {
            "model_type": "pvt",
            "architectures": [kind],
            "sequence_reduction_ratios": list(size.sr_ratios),
            "patch_sizes": [4, 2, 2, 2],
            "strides": [4, 2, 2, 2],
        }
    if found.num_classes is not None:
        names = classes or [f"LABEL_{k}" for k in range(found.num_classes)]
        config["id2label"] = {str(k): name for k, name in enumerate(names)}
        config["num_labels"] = found.num_classes  # PvtConfig believes this more than its labels
        config["label2id"] = {name: k for k, name in enumerate(names)}
    return config


def write_mmdetection(
    path: Path,
    state: Mapping[str, Tensor],
    classes: Sequence[str] | None,
    version: Literal[2, 3] = 2,
) -> None:
    """Writes a checkpoint that mmdetection's own tools read, with the names of the classes.

    Args:
        path: Ends in `.pth`.
        state: A whole detector under our names: backbone, neck and heads.
        classes: Names of its classes, where they are known.
        version: 2 for the names of the reference's detection code, which are ours; 3 for those of
            mmdetection's own PVT, which has no linear attention.

    Raises:
        UserError: Another ending, or linear attention for version 3.
    """
    if path.suffix != ".pth":
        raise UserError(f"{path}: give the file a name that ends in .pth")
    meta: dict[str, Any] = {}
    if classes is not None:
        names = tuple(classes)
        meta = {"CLASSES": names} if version == 2 else {"dataset_meta": {"classes": names}}
    kept = dict(state) if version == 2 else mmdetection3_names(state)
    buffer = io.BytesIO()
    torch.save({"meta": meta, "state_dict": kept}, buffer)
    write_atomically(path, buffer.getvalue())


def write_trans2seg(path: Path, state: Mapping[str, Tensor]) -> None:
    """Writes Trans2Seg on a PVT as its authors' code (xieenze/Trans2Seg) names it: a plain state
    dict, `.pth` or `.safetensors`, of `encoder` and `transformer_head`.

    Args:
        path: See above.
        state: All of it under our names.

    Raises:
        UserError: Another ending.
    """
    theirs = {"backbone": "encoder", "decode_head": "transformer_head"}
    parts = {name: name.partition(".") for name in state}
    write_state(path, {f"{theirs[a]}.{b}": state[name] for name, (a, _, b) in parts.items()})


def mmdetection3_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A whole detector under the names of mmdetection 3.

    Raises:
        UserError: Its backbone has linear attention.
    """
    prefix = "backbone."
    inner = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    if is_linear(inner):
        raise UserError("mmdetection 3 has no PVT with linear attention (--to mmdetection)")
    naming = MMDET_V1 if "pos_embed1" in inner else MMDET_V2
    if "pos_embed4" in inner:  # the row of the class token, which no detector reads
        inner["pos_embed4"] = inner["pos_embed4"][:, 1:].contiguous()
    theirs = renamed(join_qkv(inner), naming.rows)
    outer = {name: value for name, value in state.items() if not name.startswith(prefix)}
    return {f"{prefix}{name}": value for name, value in theirs.items()} | to_mmdet3(outer)


def is_linear(state: Mapping[str, Tensor]) -> bool:
    """Whether a backbone's attention is linear: its first reduction is a 1x1 convolution."""
    reduction = state.get("block1.0.attn.sr.weight")
    return reduction is not None and reduction.shape[2] == 1


def renamed(state: Mapping[str, Tensor], rows: Sequence[Row]) -> dict[str, Tensor]:
    """The tensors under foreign names.

    Raises:
        UserError: A name that has no counterpart there.
    """
    result = {}
    for name, value in state.items():
        theirs = rename(name, rows)
        if theirs is None:
            raise UserError(f"{name} has no counterpart there")
        result[theirs] = value
    return result


def without_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("head.")}


def write_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Writes a plain state dict, all or nothing, in the format that the file's name asks for."""
    if path.suffix == ".safetensors":
        write_safetensors(path, state, {"format": "pt"})
    elif path.suffix in (".pth", ".pt", ".bin"):
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        write_atomically(path, buffer.getvalue())
    else:
        raise UserError(f"{path}: give the file a name that ends in .pth or .safetensors")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, f"{json.dumps(content, indent=2)}\n".encode())
