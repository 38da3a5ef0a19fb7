"""Padding that does not leak: with `Bounds`, a backbone's maps of an image know no neighbours."""

import pytest
import torch
from torch import Tensor

import rule
from pyramidvit import list_models
from pyramidvit.nn.bounds import Bounds, clear, find_bounds, join
from pyramidvit.nn.conv import norm_tower, run_tower

ARCHITECTURES = ["pvt_tiny", "pvt_v2_b0", "pvt_v2_b2_li"]  # one small model of each kind
SIZES = ((32, 64), (57, 30))  # their own parts are 32 x 64 and 64 x 32
OWN = ((32, 64), (64, 32))
PADDED = (96, 64)


def padded_images(beyond: float = 0.0) -> Tensor:
    """Two images, and some value beyond their own parts, where a batch usually has zeros."""
    images = torch.full((2, 3, *PADDED), beyond)
    source = rule.images(2, *PADDED)
    for place, image, (h, w), (own_h, own_w) in zip(images, source, SIZES, OWN, strict=True):
        place[:, :own_h, :own_w] = 0
        place[:, :h, :w] = image[:, :h, :w]
    return images


def largest_error(maps: list[Tensor], alone: list[list[Tensor]]) -> float:
    """Of any value of an own part, as a share of the largest value of its map."""
    errors = [
        (x[i, :, : y.shape[2], : y.shape[3]] - y[0]).abs().max() / y.abs().max()
        for i, own in enumerate(alone)
        for x, y in zip(maps, own, strict=True)
    ]
    return float(torch.stack(errors).max())


@torch.no_grad()
@pytest.mark.parametrize("name", list_models())
def test_the_features_of_an_image_alone_and_in_a_padded_batch_are_equal(name: str) -> None:
    model, images = rule.build(name, features_only=True), padded_images()
    alone = [model(images[i : i + 1, :, :h, :w]) for i, (h, w) in enumerate(OWN)]
    bounds = find_bounds(SIZES, images)
    assert largest_error(model.forward_padded(images, bounds), alone) < 1e-5
    if name in ARCHITECTURES:
        assert largest_error(model(images), alone) > 1e-2  # as published, they are not


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_beyond_an_own_part_is_read_nor_learnt_from(name: str) -> None:
    model = rule.build(name, features_only=True).train()
    model.set_grad_checkpointing()
    found = []
    for beyond in (0.0, 5.0):
        torch.manual_seed(0)  # for stochastic depth
        images = padded_images(beyond).requires_grad_()
        bounds = find_bounds(SIZES, images)
        assert bounds is not None
        maps = model.forward_padded(images, bounds)
        parts = [part for x in maps for part in bounds.parts(x)]
        torch.stack([part.square().mean() for part in parts]).sum().backward()
        assert images.grad is not None
        inside = bounds.inside(PADDED).expand_as(images)
        assert not images.grad[~inside].any()
        assert images.grad[inside].abs().min() > 0
        found.append(parts)
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second)
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(parameter.grad.isfinite().all()), parameter_name


def test_own_parts_are_whole_cells_up_to_stride_32_and_rounded_up_beyond() -> None:
    bounds = Bounds([(33, 96), (1, 160), (96, 97)], (96, 160), torch.device("cpu"))
    assert bounds.cells((96, 160)) == [(64, 96), (32, 160), (96, 128)]
    assert bounds.cells((24, 40)) == [(16, 24), (8, 40), (24, 32)]
    assert bounds.cells((3, 5)) == [(2, 3), (1, 5), (3, 4)]
    assert bounds.cells((2, 3)) == [(1, 2), (1, 3), (2, 2)]
    assert bounds.cells((1, 2)) == [(1, 1), (1, 2), (1, 1)]
    assert bounds.inside((2, 3))[:, 0].tolist() == [
        [[True, True, False], [False, False, False]],
        [[True, True, True], [False, False, False]],
        [[True, True, False], [True, True, False]],
    ]
    x = torch.randn(3, 2, 3, 5)
    parts = bounds.parts(x)
    assert [part.shape for part in parts] == [(1, 2, 2, 3), (1, 2, 1, 5), (1, 2, 3, 4)]
    assert torch.equal(join(parts, (3, 5)), clear(x, bounds))
    with pytest.raises(ValueError, match=r"images of \(96, 160\) have no map of \(3, 4\)"):
        bounds.cells((3, 4))


def test_images_that_are_padded_no_further_than_alone_have_no_bounds() -> None:
    images = torch.zeros(2, 3, 64, 96)
    assert find_bounds(None, images) is None
    assert find_bounds([(64, 96), (33, 70)], images) is None
    assert find_bounds([(64, 96), (32, 70)], images) is not None
    with pytest.raises(ValueError, match=r"padded to multiples of 32, got \(60, 96\)"):
        find_bounds([(60, 96), (32, 70)], images[:, :, :60])


def test_group_norms_take_their_statistics_over_own_parts() -> None:
    torch.manual_seed(0)
    tower = norm_tower(4, 16, depth=2)
    bounds = Bounds([(32, 96), (64, 64)], (64, 96), torch.device("cpu"))
    x = torch.randn(2, 4, 8, 12)
    found = bounds.parts(run_tower(tower, x, bounds))
    for part, own in zip(found, bounds.parts(x), strict=True):
        torch.testing.assert_close(part, tower(own))
