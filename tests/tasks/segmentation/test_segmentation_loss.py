"""The loss of segmenters: which terms there are, and what they see."""

from dataclasses import replace

import pytest
import torch

from pyramidvit.errors import UserError
from pyramidvit.ops.pixel_losses import pixel_cross_entropy
from pyramidvit.structures import (
    UNLABELLED,
    Batch,
    Classes,
    Origin,
    Sample,
    SegmentationTarget,
    collate,
)
from pyramidvit.tasks.segmentation.config import LOSSES, SegmentationOptions
from pyramidvit.tasks.segmentation.loss import build_loss, stack_labels
from pyramidvit.tasks.segmentation.outputs import SegmentationOutputs
from segmenters import named


def batch_of(*maps: torch.Tensor) -> Batch[SegmentationTarget]:
    samples = [
        Sample(
            image=torch.zeros(3, *labels.shape),
            target=SegmentationTarget(labels=labels.to(torch.int16)),
            origin=Origin(name=str(i), size=(labels.shape[0], labels.shape[1])),
        )
        for i, labels in enumerate(maps)
    ]
    return collate(samples, divisor=32)


def test_maps_are_padded_with_unlabelled_pixels() -> None:
    batch = batch_of(torch.zeros(2, 3), torch.ones(1, 1))
    stacked = stack_labels(batch.targets, (3, 4))
    assert stacked.tolist() == [
        [[0, 0, 0, -1], [0, 0, 0, -1], [-1, -1, -1, -1]],
        [[1, -1, -1, -1], [-1, -1, -1, -1], [-1, -1, -1, -1]],
    ]


@pytest.mark.parametrize("name", [*LOSSES, "cross_entropy+dice", "dice+structure"])
def test_every_term_is_named_and_zero_without_labels(name: str) -> None:
    loss = build_loss(SegmentationOptions(loss=name), (), named(2))
    logits = torch.randn(2, 2, 8, 8, requires_grad=True)
    terms = loss(SegmentationOutputs(logits), batch_of(*torch.full((2, 30, 20), UNLABELLED)))
    assert list(terms) == name.split("+")
    torch.stack(list(terms.values())).sum().backward()
    assert [term.item() for term in terms.values()] == [0] * len(terms)
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_mean_and_weights_follow_the_options() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 32, 32)
    maps = torch.randint(-1, 3, (20, 30))
    padded = torch.full((1, 32, 32), UNLABELLED)
    padded[0, :20, :30] = maps
    weights = (1.0, 2.0, 0.5)
    for mean_over in ("all", "labelled"):
        options = SegmentationOptions(mean_over=mean_over, class_weights=weights)
        found = build_loss(options, (), named(3))(SegmentationOutputs(logits), batch_of(maps))
        wanted = pixel_cross_entropy(
            logits,
            padded,
            class_weights=torch.tensor(weights),
            over_all=mean_over == "all",
        )
        assert found["cross_entropy"].item() == pytest.approx(wanted.item())


def test_the_structure_loss_takes_for_the_object_what_is_not_the_background() -> None:
    labels = torch.zeros(32, 32)
    labels[:8, :8] = 1
    logits = torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    options = SegmentationOptions(loss="structure")
    last = Classes(names=("polyp", "background"), ids=(1, 2))
    usual = build_loss(options, (), named(2))(SegmentationOutputs(logits), batch_of(labels))
    swapped = SegmentationOutputs(logits.flip(1))
    found = build_loss(options, (), last)(swapped, batch_of(1 - labels))
    assert found["structure"].item() == pytest.approx(usual["structure"].item())
    first = build_loss(options, (), replace(last, names=("background", "polyp")))
    assert first(swapped, batch_of(1 - labels))["structure"].item() != pytest.approx(
        usual["structure"].item(), rel=0.1
    )


def test_a_loss_that_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="unknown loss dise; nearest: dice"):
        build_loss(SegmentationOptions(loss="cross_entropy+dise"), (), named(3))
    with pytest.raises(UserError, match="2 classes: the data has 3"):
        build_loss(SegmentationOptions(loss="structure"), (), named(3))
    with pytest.raises(UserError, match="class_weights must be 3 numbers, one a class, got 2"):
        build_loss(SegmentationOptions(class_weights=(1.0, 2.0)), (), named(3))


def test_weights_whose_effect_is_taken_back_have_the_plain_posterior_for_their_best_logits() -> (
    None
):
    shares = torch.tensor([0.75, 0.25])  # of 16 pixels that look alike, so have the same logits
    labels = torch.tensor([0, 0, 0, 1] * 4).reshape(4, 4)
    batch = batch_of(labels.repeat(8, 8))
    gradients = {}
    for unbias in (0.0, 1.0):
        logits = shares.log().requires_grad_()
        options = SegmentationOptions(class_weights=(0.1, 2.0), unbias=unbias)
        maps = logits.view(1, 2, 1, 1).expand(1, 2, 32, 32)
        terms = build_loss(options, (), named(2))(SegmentationOutputs(maps), batch)
        (gradient,) = torch.autograd.grad(terms["cross_entropy"], logits)
        gradients[unbias] = gradient.abs().max().item()
    assert gradients[1.0] < 1e-6  # they are the minimum
    assert gradients[0.0] > 0.1  # which without it lies elsewhere
