"""Outputs and gradients of all 11 models at many sizes, layouts and precisions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rule
from pyramidvit import list_models
from pyramidvit.models import BackboneModel

ARCHITECTURES = ["pvt_tiny", "pvt_v2_b0", "pvt_v2_b2_li"]  # one small model of each kind


@pytest.fixture(scope="module", params=list_models())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def classifier(name: str) -> BackboneModel:
    return rule.build(name)


@pytest.fixture(scope="module")
def pyramid(name: str) -> BackboneModel:
    return rule.build(name, features_only=True)


def test_every_parameter_of_a_classifier_gets_a_gradient(classifier: BackboneModel) -> None:
    classifier.zero_grad()
    classifier(rule.images(2, 64, 64)).square().mean().backward()
    assert_all_have_gradients(classifier)


def test_every_parameter_of_a_pyramid_gets_a_gradient(pyramid: BackboneModel) -> None:
    pyramid.zero_grad()
    sum(x.square().mean() for x in pyramid(rule.images(2, 64, 64))).backward()
    assert_all_have_gradients(pyramid)


@torch.no_grad()
def test_an_image_alone_gives_its_row_of_a_batch(classifier: BackboneModel) -> None:
    images = rule.images(3, 64, 96)
    batch = classifier(images)
    for i in range(3):
        torch.testing.assert_close(classifier(images[i : i + 1]), batch[i : i + 1], **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (33, 65), (97, 131)], ids=str)
def test_any_size_from_32_gives_maps_of_the_promised_shapes(
    pyramid: BackboneModel, name: str, size: tuple[int, int]
) -> None:
    maps = pyramid(rule.images(1, *size))
    divide = ceiling if name.startswith("pvt_v2") else int.__floordiv__  # v1 drops the rest
    for x, stride, dim in zip(maps, (4, 8, 16, 32), pyramid.feature_info.channels(), strict=True):
        assert list(x.shape) == [1, dim, divide(size[0], stride), divide(size[1], stride)]
        assert x.isfinite().all()
        assert x.std() > 0.1


@pytest.mark.parametrize("size", [(31, 64), (64, 31)], ids=str)
def test_an_image_too_small_is_told_the_minimum(
    classifier: BackboneModel, pyramid: BackboneModel, size: tuple[int, int]
) -> None:
    for model in (classifier, pyramid):
        with pytest.raises(ValueError, match=rf"at least 32x32, got {size[0]}x{size[1]}"):
            model(torch.zeros(1, 3, *size))


def test_an_image_without_a_batch_is_told_the_shape(classifier: BackboneModel) -> None:
    with pytest.raises(ValueError, match=r"\[batch, channels, H, W\], got shape \[3, 64, 64\]"):
        classifier(torch.zeros(3, 64, 64))


def test_gradient_checkpointing_changes_no_output_and_no_gradient(
    classifier: BackboneModel,
) -> None:
    def run() -> tuple[Tensor, list[Tensor]]:
        torch.manual_seed(0)  # stochastic depth must be drawn alike when a block is run again
        classifier.zero_grad()
        logits = classifier(images)
        logits.square().mean().backward()
        return logits.detach(), [p.grad.clone() for p in classifier.parameters()]

    images = rule.images(2, 32, 32)
    classifier.train()
    recomputed = count_calls(classifier.block1[0])
    plain = run()
    classifier.set_grad_checkpointing()
    checkpointed = run()
    classifier.set_grad_checkpointing(False)
    classifier.eval()
    assert recomputed() == 3  # once, then once forward and once more backward
    torch.testing.assert_close(checkpointed, plain, rtol=0, atol=0)


@torch.no_grad()
def test_bfloat16_autocast_stays_close_to_float32(classifier: BackboneModel) -> None:
    images = rule.images(2, 64, 96)
    exact = classifier(images)
    with torch.autocast("cpu", torch.bfloat16):
        logits = classifier(images)
    assert logits.dtype == torch.bfloat16
    error = (logits - exact).square().mean().sqrt() / exact.std()
    assert error < 0.03  # bfloat16 carries 8 bits, i.e. 0.004 for a single operation


@torch.no_grad()
def test_maps_are_channels_last_throughout_and_no_layout_changes_the_output(
    pyramid: BackboneModel,
) -> None:
    images = rule.images(2, 64, 96)
    layouts: list[bool] = []

    def look(module: nn.Module, args: tuple[Tensor], result: Tensor) -> None:
        for x in (args[0], result):
            layouts.append(x.is_contiguous(memory_format=torch.channels_last))

    convolutions = [layer for layer in pyramid.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(look) for layer in convolutions]
    plain = pyramid(images)
    for hook in hooks:
        hook.remove()
    assert len(layouts) == 2 * len(convolutions)
    assert all(layouts)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in plain)

    pyramid.to(memory_format=torch.channels_last)
    last = pyramid(images.contiguous(memory_format=torch.channels_last))
    pyramid.to(memory_format=torch.contiguous_format)
    for found, wanted in zip(last, plain, strict=True):
        torch.testing.assert_close(found, wanted, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_map_shares_the_memory_of_its_tokens(name: str) -> None:
    model = rule.build(name, features_only=True)
    last = model.block4[-1] if name == "pvt_tiny" else model.norm4
    tokens = capture(last)
    x = model(rule.images(1, 64, 64))[3]
    assert x.data_ptr() == tokens().data_ptr()


@torch.no_grad()
@pytest.mark.parametrize("name", ["pvt_tiny", "pvt_v2_b0"])
def test_a_fourth_channel_without_weights_changes_nothing(name: str) -> None:
    plain, wide = rule.build(name), rule.build(name, in_chans=4)
    wide.patch_embed1.proj.weight.zero_()
    wide.patch_embed1.proj.weight[:, :3] = plain.patch_embed1.proj.weight
    images = rule.images(1, 64, 64)
    found = wide(torch.cat((images, torch.rand(1, 1, 64, 64)), dim=1))
    torch.testing.assert_close(found, plain(images), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("features_only", [False, True])
@pytest.mark.parametrize("size", [(448, 448), (224, 896), (196, 256), (224, 224), (97, 131)])
def test_positions_are_resized_bilinearly_to_any_grid(
    size: tuple[int, int], features_only: bool
) -> None:
    """At the first three sizes some grid has 3136 cells as that of stage 1 at 224x224 has."""
    model = rule.build("pvt_tiny", torch.float64, features_only=features_only)
    places = range(1, 5)
    before = [capture(model.get_submodule(f"patch_embed{i}")) for i in places]
    after = [capture_input(model.get_submodule(f"block{i}.0")) for i in places]
    model(rule.images(1, *size, torch.float64))
    for i in places:
        (tokens, grid), given = before[i - 1](), after[i - 1]()
        table = model.get_parameter(f"pos_embed{i}")[0]
        if i == 4:
            if not features_only:
                first = model.cls_token[0, 0] + table[0]
                torch.testing.assert_close(given[0, 0], first, **CLOSE)
                given = given[:, 1:]
            table = table[1:]
        found = (given - tokens)[0].numpy()
        np.testing.assert_allclose(found, bilinear(table.numpy(), grid), rtol=0, atol=1e-12)


CLOSE = {"rtol": 0, "atol": 2e-5}


def bilinear(table: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Resizes a square table [N, C] to [H * W, C], one axis after the other."""
    side = round(len(table) ** 0.5)
    rows, columns = shares(side, grid[0]), shares(side, grid[1])
    square = table.reshape(side, side, -1)
    return np.einsum("yi,xj,ijc->yxc", rows, columns, square).reshape(grid[0] * grid[1], -1)


def shares(old: int, new: int) -> np.ndarray:
    """What share each of `old` cells has in each of `new` ones [new, old]; ends are repeated."""
    matrix = np.zeros((new, old))
    for i in range(new):
        position = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)  # of the cell's centre
        low = int(position)
        matrix[i, low] += 1 - (position - low)
        matrix[i, min(low + 1, old - 1)] += position - low
    return matrix


def ceiling(size: int, stride: int) -> int:
    return -(-size // stride)


def assert_all_have_gradients(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def capture(module: nn.Module) -> Callable[[], Any]:
    """Keeps the module's latest output."""
    kept: list[Any] = []
    module.register_forward_hook(lambda module, args, result: kept.append(result))
    return lambda: kept[-1]


def capture_input(module: nn.Module) -> Callable[[], Tensor]:
    kept: list[Tensor] = []
    module.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    return lambda: kept[-1]


def count_calls(module: nn.Module) -> Callable[[], int]:
    calls: list[None] = []
    module.register_forward_pre_hook(lambda module, args: calls.append(None))
    return lambda: len(calls)
