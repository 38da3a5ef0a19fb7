"""Classes of unequal size: weights in the loss, and labels that are known without reading."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyramidvit.data import image_folder
from pyramidvit.data.digits import load_digit_data
from pyramidvit.data.image_folder import FileSource, load_image_folder
from pyramidvit.data.source import Subset, known_labels
from pyramidvit.errors import UserError
from pyramidvit.structures import Batch, ClassTarget, MixedTarget, Origin
from pyramidvit.tasks.classification.balance import class_weights, draw_evenly
from pyramidvit.tasks.classification.config import ClassificationOptions, check_options
from pyramidvit.tasks.classification.loss import build_loss
from pyramidvit.tasks.classification.transforms import mix
from segmenters import named

PLAIN = ClassificationOptions(label_smoothing=0.0)
WEIGHED = ClassificationOptions(label_smoothing=0.0, class_weights="balanced")


def batch_of(targets: Any) -> Batch[Any]:
    origins = tuple(Origin(name=str(i), size=(4, 4)) for i in range(len(targets)))
    images = torch.rand(len(targets), 3, 4, 4)
    sizes = ((4, 4),) * len(targets)
    return Batch(images=images, sizes=sizes, targets=tuple(targets), origins=origins)


def soft(weights: Tensor) -> Batch[Any]:
    return batch_of([MixedTarget(weights=row) for row in weights])


def hard(labels: list[int]) -> Batch[Any]:
    return batch_of([ClassTarget(label=label) for label in labels])


def value(options: ClassificationOptions, labels: list[int], logits: Tensor, batch: Any) -> Tensor:
    (found,) = build_loss(options, labels, named(logits.shape[1]))(logits, batch).values()
    return found


def test_weights_are_inverse_to_the_size_of_a_class() -> None:
    weights = class_weights(WEIGHED, [0] * 6 + [1] * 2 + [2], 3)
    assert weights is not None
    assert weights.tolist() == pytest.approx([9 / (3 * 6), 9 / (3 * 2), 9 / (3 * 1)])
    assert class_weights(PLAIN, [0, 0, 1], 2) is None


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80))
@settings(deadline=None)
def test_weights_are_one_on_average_over_the_images_and_even_the_classes_out(
    labels: list[int],
) -> None:
    weights = class_weights(WEIGHED, labels, 7)
    weights = torch.ones(7) if weights is None else weights
    assert float(weights[labels].double().mean()) == pytest.approx(1, rel=1e-6)
    sums = [labels.count(k) * float(weights[k]) for k in set(labels)]
    assert sums == pytest.approx([len(labels) / len(sums)] * len(sums), rel=1e-6)


def test_a_class_without_images_weighs_one() -> None:
    weights = class_weights(WEIGHED, [0, 0, 0, 2], 4)
    assert weights is not None
    assert weights.tolist() == pytest.approx([4 / 6, 1, 4 / 2, 1])


def test_the_weighted_loss_is_torchs_and_divides_by_the_images() -> None:
    labels = [0] * 5 + [1] * 2 + [2]
    logits, targets = torch.randn(6, 3), torch.rand(6, 3).softmax(1)
    found = value(WEIGHED, labels, logits, soft(targets))
    weights = torch.tensor([8 / 15, 8 / 6, 8 / 3])
    assert torch.equal(found, F.cross_entropy(logits, targets, weight=weights))
    slow = 0.0
    for i in range(6):
        for k in range(3):
            p = float(logits[i].softmax(0)[k])
            slow -= float(weights[k] * targets[i, k]) * float(torch.tensor(p).log()) / 6
    assert float(found) == pytest.approx(slow, rel=1e-5)


def test_an_image_of_one_class_has_its_cross_entropy_times_the_weight_of_the_class() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    batch = mix(PLAIN, 2)(hard([0, 1]))
    found = float(value(WEIGHED, [0, 0, 0, 1], logits, batch))
    assert found == pytest.approx((4 / 6 + 4 / 2) / 2 * torch.tensor(2.0).log().item())


def test_balanced_data_has_exactly_the_loss_without_weights() -> None:
    logits, targets = torch.randn(8, 3), torch.rand(8, 3).softmax(1)
    for labels in ([0, 1, 2], [2, 1, 0] * 7):
        weighed = value(WEIGHED, labels, logits, soft(targets))
        assert torch.equal(weighed, value(PLAIN, labels, logits, soft(targets)))


def test_the_mean_over_shares_of_a_batch_is_the_loss_of_the_batch() -> None:
    labels = [0] * 5 + [1] * 2 + [2]
    logits, targets = torch.randn(8, 3), torch.rand(8, 3).softmax(1)
    whole = value(WEIGHED, labels, logits, soft(targets))
    parts = [value(WEIGHED, labels, logits[s], soft(targets[s])) for s in (slice(4), slice(4, 8))]
    assert float(sum(parts) / 2) == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize("mixing", [{"mixup": 0.8}, {"cutmix": 1.0}, {"label_smoothing": 0.1}])
def test_mixed_and_smoothed_targets_are_weighed_class_by_class(mixing: dict[str, float]) -> None:
    options = ClassificationOptions(**{"label_smoothing": 0.0, **mixing})  # type: ignore[arg-type]
    batch = mix(options, 3)(hard([0, 1, 2, 0]))
    logits = torch.randn(4, 3)
    targets = torch.stack([target.weights for target in batch.targets])
    found = value(WEIGHED, [0, 0, 0, 1, 2, 2], logits, batch)
    weights = torch.tensor([6 / 9, 6 / 3, 6 / 6])
    slow = -(weights * targets * logits.log_softmax(1)).sum() / 4
    assert float(found) == pytest.approx(float(slow), rel=1e-6)


def test_data_that_names_no_classes_is_refused() -> None:
    with pytest.raises(UserError, match="--class_weights balanced needs data that names a class"):
        build_loss(WEIGHED, (), named(3))
    with pytest.raises(UserError, match="--sampling balanced needs data that names a class"):
        draw_evenly(ClassificationOptions(sampling="balanced"), ())
    assert draw_evenly(PLAIN, ()) is None
    assert draw_evenly(ClassificationOptions(sampling="balanced"), (0, 1, 1)) == (0, 1, 1)


def test_labels_are_known_without_reading_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, count in (("cat", 5), ("dog", 3)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i}.jpg").write_bytes(b"")
    monkeypatch.setattr(image_folder, "read_small_image", pytest.fail)
    data = load_image_folder(tmp_path, seed=0)
    assert known_labels(data.splits["all"]) == (0,) * 5 + (1,) * 3
    assert sorted(known_labels(data.splits["train"])) == [0] * 4 + [1] * 2
    assert known_labels(FileSource((tmp_path,), (None,))) == ()
    assert known_labels(Subset(FileSource((tmp_path,), (None,)), (0,))) == ()


def test_the_labels_of_the_digits_are_those_of_their_samples() -> None:
    source = load_digit_data(seed=0).splits["validation"]
    assert list(known_labels(source)) == [source[i].target.label for i in range(len(source))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_decay": 0.0}, "--layer_decay must be from above 0 to 1, got 0.0"),
        ({"layer_decay": 1.1}, "--layer_decay must be from above 0 to 1"),
        ({"freeze": 5}, "--freeze must be from 0 to 4, got 5"),
        ({"freeze": -1}, "--freeze must be from 0 to 4"),
        ({"patience": -1}, "--patience must be 0 or more, got -1"),
    ],
)
def test_numbers_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_options(ClassificationOptions(**changes))
