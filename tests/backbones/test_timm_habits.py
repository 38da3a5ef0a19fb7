"""What users of timm expect of a model: feature pyramids, intermediates, heads."""

import pytest
import torch
from torch import Tensor, nn

import rule
from pyramidvit import create_model, list_models
from pyramidvit.models import BackboneModel

ALL = list_models()
ARCHITECTURES = ["pvt_tiny", "pvt_v2_b0", "pvt_v2_b2_li"]  # one small model of each kind
EXACT = {"rtol": 0, "atol": 0}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def is_v1(architecture: str) -> bool:
    return architecture == "pvt_tiny"


@pytest.fixture(scope="module")
def classifier(architecture: str) -> BackboneModel:
    return rule.build(architecture)


@pytest.fixture(scope="module")
def pyramid(architecture: str) -> BackboneModel:
    """With the same weights, which the rule makes from names."""
    return rule.build(architecture, features_only=True)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return rule.images(2, 64, 96)


@pytest.mark.parametrize("name", ALL)
def test_feature_info_describes_the_maps(name: str) -> None:
    model = shapes_of(name, features_only=True, out_indices=(1, 3))
    maps = model(torch.empty(1, 3, 64, 64, device="meta"))
    assert model.feature_info.channels() == [x.shape[1] for x in maps]
    assert model.feature_info.reduction() == [64 // x.shape[2] for x in maps] == [8, 32]
    assert model.feature_info.module_name() == ["block2", "block4"]
    assert [row["index"] for row in model.feature_info] == [1, 3]


@pytest.mark.parametrize("name", ALL)
def test_stages_beyond_the_last_map_are_not_built(name: str) -> None:
    whole = shapes_of(name, features_only=True).state_dict()
    part = shapes_of(name, features_only=True, out_indices=(1,)).state_dict()
    assert set(part) == {key for key in whole if key.split(".")[0][-1] in "12"}


@torch.no_grad()
@pytest.mark.parametrize("out_indices", [(0,), (2,), (3,), (0, 2), (1, 2, 3)], ids=str)
def test_chosen_maps_are_those_of_the_whole_pyramid(
    architecture: str, pyramid: BackboneModel, images: Tensor, out_indices: tuple[int, ...]
) -> None:
    chosen = rule.build(architecture, features_only=True, out_indices=out_indices)(images)
    whole = pyramid(images)
    torch.testing.assert_close(chosen, [whole[i] for i in out_indices], **EXACT)


@torch.no_grad()
def test_intermediates_are_the_maps_of_the_pyramid(
    classifier: BackboneModel, pyramid: BackboneModel, images: Tensor, is_v1: bool
) -> None:
    features, maps = classifier.forward_intermediates(images)
    torch.testing.assert_close(features, classifier.forward_features(images), **EXACT)
    wanted = pyramid(images)
    torch.testing.assert_close(maps[:3], wanted[:3], **EXACT)
    if is_v1:  # the class token takes part in the last stage of the classifier only
        assert maps[3].shape == wanted[3].shape
        assert not torch.allclose(maps[3], wanted[3], atol=0.01)
    else:
        torch.testing.assert_close(maps[3], wanted[3], **EXACT)


@torch.no_grad()
def test_norm_applies_the_last_norm_to_the_last_map_of_v1(
    classifier: BackboneModel, images: Tensor, is_v1: bool
) -> None:
    plain = classifier.forward_intermediates(images, intermediates_only=True)
    features, maps = classifier.forward_intermediates(images, norm=True)
    torch.testing.assert_close(maps[:3], plain[:3], **EXACT)
    last = maps[3].flatten(2).transpose(1, 2)  # [B, N, C]
    if is_v1:
        torch.testing.assert_close(last, features[:, 1:], **EXACT)
        normed = classifier.norm(plain[3].flatten(2).transpose(1, 2))
        torch.testing.assert_close(last, normed, rtol=0, atol=1e-5)
    else:
        torch.testing.assert_close(maps[3], plain[3], **EXACT)


@torch.no_grad()
@pytest.mark.parametrize(
    ("indices", "stages"),
    [(None, [0, 1, 2, 3]), (2, [2, 3]), ([0, 2], [0, 2]), ([-1], [3]), ([-4, 1], [0, 1])],
)
def test_intermediates_are_chosen_as_in_timm(
    classifier: BackboneModel, images: Tensor, indices: int | list[int] | None, stages: list[int]
) -> None:
    every = classifier.forward_intermediates(images, intermediates_only=True)
    chosen = classifier.forward_intermediates(images, indices, intermediates_only=True)
    torch.testing.assert_close(chosen, [every[i] for i in stages], **EXACT)


@torch.no_grad()
def test_stop_early_runs_no_later_stage(classifier: BackboneModel, images: Tensor) -> None:
    every = classifier.forward_intermediates(images, intermediates_only=True)
    ran = []
    hooks = [
        classifier.get_submodule(f"patch_embed{i}").register_forward_pre_hook(
            lambda module, args, i=i: ran.append(i)
        )
        for i in range(1, 5)
    ]
    maps = classifier.forward_intermediates(
        images, [0, 1], stop_early=True, intermediates_only=True
    )
    for hook in hooks:
        hook.remove()
    assert ran == [1, 2]
    torch.testing.assert_close(maps, every[:2], **EXACT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_fmt": "NLC"}, 'output_fmt must be "NCHW"'),
        ({"stop_early": True}, "set intermediates_only too"),
        ({"indices": [4]}, "stages 0 to 3"),
        ({"indices": [-5]}, "stages 0 to 3"),
        ({"indices": []}, "stages 0 to 3"),
        ({"indices": 5}, "stages 0 to 3"),
    ],
)
def test_impossible_intermediates_are_refused(
    classifier: BackboneModel, images: Tensor, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classifier.forward_intermediates(images, **options)


@torch.no_grad()
def test_the_head_can_be_run_apart_and_shows_its_input(
    classifier: BackboneModel, images: Tensor, is_v1: bool
) -> None:
    features = classifier.forward_features(images)
    inputs = classifier.forward_head(features, pre_logits=True)
    assert inputs.shape == (2, classifier.num_features)
    wanted = features[:, 0] if is_v1 else features.mean((2, 3))
    torch.testing.assert_close(inputs, wanted, **EXACT)
    torch.testing.assert_close(classifier(images), classifier.get_classifier()(inputs), **EXACT)
    torch.testing.assert_close(classifier.forward_head(features), classifier(images), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("name", ALL)
def test_the_head_is_replaced_for_another_number_of_classes(name: str) -> None:
    model = shapes_of(name).to(torch.bfloat16)
    image = torch.empty(1, 3, 32, 32, device="meta", dtype=torch.bfloat16)
    model.reset_classifier(7)
    assert model.num_classes == 7
    assert model.get_classifier().weight.shape == (7, model.num_features)
    assert model.get_classifier().weight.dtype == torch.bfloat16
    assert model(image).shape == (1, 7)
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert model(image).shape == (1, model.num_features)
    assert not any(key.startswith("head") for key in model.state_dict())


def test_a_fresh_head_starts_as_published() -> None:
    torch.manual_seed(0)
    model = create_model("pvt_v2_b0")
    model.reset_classifier(500)
    head = model.get_classifier()
    assert head.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not head.bias.any()


@pytest.mark.parametrize("name", ALL)
def test_only_the_class_token_is_free_of_weight_decay(name: str) -> None:
    """Beside the 1-D parameters, which an optimizer leaves out by itself."""
    assert shapes_of(name, features_only=True).no_weight_decay() == set()
    exempt = set() if name.startswith("pvt_v2") else {"cls_token"}
    model = shapes_of(name)
    assert model.no_weight_decay() == exempt
    assert exempt <= set(model.state_dict())


def shapes_of(name: str, **options: object) -> BackboneModel:
    with torch.device("meta"):
        return create_model(name, **options)
