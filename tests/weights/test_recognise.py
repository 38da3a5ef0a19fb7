"""What a file is, told from its names and shapes: the right model, and nothing where there is none.

The names of detectors and segmenters are those that their own builders gave (`golden_dir`).
"""

import argparse
import json
import sys
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foreign import (
    TINY_V1,
    TINY_V2,
    assert_bits,
    built,
    bytes_like,
    prefixed,
    shapes,
    tiny_model,
    tiny_state,
)
from pyramidvit import create_model, list_models, load_weights, read_checkpoint
from pyramidvit.backbones.pvt_v2 import PVTv2Classifier, PVTv2Size
from pyramidvit.errors import UserError
from pyramidvit.weights.convert import write_timm, write_transformers
from pyramidvit.weights.describe import Description, describe_checkpoint
from pyramidvit.weights.names import TIMM_FEATURES
from pyramidvit.weights.recognise import find_pvt, search

COCO, ADE = 80, 150
HEADS = {  # recorded names: what `pvt inspect` must say
    "atss_pvt_v2_b0": ("atss", "detection", COCO),
    "cascade_pvt_v2_b0": ("cascade_mask_rcnn", "detection", COCO),
    "detr_pvt_small": ("detr", "detection", COCO),
    "gfl_pvt_v2_b0": ("gfl", "detection", COCO),
    "mask_rcnn_pvt_tiny": ("mask_rcnn", "detection", COCO),
    "mask_rcnn_pvt_v2_b0": ("mask_rcnn", "detection", COCO),
    "retinanet_pvt_tiny": ("retinanet", "detection", COCO),
    "retinanet_pvt_v2_b0": ("retinanet", "detection", COCO),
    "semfpn_pvt_tiny": ("semantic_fpn", "segmentation", ADE),
    "semfpn_pvt_v2_b0": ("semantic_fpn", "segmentation", ADE),
    "sparse_rcnn_pvt_v2_b0": ("sparse_rcnn", "detection", COCO),
}


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    return pytest.importorskip("timm")


def describe(path: Path, **options: Any) -> Description:
    return describe_checkpoint(read_checkpoint(path, **options), str(path))


def saved(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "model.pth")
    return folder / "model.pth"


@pytest.mark.parametrize("name", list_models())
def test_every_variant_is_told_from_all_others(name: str) -> None:
    with torch.device("meta"):
        state = create_model(name).state_dict()
        pyramid = create_model(name, features_only=True).state_dict()
    for content in (state, pyramid, prefixed(state, "module.")):
        found = find_pvt(content, "it")
        assert found.variants == (name,)
        assert found.family == ("v2" if "v2" in name else "v1")
        assert found.unknown == ()


NESTINGS = {
    "bare": (lambda s: s, "", ""),
    "reference": (
        lambda s: {"model": s, "epoch": 3, "args": argparse.Namespace(lr=0.1, eval=False)},
        "model",
        "",
    ),
    "distributed": (lambda s: {"state_dict": prefixed(s, "module.")}, "state_dict", "module."),
    "backbone": (lambda s: prefixed(s, "backbone."), "", "backbone."),
    "encoder": (lambda s: {"net": prefixed(s, "encoder.")}, "net", "encoder."),
    "deep": (
        lambda s: {"run": {"best": {"weights": prefixed(s, "module.seg.encoder.pvt.")}}},
        "run.best.weights",
        "module.seg.encoder.pvt.",
    ),
}


@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("name", ["pvt_tiny", "pvt_v2_b0", "pvt_v2_b2_li"])
def test_an_official_model_is_found_however_it_is_nested(
    name: str, nesting: str, tmp_path: Path
) -> None:
    nest, place, prefix = NESTINGS[nesting]
    d = describe(saved(nest(bytes_like(shapes(name))), tmp_path))
    assert (d.source, d.model, d.task) == ("official", name, "classification")
    assert (d.num_classes, d.place, d.prefix) == (1000, place, prefix)
    assert not d.unknown


def test_a_research_network_gives_its_pvt_and_names_the_rest(tmp_path: Path) -> None:
    """Polyp-PVT and its like: a PVT beside decoder and attention modules of their own."""
    state = prefixed(built("pvt_v2_b0").state_dict(), "backbone.")
    del state["backbone.head.weight"], state["backbone.head.bias"]
    state |= {
        "Translayer2_0.conv.weight": torch.zeros(32, 64, 1, 1),
        "ca.fc1.weight": torch.zeros(4, 64, 1, 1),
        "norm.weight": torch.zeros(8),  # a name that v1 has too, elsewhere
        "backbone.total_ops": torch.zeros(1),
        "total_params": torch.zeros(1),
    }
    path = saved(state, tmp_path)
    model = create_model("pvt_v2_b0", features_only=True)
    report = load_weights(model, path)
    assert_bits(model.state_dict(), built("pvt_v2_b0", features_only=True).state_dict())
    assert report.ignored == {
        "Translayer2_0.conv.weight": "not below 'backbone.': Translayer2_0",
        "ca.fc1.weight": "not below 'backbone.': ca",
        "norm.weight": "not below 'backbone.': norm",
        "backbone.total_ops": "left behind by a FLOP counter",
        "total_params": "left behind by a FLOP counter",
    }
    assert report.notes == ("Names: official under 'backbone.'",)


def test_a_name_below_the_prefix_that_nothing_explains_is_refused(tmp_path: Path) -> None:
    state = prefixed(built("pvt_v2_b0").state_dict(), "backbone.")
    names = ("backbone.block1.0.attn.extra.weight", "backbone.adapter.weight")
    path = saved(state | dict.fromkeys(names, torch.zeros(3)), tmp_path)
    assert describe(path).unknown == names
    message = r"backbone\.block1\.0\.attn\.extra\.weight, backbone\.adapter\.weight not known to"
    with pytest.raises(UserError, match=message):
        load_weights(create_model("pvt_v2_b0"), path)


def test_two_names_of_one_parameter_are_not_both_swallowed(tmp_path: Path) -> None:
    write_timm(tmp_path / "timm.pth", find_pvt(built("pvt_v2_b0").state_dict(), "it"))
    state = dict(torch.load(tmp_path / "timm.pth", weights_only=True))
    state["stages.0.downsample.proj.bias"] = state["patch_embed.proj.bias"] + 1
    with pytest.raises(UserError, match=r"stages\.0\.downsample\.proj\.bias not known"):
        load_weights(create_model("pvt_v2_b0"), state)


@pytest.mark.parametrize(
    ("plain", "averaged"),
    [
        ("model", "model_ema"),
        ("state_dict", "state_dict_ema"),
        ("state_dict", "ema_state_dict"),
        ("net", "averaged_net"),
    ],
)
def test_averaged_weights_are_taken_only_when_asked_for(
    plain: str, averaged: str, tmp_path: Path
) -> None:
    state = tiny_state()
    average = {key: value + 1 for key, value in state.items()}
    if averaged == "ema_state_dict":  # mmengine's: wrapped, and with a counter
        average = {"steps": torch.tensor(5), **prefixed(average, "module.")}
    path = saved({plain: state, averaged: average}, tmp_path)
    for ema, place, other in ((False, plain, averaged), (True, averaged, plain)):
        checkpoint = read_checkpoint(path, ema=ema)
        assert (checkpoint.place, checkpoint.others) == (place, (other,))
        found = find_pvt(checkpoint.state, "it").state
        assert_bits(found, {key: value + ema for key, value in state.items()})
        assert not find_pvt(checkpoint.state, "it").unknown


def test_averaged_weights_are_taken_where_there_are_no_others(tmp_path: Path) -> None:
    assert read_checkpoint(saved({"model_ema": tiny_state()}, tmp_path)).place == "model_ema"


def test_averaged_weights_that_are_not_there_are_missed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no averaged weights"):
        read_checkpoint(saved({"model": tiny_state()}, tmp_path), ema=True)


def test_weights_at_two_places_are_not_chosen_by_chance(tmp_path: Path) -> None:
    path = saved({"student": tiny_state(), "teacher": tiny_state()}, tmp_path)
    with pytest.raises(UserError, match=r"weights at student, teacher: save the wanted ones apart"):
        read_checkpoint(path)


@pytest.mark.parametrize("kind", ["timm", "features", "classifier", "backbone"])
def test_foreign_names_are_told_by_their_source(kind: str, tmp_path: Path) -> None:
    official = find_pvt(bytes_like(shapes("pvt_v2_b2_li")), "it")
    headless = find_pvt({k: v for k, v in official.state.items() if "head" not in k}, "it")
    path = tmp_path / kind
    if kind == "timm":
        path = tmp_path / "timm.pth"
        write_timm(path, official)
    elif kind == "features":
        write_timm(tmp_path / "timm.pth", headless)
        state = torch.load(tmp_path / "timm.pth", weights_only=True)
        path = saved({k.replace("stages.", "stages_"): v for k, v in state.items()}, tmp_path)
    else:
        write_transformers(path, official if kind == "classifier" else headless, None)
    d = describe(path)
    source = {"timm": "timm", "features": TIMM_FEATURES.source}.get(kind, "transformers")
    assert (d.source, d.model) == (source, "pvt_v2_b2_li")
    assert d.task == ("classification" if kind in ("timm", "classifier") else "backbone")
    assert d.num_classes == (1000 if kind in ("timm", "classifier") else None)
    assert any("epsilon" in note for note in d.notes) == (source == "transformers")


def test_transformers_v1_without_its_classifier_is_known(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.PvtModel(transformers.PvtConfig(depths=[3, 4, 6, 3])).save_pretrained(tmp_path)
    d = describe(tmp_path)
    assert (d.source, d.model, d.task) == ("transformers", "pvt_small", "backbone")
    assert d.image_size == 224


# Detectors and segmenters.


def recorded(golden_dir: Path, name: str) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = json.loads((golden_dir / f"dense/keys_{name}.json").read_text())
    return shapes


@pytest.mark.parametrize("name", HEADS)
def test_detection_and_segmentation_checkpoints_are_known(
    name: str, golden_dir: Path, tmp_path: Path
) -> None:
    state = {k: torch.zeros(shape) for k, shape in recorded(golden_dir, name).items()}
    backbone = name.removeprefix(name.split("_pvt")[0] + "_")
    content = {
        "meta": {
            "env_info": "CUDA 10.1",
            "mmdet_version": "2.13.0",
            "CLASSES": ("person", "bicycle"),
            "PALETTE": [[1, 2, 3]],
            "epoch": 12,
            "iter": 87960,
            "time": "Sun Aug  1 2021",
        },
        "state_dict": state,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]},
    }
    path = saved(content, tmp_path)
    d = describe(path)
    assert (d.head, d.task, d.num_classes) == HEADS[name]
    assert (d.source, d.model, d.prefix) == ("official", backbone, "backbone.")
    assert d.place == "state_dict"
    assert d.classes == ("person", "bicycle")
    assert d.facts["mmdet_version"] == "2.13.0"
    assert d.facts["epoch"] == 12
    assert not d.unknown
    assert all(reason.startswith("not below 'backbone.'") for reason in d.ignored)
    report = load_weights(create_model(backbone, features_only=True), path)
    outside = {key for key in state if not key.startswith("backbone.")}
    assert outside <= report.ignored.keys()
    assert not report.reinitialised


def rule_like(shape: list[int], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator)


@pytest.mark.parametrize(
    ("key", "name"), [("retinanet", "pvt_v2_b0"), ("retinanet_pvt_tiny", "pvt_tiny")]
)
def test_mmdetection_3_names_become_official_tensors(
    key: str, name: str, golden_dir: Path, tmp_path: Path
) -> None:
    names: dict[str, Any] = recorded(golden_dir, "mmdet3")  # type: ignore[assignment]
    state = {k: rule_like(shape, i) for i, (k, shape) in enumerate(names[key].items())}
    content = {
        "meta": {"dataset_meta": {"classes": ("cat", "dog")}, "mmengine_version": "0.10.3"},
        "state_dict": state,
    }
    path = saved(content, tmp_path)
    d = describe(path)
    assert (d.source, d.model, d.prefix) == ("mmdetection 3", name, "backbone.")
    assert (d.head, d.num_classes, d.classes) == ("retinanet", COCO, ("cat", "dog"))
    found = find_pvt(read_checkpoint(path).state, "it")
    assert found.state.keys() == create_model(name, features_only=True).state_dict().keys()

    block = 0 if name == "pvt_v2_b0" else 1  # in v1 the position table comes first
    theirs = f"backbone.layers.1.1.{block}"
    packed = state[f"{theirs}.attn.attn.in_proj_weight"]
    dim = packed.shape[1]
    assert torch.equal(found.state["block2.0.attn.q.weight"], packed[:dim])
    assert torch.equal(found.state["block2.0.attn.kv.weight"], packed[dim:])
    bias = state[f"{theirs}.attn.attn.in_proj_bias"]
    assert torch.equal(found.state["block2.0.attn.kv.bias"], bias[dim:])
    fc1 = state[f"{theirs}.ffn.layers.0.weight"]
    assert torch.equal(found.state["block2.0.mlp.fc1.weight"], fc1[:, :, 0, 0])
    fc2 = state[f"{theirs}.ffn.layers.{4 if name == 'pvt_v2_b0' else 3}.weight"]
    assert torch.equal(found.state["block2.0.mlp.fc2.weight"], fc2.flatten(1))
    if name == "pvt_tiny":
        table = state["backbone.layers.3.1.0.pos_embed"]
        assert table.shape[1] == 49
        model = create_model(name, features_only=True)
        report = load_weights(model, path)
        assert torch.equal(model.get_parameter("pos_embed4")[:, 1:], table)
        assert not model.get_parameter("pos_embed4")[:, 0].any()
        assert report.resized == {"pos_embed4": "a row for the class token added"}
    else:
        norm = state["backbone.layers.1.2.weight"]
        assert torch.equal(found.state["norm2.weight"], norm)


@pytest.fixture
def mmengine() -> Iterator[ModuleType]:
    """A module under mmengine's name with its running average, gone when the file is read."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self) -> None:
            self._log_history = np.array([0.5, 0.25])
            self._count_history = np.array([1, 1])

        def mean(self) -> float:
            return float(self._log_history.mean())

        def __getstate__(self) -> dict[str, Any]:
            """mmengine keeps the methods, for which a pickle asks for getattr."""
            return {**self.__dict__, "statistics_methods": {"mean": HistoryBuffer.mean}}

    for thing in (HistoryBuffer, HistoryBuffer.mean):
        thing.__module__ = module.__name__
    HistoryBuffer.__qualname__ = "HistoryBuffer"
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    names = ("mmengine", "mmengine.logging", module.__name__)
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, module)
        yield module


def test_a_run_of_mmengine_is_read_without_mmengine(mmengine: ModuleType, tmp_path: Path) -> None:
    content = {
        "meta": {"epoch": 12, "iter": 100, "dataset_meta": {"classes": ("a", "b")}},
        "state_dict": prefixed(tiny_state(), "backbone."),
        "message_hub": {
            "log_scalars": {"train/lr": mmengine.HistoryBuffer()},
            "runtime_info": {"loss": np.float64(0.5), "best": np.float32(0.1), "n": np.int64(3)},
        },
        "param_schedulers": [{"milestones": Counter([8, 11]), "gamma": 0.1}],
    }
    path = saved(content, tmp_path)
    assert b"getattr" in path.read_bytes()
    for name in [name for name in sys.modules if name.startswith("mmengine")]:
        del sys.modules[name]
    checkpoint = read_checkpoint(path)
    assert "mmengine" not in sys.modules
    assert_bits(checkpoint.state, prefixed(tiny_state(), "backbone."))
    assert checkpoint.classes == ("a", "b")
    assert checkpoint.facts == {"epoch": 12, "iter": 100}


# Several, none, others.


def test_of_two_pvts_one_must_be_named(tmp_path: Path) -> None:
    first, second = tiny_state(), {k: v + 1 for k, v in tiny_state().items()}
    path = saved(prefixed(first, "rgb.") | prefixed(second, "depth."), tmp_path)
    model = tiny_model()
    with pytest.raises(UserError, match=r"holds 2 PVTs: .*'rgb\.', 'depth\.'"):
        load_weights(model, path)
    with pytest.raises(UserError, match="holds 2 PVTs"):
        describe(path)
    report = load_weights(model, path, prefix="depth.")
    assert_bits(model.state_dict(), second)
    assert set(report.ignored.values()) == {"not below 'depth.': rgb"}
    with pytest.raises(UserError, match=r"no PVT under 'depth'; there is one under 'rgb\.'"):
        load_weights(model, path, prefix="depth")


@pytest.mark.parametrize(
    "other",
    [
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
        "twins_pcpvt_small",
        "convnext_atto",
        "resnet18",
        "coat_tiny",
        "mvitv2_tiny",
        "poolformer_s12",
    ],
)
def test_another_architecture_is_not_taken_for_a_pvt(other: str, timm: ModuleType) -> None:
    with torch.device("meta"):
        state = timm.create_model(other).state_dict()
    for content in (state, prefixed(state, "backbone.")):
        assert search(content) == []
        with pytest.raises(UserError, match=r"holds no PVT: its \d+ names .* are of no naming"):
            load_weights(create_model("pvt_v2_b0"), content)


def test_transformers_segformer_is_not_taken_for_a_pvt() -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        state = transformers.SegformerModel(transformers.SegformerConfig()).state_dict()
    assert search(state) == []


def test_segformers_encoder_which_has_the_same_names_is_refused_for_its_widths() -> None:
    """MiT-B0 of SegFormer: the names of PVT v2, the widths of B0, an mlp_ratio of 4 everywhere."""
    size = PVTv2Size(dims=(32, 64, 160, 256), depths=(2, 2, 2, 2), mlp_ratios=(4, 4, 4, 4))
    with torch.device("meta"):
        state = PVTv2Classifier(size).state_dict()
        model = create_model("pvt_v2_b0")
    assert find_pvt(state, "it").variants == ()
    reason = r"no published model has, the model is pvt_v2_b0 .*: mlp_ratios \[4, 4, 4, 4\] in the"
    with pytest.raises(UserError, match=reason):
        load_weights(model, state)


@pytest.mark.parametrize(("family", "size"), [("v1", TINY_V1), ("v2", TINY_V2)])
def test_sizes_of_nobodys_table_are_told_in_words_and_load_into_such_a_model(
    family: str, size: Any, tmp_path: Path
) -> None:
    path = saved(tiny_state(family), tmp_path)
    d = describe(path)
    assert d.model == (
        f"a PVT {family} with widths {list(size.dims)}, depths [1, 1, 1, 1],"
        " mlp_ratios [8, 8, 4, 4], sr_ratios [8, 4, 2, 1]"
    )
    assert d.notes == ("its sizes are in no table of the papers: it cannot be built by name",)
    model = tiny_model(family)
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)
    load_weights(model, path)
    assert_bits(model.state_dict(), tiny_state(family))
    with pytest.raises(UserError, match="no published model has"):
        load_weights(create_model("pvt_v2_b0"), path)


def test_the_linear_variant_is_refused_with_a_reason_for_people() -> None:
    plain, linear = (built(name) for name in ("pvt_v2_b2", "pvt_v2_b2_li"))
    with pytest.raises(UserError) as error:
        load_weights(create_model("pvt_v2_b2"), linear.state_dict())
    assert str(error.value) == (
        "the state dict holds pvt_v2_b2_li, the model is pvt_v2_b2 (PVTv2Classifier): the file has"
        " linear attention, the model spatial reduction; take create_model('pvt_v2_b2_li'), in the"
        " command --model or --backbone pvt_v2_b2_li"
    )
    with pytest.raises(UserError, match="the model has linear attention, the file spatial reducti"):
        load_weights(create_model("pvt_v2_b2_li"), plain.state_dict())


@pytest.mark.parametrize("change", ["renamed", "reshaped", "stripped"])
def test_a_load_in_which_nothing_matched_is_no_success(change: str) -> None:
    state = tiny_state()
    if change == "renamed":
        state = {f"x_{key}": value for key, value in state.items()}
    elif change == "reshaped":
        state = {key: value[None] for key, value in state.items()}
    else:
        state = {key: value for key, value in state.items() if "patch_embed" not in key}
    model = tiny_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match="holds no PVT"):
        load_weights(model, state)
    assert_bits(model.state_dict(), before)


def test_half_of_a_pair_is_named_and_refused(tmp_path: Path) -> None:
    write_transformers(tmp_path / "there", find_pvt(built("pvt_v2_b0").state_dict(), "it"), None)
    state = dict(read_checkpoint(tmp_path / "there").state)
    lost = "pvt_v2.encoder.layers.2.blocks.1.attention.value.bias"
    half = lost.replace("value", "key")
    for broken in (
        {key: value for key, value in state.items() if key != lost},
        state | {lost: state[lost][:5]},
        state | {lost: torch.tensor(1.0)},
    ):
        with pytest.raises(UserError, match=f"{half} not known"):
            load_weights(create_model("pvt_v2_b0"), broken)


def test_one_stages_of_several_models_are_all_named() -> None:
    """The first two stages of B2 are those of its neighbour too, up to their depths."""
    with torch.device("meta"):
        state = create_model("pvt_v2_b3", features_only=True, out_indices=(0, 1)).state_dict()
    found = find_pvt(state, "it")
    assert found.variants == ("pvt_v2_b2", "pvt_v2_b3")
    model = create_model("pvt_v2_b2", features_only=True, out_indices=(0, 1))
    report = load_weights(model.to("meta"), state)
    assert len(report.loaded) == len(state)
