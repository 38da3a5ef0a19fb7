"""What timm asks of each of its models (tests/test_models.py there), asked of all of ours.

Questions about shapes go to whole models without memory, questions about values to models with one
block a stage. `test_timm_habits.py` and `test_graphs.py` (export) ask more of three models.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from timm.models import FeatureInfo, group_parameters
from timm.models._features import FeatureGetterNet
from torch import Tensor
from torchvision.models.feature_extraction import create_feature_extractor

from pyramidvit import PVTv1Classifier, PVTv2Classifier, list_models, register_with_timm
from pyramidvit.backbones.classifier import Classifier
from timm_registry import own_registry

EXACT = {"rtol": 0, "atol": 0}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module", params=list_models())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    with own_registry():
        register_with_timm(override=True)
        yield


@pytest.fixture(scope="module")
def small(name: str) -> Classifier:
    """The model with one block a stage, in evaluation mode. Tests change copies of it only."""
    torch.manual_seed(0)
    kind = PVTv2Classifier if is_v2(name) else PVTv1Classifier
    size = replace(kind.sizes[name], depths=(1, 1, 1, 1))
    return kind(size, num_classes=42, drop_path_rate=0.0).eval()


@pytest.fixture(scope="module")
def whole(name: str) -> Any:
    """The model as timm builds it, without memory for its weights. Not to be changed either."""
    return timm.create_model(name, device="meta", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def is_v2(name: str) -> bool:
    return name.startswith("pvt_v2")


def empty(*shape: int) -> Tensor:
    return torch.empty(*shape, device="meta")


def test_the_published_input_fits_the_model(name: str, whole: Any) -> None:
    model = copy.deepcopy(whole)
    cfg = model.default_cfg
    assert (model.num_classes, cfg["num_classes"]) == (1000, 1000)
    assert cfg["input_size"] == (model.in_chans, 224, 224)
    assert not cfg["fixed_input_size"]
    for layer in (cfg["classifier"], cfg["first_conv"]):
        assert f"{layer}.weight" in model.state_dict()
    assert all(parameter.is_meta for parameter in model.parameters())

    features = model.forward_features(empty(1, *cfg["input_size"]))
    if is_v2(name):
        assert features.shape == (1, model.num_features, *cfg["pool_size"])
    else:
        assert features.shape == (1, 1 + 7 * 7, model.num_features)  # timm: no pool size for tokens
        assert cfg["pool_size"] is None
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (1, model.head_hidden_size) == (1, model.num_features)
    assert model.to(torch.bfloat16)(empty(1, 3, 64, 64).bfloat16()).dtype == torch.bfloat16


def test_without_head_and_pooling_the_features_come_out(
    name: str, small: Classifier, images: Tensor
) -> None:
    model = copy.deepcopy(small)
    width = model.head_hidden_size
    unpooled = (2, width, 2, 2) if is_v2(name) else (2, 5, width)
    model.reset_classifier(0)
    assert model.num_classes == 0
    assert model(images).shape == (2, width)
    model.reset_classifier(0, "")
    assert model(images).shape == unpooled
    model.reset_classifier(3, "avg")
    assert model(images).shape == (2, 3)
    built = type(small)(small.size, num_classes=0)
    assert built(images).shape == (2, width)
    built = type(small)(small.size, num_classes=0, global_pool="")
    assert built(images).shape == unpooled


def test_a_new_head_is_like_the_rest_of_the_model(whole: Any) -> None:
    model = copy.deepcopy(whole).to(torch.float64)
    model.requires_grad_(False).reset_classifier(0, "")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model.reset_classifier(2, "avg")
    weight = model.get_classifier().weight
    assert (weight.shape, weight.dtype, weight.is_meta) == (
        (2, model.num_features),
        torch.float64,
        1,
    )
    assert not any(module.training for module in model.modules())


def test_unknown_arguments_are_refused(name: str, small: Classifier) -> None:
    with pytest.raises(TypeError, match="not_a_model_arg"):
        timm.create_model(name, not_a_model_arg=1)
    with pytest.raises(ValueError, match="global_pool must be one of"):
        small.reset_classifier(5, "catavgmax")
    with pytest.raises(ValueError, match="logits need a global_pool: "):
        small.reset_classifier(5, "")
    assert (small.num_classes, small.head.out_features) == (42, 42)


def test_layers_and_exemptions_name_parameters(whole: Any) -> None:
    model = whole
    names = {key for key, _ in model.named_parameters()}
    assert model.no_weight_decay() <= names
    for coarse in (False, True):
        layers = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
        assert set(layers) == names
        assert layers["patch_embed1.proj.weight"] == 0
        assert layers["head.weight"] == max(layers.values())
        blocks = [layers[f"block{stage}.0.attn.q.weight"] for stage in (1, 2, 3, 4)]
        assert blocks == sorted(blocks)
        assert blocks[0] < blocks[3]


def test_every_parameter_learns(small: Classifier, images: Tensor) -> None:
    model = copy.deepcopy(small).train()
    logits = model(images)
    logits.mean().backward()
    assert logits.shape == (2, 42)
    assert logits.isfinite().all()
    assert not [key for key, value in model.named_parameters() if value.grad is None]


def test_checkpointing_changes_neither_outputs_nor_gradients(
    small: Classifier, images: Tensor
) -> None:
    model = copy.deepcopy(small)
    found = []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        logits = model(images)
        logits.square().mean().backward()
        found.append([logits, *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(found[1], found[0], **CLOSE)


def test_maps_come_at_every_stride(name: str) -> None:
    model = timm.create_model(name, device="meta", features_only=True)
    maps = model(empty(1, 3, 96, 80))
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    assert model.feature_info.channels() == [x.shape[1] for x in maps]
    rounded = math.ceil if is_v2(name) else math.floor
    for stride, x in zip(model.feature_info.reduction(), maps, strict=True):
        assert x.shape[2:] == (rounded(96 / stride), rounded(80 / stride))
    part = timm.create_model(name, device="meta", features_only=True, out_indices=(0, -3))
    assert part.feature_info.out_indices == (0, 1)


@torch.no_grad()
def test_intermediates_end_with_the_features(name: str, small: Classifier, images: Tensor) -> None:
    info = FeatureInfo(small.feature_info, len(small.feature_info))
    features, maps = small.forward_intermediates(images)
    torch.testing.assert_close(features, small.forward_features(images), **EXACT)
    assert [x.shape[1] for x in maps] == info.channels()
    assert [64 // x.shape[2] for x in maps] == info.reduction()
    early = small.forward_intermediates(images, [1], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early, maps[1:2], **EXACT)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_pruned_model_keeps_its_map_and_nothing_unused(
    small: Classifier, images: Tensor, stage: int
) -> None:
    width = small.feature_info.channels()[stage]
    with torch.no_grad():
        wanted = small.forward_intermediates(images, [stage], intermediates_only=True)
    model = copy.deepcopy(small)
    assert model.prune_intermediate_layers([stage], prune_norm=True) == [stage]
    assert (model.num_features, model.head_hidden_size, model.num_classes) == (width, width, 0)
    maps = model.forward_intermediates(images, [stage], intermediates_only=True)
    torch.testing.assert_close(maps, wanted, **EXACT)
    features = model.train().forward_features(images)
    (features.sum() + sum(x.sum() for x in maps)).backward()
    assert not [key for key, value in model.named_parameters() if value.grad is None]
    if features.ndim == 4:
        torch.testing.assert_close(features, wanted[0], **EXACT)
    assert model(images).shape == features.shape  # neither pooled nor classified
    model.reset_classifier(7, "avg")
    assert model(images).shape == (2, 7)


@torch.no_grad()
def test_pruning_can_spare_the_head_and_the_norm(small: Classifier, images: Tensor) -> None:
    model = copy.deepcopy(small)
    assert model.prune_intermediate_layers(4, prune_head=False) == [0, 1, 2, 3]
    torch.testing.assert_close(model(images), small(images), **EXACT)
    model.prune_intermediate_layers([-3])
    assert model.num_stages == 2
    if "token" in small.pools:
        with pytest.raises(ValueError, match="global_pool must be one of"):
            model.reset_classifier(0, "token")  # the class token went with the last stage


@torch.no_grad()
def test_timm_s_feature_getter_takes_the_model(small: Classifier, images: Tensor) -> None:
    wanted = small.forward_intermediates(images, [0, 2], intermediates_only=True)
    getter = FeatureGetterNet(copy.deepcopy(small), out_indices=(0, -2))
    torch.testing.assert_close(getter(images), wanted, **EXACT)
    assert getter.feature_info.channels() == [x.shape[1] for x in wanted]


@torch.no_grad()
def test_a_feature_extractor_traces_the_model(small: Classifier, images: Tensor) -> None:
    model = copy.deepcopy(small)
    extractor = create_feature_extractor(model, {"block2.0": "tokens", "head": "logits"})
    for size in (64, 96):  # the graph is not bound to the traced size
        resized = torch.nn.functional.interpolate(images, size)
        found = extractor(resized)
        torch.testing.assert_close(found["logits"], small(resized), **EXACT)
        assert found["tokens"].shape[1] == (size // 8) ** 2
