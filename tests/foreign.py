"""Checkpoints as other programs write them, at the size of a test."""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

import rule
from pyramidvit import create_model
from pyramidvit.backbones.pvt_v1 import PVTv1Classifier, PVTv1Size
from pyramidvit.backbones.pvt_v2 import PVTv2Classifier, PVTv2Size

State = dict[str, Tensor]
TINY_V1 = PVTv1Size(dims=(4, 4, 8, 8), depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
TINY_V2 = PVTv2Size(dims=(4, 4, 8, 8), depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))


@functools.lru_cache
def shapes(name: str, num_classes: int = 1000) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes)
    return {key: value.shape for key, value in model.state_dict().items()}


@functools.lru_cache
def noise(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-128, 128, (count,), dtype=torch.int8, generator=generator)


def bytes_like(shapes: Mapping[str, torch.Size]) -> State:
    """Tensors of these shapes, each with bytes of its own: for what only moves tensors about."""
    state = {}
    for index, (key, shape) in enumerate(shapes.items()):
        count = shape.numel()
        copies = noise(4_000_037).repeat(1 + (count + 17 * index) // 4_000_037)
        state[key] = copies[17 * index :][:count].clone().view(shape)
    return state


def fill_with_rule(model: nn.Module) -> nn.Module:
    """Gives a foreign model the rule's values under its own names, in evaluation mode."""
    for key, value in model.state_dict().items():
        value.copy_(torch.from_numpy(rule.parameter(key, value.shape)))
    return model.eval()


@functools.lru_cache
def built(name: str, **options: int | bool) -> nn.Module:
    """Our model with the rule's weights; not to be changed."""
    return rule.build(name, **options)


def tiny_state(family: str = "v2") -> State:
    """The smallest of PVTs: four stages of one block, 12 classes, some ten thousand numbers."""
    torch.manual_seed(0)
    if family == "v1":
        state = PVTv1Classifier(TINY_V1, num_classes=12).state_dict()
    else:
        state = PVTv2Classifier(TINY_V2, num_classes=12).state_dict()
    return dict(state)


def tiny_model(family: str = "v2") -> nn.Module:
    if family == "v1":
        return PVTv1Classifier(TINY_V1, num_classes=12)
    return PVTv2Classifier(TINY_V2, num_classes=12)


def prefixed(state: Mapping[str, Tensor], prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def assert_bits(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name
