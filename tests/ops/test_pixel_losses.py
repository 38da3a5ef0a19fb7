"""Losses over pixels against slow plain Python, and where they must be nothing at all."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyramidvit.ops.pixel_losses import (
    lovasz_softmax_loss,
    pixel_cross_entropy,
    pixel_dice_loss,
    pixel_focal_loss,
    structure_loss,
)
from pyramidvit.structures import UNLABELLED

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": pixel_cross_entropy,
    "focal": pixel_focal_loss,
    "dice": pixel_dice_loss,
    "lovasz": lovasz_softmax_loss,
    "structure": structure_loss,
    "structure_published": lambda x, y: structure_loss(x, y, weighted_entropy=False),
}


def drawn(classes: int = 4, size: tuple[int, int] = (5, 7)) -> tuple[Tensor, Tensor]:
    """Logits and labels of two images, some pixels unlabelled and the last class nowhere."""
    torch.manual_seed(0)
    logits = 2 * torch.randn(2, classes, *size, dtype=torch.float64)
    labels = torch.randint(-1, max(2, classes - 1), (2, *size))
    return logits, labels


def pixels(logits: Tensor, labels: Tensor) -> list[tuple[list[float], int]]:
    """(probabilities, label) of every labelled pixel."""
    found = []
    for image in range(len(labels)):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                powers = [math.exp(v) for v in logits[image, :, y, x].tolist()]
                label = int(labels[image, y, x])
                if label != UNLABELLED:
                    found.append(([p / sum(powers) for p in powers], label))
    return found


@pytest.mark.parametrize("over_all", [False, True])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 0.0, 7.0)])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_entropies_are_sums_over_pixels(
    over_all: bool, weights: tuple[float, ...] | None, gamma: float
) -> None:
    logits, labels = drawn()
    seen = pixels(logits, labels)
    each = [-(weights or [1] * 4)[k] * (1 - p[k]) ** gamma * math.log(p[k]) for p, k in seen]
    wanted = sum(each) / (labels.numel() if over_all else len(seen))
    scale = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    options = {"class_weights": scale, "over_all": over_all}
    found = pixel_focal_loss(logits, labels, gamma=gamma, **options)
    assert found.item() == pytest.approx(wanted)
    if gamma == 0:
        assert pixel_cross_entropy(logits, labels, **options).item() == pytest.approx(wanted)


def test_dice_counts_the_overlap_of_each_class_that_is_there() -> None:
    logits, labels = drawn()
    seen = pixels(logits, labels)
    terms = []
    for k in range(3):  # the last class is nowhere
        overlap = sum(p[k] for p, label in seen if label == k)
        size = sum(p[k] for p, _ in seen) + sum(label == k for _, label in seen)
        terms.append(1 - 2 * overlap / size)
    assert pixel_dice_loss(logits, labels).item() == pytest.approx(sum(terms) / 3)


def test_lovasz_is_the_extension_of_the_jaccard_loss() -> None:
    logits, labels = drawn()
    seen = pixels(logits, labels)
    total = 0.0
    for k in range(3):
        own = {i for i, (_, label) in enumerate(seen) if label == k}
        errors = {i: abs((label == k) - p[k]) for i, (p, label) in enumerate(seen)}
        wrong: set[int] = set()
        before = 0.0
        for i in sorted(errors, key=lambda i: -errors[i]):
            wrong.add(i)
            jaccard = 1 - len(own - wrong) / len(own | wrong)
            total += errors[i] * (jaccard - before)
            before = jaccard
    assert lovasz_softmax_loss(logits, labels).item() == pytest.approx(total / 3)


def test_lovasz_of_certain_answers_is_one_less_the_mean_iou() -> None:
    labels = torch.tensor([[[0, 0, 1, 1, 2, UNLABELLED]]])
    answers = torch.tensor([[[0, 1, 1, 1, 2, 0]]])
    logits = 1000.0 * torch.nn.functional.one_hot(answers, 4).movedim(3, 1)
    wanted = 1 - (1 / 2 + 2 / 3 + 1) / 3
    assert lovasz_softmax_loss(logits, labels).item() == pytest.approx(wanted)


def slow_structure(logits: Tensor, labels: Tensor, weighted: bool) -> float:
    """The structure loss, pixel by pixel."""
    height, width = labels.shape[1:]
    everything, images = [], []
    for scores, truth in zip((logits[:, 1] - logits[:, 0]).tolist(), labels.tolist(), strict=True):
        rows = []
        for y in range(height):
            for x in range(width):
                near = sum(
                    truth[v][u] == 1
                    for v in range(max(0, y - 15), min(height, y + 16))
                    for u in range(max(0, x - 15), min(width, x + 16))
                )
                if truth[y][x] != UNLABELLED:
                    weight = 1 + 5 * abs(near / 31**2 - truth[y][x])
                    p = 1 / (1 + math.exp(-scores[y][x]))
                    entropy = -math.log(p if truth[y][x] else 1 - p)
                    rows.append((weight, p, truth[y][x], entropy))
        everything += [row[3] for row in rows]
        overlap = sum(w * p * t for w, p, t, _ in rows)
        union = sum(w * (p + t) for w, p, t, _ in rows) - overlap
        entropy = sum(w * e for w, _, _, e in rows) / sum(w for w, *_ in rows)
        images.append((entropy, 1 - (overlap + 1) / (union + 1)))
    plain = sum(everything) / len(everything)
    return sum((entropy if weighted else plain) + iou for entropy, iou in images) / len(images)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_structure_loss_weighs_borders(weighted: bool) -> None:
    logits, _ = drawn(classes=2, size=(20, 34))
    labels = torch.zeros(2, 20, 34, dtype=torch.int64)
    labels[0, 4:11, 20:30] = labels[1, :, 17:] = 1
    labels[0, 9:14, 25:28] = UNLABELLED
    found = structure_loss(logits, labels, weighted_entropy=weighted)
    assert found.item() == pytest.approx(slow_structure(logits, labels, weighted))


def test_the_published_structure_loss_asks_for_a_mean_by_mistake() -> None:
    """What torch makes of the word, in the lines that published work shares."""
    logits, labels = drawn(classes=2, size=(40, 40))
    labels = labels.clamp(min=0)
    mask, scores = labels[:, None].double(), logits[:, 1:] - logits[:, :1]
    around = torch.nn.functional.avg_pool2d(mask, 31, stride=1, padding=15)
    weights = 1 + 5 * (around - mask).abs()
    with pytest.warns(UserWarning, match="deprecated"):
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(scores, mask, reduce="none")
    assert entropy.ndim == 0  # and so all weights cancel
    p = scores.sigmoid()
    overlap, union = ((part * weights).sum((2, 3)) for part in (p * mask, p + mask))
    wanted = (entropy + 1 - (overlap + 1) / (union - overlap + 1)).mean()
    found = structure_loss(logits, labels, weighted_entropy=False)
    assert found.item() == pytest.approx(wanted.item())


@pytest.mark.parametrize("name", LOSSES)
def test_without_labels_loss_and_gradients_are_zero(name: str) -> None:
    logits = torch.randn(2, 2, 5, 7, requires_grad=True)
    value = LOSSES[name](logits, torch.full((2, 5, 7), UNLABELLED))
    assert value.item() == 0
    value.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", LOSSES)
def test_unlabelled_pixels_play_no_part(name: str) -> None:
    logits, labels = drawn(classes=2)
    logits.requires_grad_()
    value = LOSSES[name](logits, labels)
    value.backward()
    assert logits.grad is not None
    unknown = (labels == UNLABELLED)[:, None].expand_as(logits)
    assert bool((logits.grad[unknown] == 0).all())
    assert bool((logits.grad[~unknown] != 0).any())
    padded = torch.nn.functional.pad(logits, (0, 4, 0, 3), value=9.0)  # as a batch is
    around = torch.nn.functional.pad(labels, (0, 4, 0, 3), value=UNLABELLED)
    assert LOSSES[name](padded, around).item() == pytest.approx(value.item())


@pytest.mark.parametrize("name", LOSSES)
def test_one_pixel_and_certainty_are_possible(name: str) -> None:
    for scale in (0.0, 1e4, -1e4):
        logits = (scale * torch.tensor([-1.0, 1.0])).reshape(1, 2, 1, 1).requires_grad_()
        value = LOSSES[name](logits, torch.ones(1, 1, 1, dtype=torch.int16))
        value.backward()
        assert logits.grad is not None
        assert bool(torch.isfinite(value)), scale
        assert bool(torch.isfinite(logits.grad).all()), scale
        if scale == 1e4:
            assert value.item() == pytest.approx(0, abs=1e-6)


def test_the_dice_loss_keeps_no_whole_number_for_every_class_and_pixel() -> None:
    kept: list[torch.Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    logits = torch.randn(1, 7, 5, 5, requires_grad=True)
    labels = torch.randint(7, (1, 5, 5))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        pixel_dice_loss(logits, labels)
    large = [tensor.dtype for tensor in kept if tensor.numel() == logits.numel()]
    assert large
    assert torch.int64 not in large
