"""Building models by name: options, builders, stochastic depth and the published initialisation."""

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

import pyramidvit
from pyramidvit import create_model, list_models
from pyramidvit.errors import UserError
from pyramidvit.models import BackboneModel

ALL = list_models()
RATES = dict.fromkeys(ALL, 0.1) | dict.fromkeys(
    ["pvt_medium", "pvt_large", "pvt_v2_b3", "pvt_v2_b4", "pvt_v2_b5"], 0.3
)


def test_eleven_models_are_listed_and_filtered_by_a_pattern() -> None:
    assert len(ALL) == 11
    assert list_models("pvt_v2_b2*") == ["pvt_v2_b2", "pvt_v2_b2_li"]
    assert list_models("resnet*") == []


def test_an_unknown_name_is_answered_with_the_nearest_in_one_line() -> None:
    with pytest.raises(UserError, match=r"unknown model pvt_v2_b22; nearest: pvt_v2_b2, ") as error:
        create_model("pvt_v2_b22")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_chans": 0}, "in_chans must be 1 or more, got 0"),
        ({"num_classes": -1}, "num_classes must be 0 or more, got -1"),
        ({"drop_path_rate": 1.0}, "drop_path_rate must be from 0 to below 1, got 1.0"),
        ({"features_only": True, "out_indices": ()}, "out_indices must be increasing"),
        ({"features_only": True, "out_indices": (1, 0)}, "out_indices must be increasing"),
        ({"features_only": True, "out_indices": (3, 4)}, "out_indices must be increasing"),
    ],
)
@pytest.mark.parametrize("name", ["pvt_tiny", "pvt_v2_b0"])
def test_a_number_out_of_range_is_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, **options)


@pytest.mark.parametrize("name", ALL)
def test_a_plain_builder_gives_four_maps_and_the_drop_path_of_the_reference(name: str) -> None:
    with torch.device("meta"):
        model = getattr(pyramidvit, name)()
        maps = model(torch.empty(2, 3, 64, 96))
    assert [list(x.shape[2:]) for x in maps] == [[16, 24], [8, 12], [4, 6], [2, 3]]
    assert max(drop_path_of(model)) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ALL)
def test_images_may_have_any_number_of_channels(name: str) -> None:
    for in_chans, features_only in ((1, False), (4, True), (12, False)):
        model = shapes_of(name, in_chans=in_chans, features_only=features_only)
        result = model(torch.empty(2, in_chans, 32, 32, device="meta"))
        assert (result[3].shape[2:] if features_only else result.shape[1:]) in [(1, 1), (1000,)]


@pytest.mark.parametrize("name", ALL)
def test_drop_path_rates_grow_linearly_over_all_blocks(name: str) -> None:
    for model, last in (
        (shapes_of(name), RATES[name]),
        (shapes_of(name, features_only=True), 0.1),
        (shapes_of(name, drop_path_rate=0.25), 0.25),
        (shapes_of(name, features_only=True, drop_path_rate=0.0), 0.0),
    ):
        rates = drop_path_of(model)
        assert rates == pytest.approx([last * i / (len(rates) - 1) for i in range(len(rates))])


def test_drop_path_skips_whole_samples_while_training_only() -> None:
    model = create_model("pvt_v2_b0", features_only=True, drop_path_rate=0.9, out_indices=(0,))
    images = torch.randn(1, 3, 32, 32).expand(16, -1, -1, -1)
    trained, evaluated = model.train()(images)[0], model.eval()(images)[0]
    assert not torch.allclose(trained, trained[:1].expand_as(trained))
    torch.testing.assert_close(evaluated, evaluated[:1].expand_as(evaluated))


@pytest.mark.parametrize("name", ["pvt_tiny", "pvt_v2_b0", "pvt_v2_b2_li"])
def test_linear_layers_norms_and_tables_start_as_published(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            assert_normal(layer.weight, 0.02)
            assert not layer.bias.any()
        elif isinstance(layer, nn.LayerNorm):
            assert (layer.weight == 1).all()
            assert not layer.bias.any()
    for key, table in model.named_parameters():
        if key.startswith(("pos_embed", "cls_token")):
            assert_normal(table, 0.02)


@pytest.mark.parametrize("name", ["pvt_v2_b0", "pvt_v2_b2_li"])
def test_convolutions_of_v2_start_from_a_normal_over_the_fan_out(name: str) -> None:
    torch.manual_seed(0)
    for layer in create_model(name).modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels / layer.groups
            assert_normal(layer.weight, math.sqrt(2 / fan_out))
            assert not layer.bias.any()


def test_convolutions_of_v1_start_from_the_default_of_torch() -> None:
    torch.manual_seed(0)
    for layer in create_model("pvt_tiny").modules():
        if isinstance(layer, nn.Conv2d):
            bound = math.prod(layer.weight.shape[1:]) ** -0.5  # uniform between -bound and bound
            for values in (layer.weight, layer.bias):
                assert 0.9 * bound < values.abs().max() <= bound
            assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def shapes_of(name: str, **options: object) -> BackboneModel:
    with torch.device("meta"):
        return create_model(name, **options)


def drop_path_of(model: nn.Module) -> list[float]:
    return [layer.p for layer in model.modules() if isinstance(layer, StochasticDepth)]


def assert_normal(values: Tensor, std: float) -> None:
    """Mean, spread and tail of a normal; the bounds are five standard errors wide."""
    count = values.numel()
    assert abs(values.mean().item()) < 5 * std / math.sqrt(count)
    assert abs(values.std().item() / std - 1) < 5 / math.sqrt(2 * count)
    assert values.abs().max() > 2.2 * std  # a uniform distribution ends at 1.73
