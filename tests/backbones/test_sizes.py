"""Parameters and operations of all 11 models, against the published and the measured numbers."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from pyramidvit import create_model, list_models
from pyramidvit.backbones.operations import count_operations
from pyramidvit.models import BackboneModel


class Parameters(NamedTuple):
    classifier: int
    without_head: int
    pyramid: int
    classifier_keys: int
    pyramid_keys: int


class Costs(NamedTuple):
    """Operations of a classifier at 224x224; GFLOPs as the reference's own script prints them."""

    published: str
    macs: int
    linear: int
    conv: int
    attention: int


# Counted in the reference code.
PARAMETERS = {
    "pvt_tiny": Parameters(13_229_288, 12_716_288, 12_714_752, 161, 156),
    "pvt_small": Parameters(24_485_864, 23_972_864, 23_971_328, 301, 296),
    "pvt_medium": Parameters(44_208_104, 43_695_104, 43_693_568, 517, 512),
    "pvt_large": Parameters(61_369_320, 60_856_320, 60_854_784, 751, 746),
    "pvt_v2_b0": Parameters(3_666_760, 3_409_760, 3_409_760, 178, 176),
    "pvt_v2_b1": Parameters(14_009_000, 13_496_000, 13_496_000, 178, 176),
    "pvt_v2_b2": Parameters(25_362_856, 24_849_856, 24_849_856, 334, 332),
    "pvt_v2_b2_li": Parameters(22_553_512, 22_040_512, 22_040_512, 346, 344),
    "pvt_v2_b3": Parameters(45_238_696, 44_725_696, 44_725_696, 574, 572),
    "pvt_v2_b4": Parameters(62_556_072, 62_043_072, 62_043_072, 834, 832),
    "pvt_v2_b5": Parameters(81_956_008, 81_443_008, 81_443_008, 1054, 1052),
}

# Measured with the reference code: its get_flops.py, and PyTorch's own counter for the rest.
COSTS = {
    "pvt_tiny": Costs("1.937", 1_932_911_616, 1_665_421_312, 191_070_208, 76_420_096),
    "pvt_small": Costs("3.823", 3_815_701_504, 3_362_910_208, 309_886_976, 142_904_320),
    "pvt_medium": Costs("6.670", 6_659_175_424, 5_891_780_608, 550_731_776, 216_663_040),
    "pvt_large": Costs("9.829", 9_813_765_632, 8_719_699_968, 782_745_600, 311_320_064),
    "pvt_v2_b0": Costs("0.571", 566_065_664, 414_910_464, 113_046_528, 38_108_672),
    "pvt_v2_b1": Costs("2.119", 2_108_355_584, 1_659_129_856, 373_008_384, 76_217_344),
    "pvt_v2_b2": Costs("4.045", 4_026_734_592, 3_353_473_024, 530_661_376, 142_600_192),
    "pvt_v2_b2_li": Costs("3.918", 3_888_850_944, 3_353_473_024, 392_777_728, 142_600_192),
    "pvt_v2_b3": Costs("6.922", 6_897_303_552, 5_882_343_424, 798_601_216, 216_358_912),
    "pvt_v2_b4": Costs("10.136", 10_101_116_416, 8_710_262_784, 1_079_837_696, 311_015_936),
    "pvt_v2_b5": Costs("11.752", 11_717_260_288, 10_059_395_072, 1_286_612_992, 371_252_224),
}

# GFLOPs over the side of a square image, by the reference's script.
SIDES = (320, 640, 960, 1280)
GROWTH = {
    "pvt_tiny": "4.1 20.2 59.8 141.8",
    "pvt_small": "8.1 39.5 115.5 271.9",
    "pvt_medium": "14.1 67.0 191.4 441.1",
    "pvt_large": "20.7 98.4 279.6 642.1",
    "pvt_v2_b0": "1.2 6.9 22.6 58.0",
    "pvt_v2_b1": "4.5 21.8 63.2 148.0",
    "pvt_v2_b2": "8.6 41.4 119.8 279.4",
    "pvt_v2_b2_li": "7.8 30.4 68.2 121.0",
    "pvt_v2_b3": "14.6 69.2 196.1 449.6",
    "pvt_v2_b4": "21.3 100.9 285.4 652.4",
    "pvt_v2_b5": "24.8 117.6 334.3 767.4",
}


def test_every_model_has_its_numbers() -> None:
    names = set(list_models())
    assert names == PARAMETERS.keys() == COSTS.keys() == GROWTH.keys()


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_and_key_counts_equal_the_reference(name: str) -> None:
    classifier, pyramid = shapes_of(name), shapes_of(name, features_only=True)
    found = Parameters(
        classifier=count_parameters(classifier),
        without_head=count_parameters(shapes_of(name, num_classes=0)),
        pyramid=count_parameters(pyramid),
        classifier_keys=len(classifier.state_dict()),
        pyramid_keys=len(pyramid.state_dict()),
    )
    assert found == PARAMETERS[name]


@pytest.mark.parametrize("name", COSTS)
def test_operations_at_224_equal_the_reference_exactly(name: str) -> None:
    found = count_operations(shapes_of(name))
    costs = COSTS[name]
    assert (found.linear, found.conv, found.attention) == costs[2:]
    assert found.macs == costs.macs
    assert f"{found.published / 1e9:.3f}" == costs.published


@pytest.mark.parametrize("name", GROWTH)
def test_published_gflops_grow_with_the_image_as_in_the_reference(name: str) -> None:
    model = shapes_of(name)
    found = [count_operations(model, (side, side)).published for side in SIDES]
    assert " ".join(map(one_digit, found)) == GROWTH[name]


def test_a_pyramid_costs_what_its_classifier_costs_without_the_head() -> None:
    classifier = count_operations(shapes_of("pvt_v2_b0"))
    pyramid = count_operations(shapes_of("pvt_v2_b0", features_only=True))
    assert pyramid.linear == classifier.linear - 256 * 1000
    assert (pyramid.conv, pyramid.attention) == (classifier.conv, classifier.attention)


def test_operations_follow_odd_grids_where_the_published_rule_rounds_down() -> None:
    first_stage = shapes_of("pvt_v2_b0", features_only=True, out_indices=(0,))
    found = count_operations(first_stage, (37, 66))
    blocks, dim = 2, 32
    tokens, keys = 10 * 17, 1 * 2  # ceil(37 / 4) * ceil(66 / 4), then / 8 rounded down
    assert found.attention == blocks * 2 * tokens * keys * dim
    conv_biases = blocks * (8 * tokens * dim + keys * dim) + tokens * dim
    norms = 2 * dim * ((2 + 2 * blocks) * tokens + blocks * keys)
    published_attention = blocks * 2 * (9 * 16) * keys * dim
    assert found.published == (
        found.linear + found.conv + conv_biases + norms + published_attention
    )


def test_counting_leaves_the_model_as_it_was() -> None:
    model = create_model("pvt_v2_b0", in_chans=5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_operations(model, (64, 64))
    assert model.training
    assert all(map(torch.equal, model.state_dict().values(), before.values()))
    assert not any(hooks_of(model))


def shapes_of(name: str, **options: object) -> BackboneModel:
    """A model without data: cheap to build, and all that counting needs."""
    with torch.device("meta"):
        return create_model(name, **options)


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def one_digit(operations: int) -> str:
    """The recorded table was rounded from three digits, which decides 302.85."""
    return f"{round(operations / 1e9, 3):.1f}"


def hooks_of(model: nn.Module) -> list[Tensor]:
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]
