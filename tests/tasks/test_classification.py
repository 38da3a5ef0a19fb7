"""Loss, metrics, augmentation and drawing of the classification task."""

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from timm.data import create_transform
from timm.loss import SoftTargetCrossEntropy

from pyramidvit.structures import (
    Batch,
    Classes,
    ClassPrediction,
    ClassTarget,
    MixedTarget,
    Origin,
    Sample,
)
from pyramidvit.tasks.classification.config import ClassificationOptions, recipe_changes
from pyramidvit.tasks.classification.draw import draw
from pyramidvit.tasks.classification.loss import loss
from pyramidvit.tasks.classification.metrics import ClassificationMetrics
from pyramidvit.tasks.classification.postprocess import caption, describe, describe_target
from pyramidvit.tasks.classification.transforms import (
    black_at_zero_bits,
    denormalise,
    describe_input,
    eval_transform,
    mix,
    train_transform,
)


def some_classes(count: int) -> Classes:
    return Classes(names=tuple(f"class {k}" for k in range(count)), ids=tuple(range(count)))


def batch_of(labels: list[int], images: torch.Tensor | None = None) -> Batch[Any]:
    targets = tuple(ClassTarget(label=k) for k in labels)
    origins = tuple(Origin(name=str(i), size=(8, 8)) for i in range(len(labels)))
    images = torch.zeros(len(labels), 3, 8, 8) if images is None else images
    return Batch(images=images, sizes=((8, 8),) * len(labels), targets=targets, origins=origins)


@given(
    classes=st.integers(2, 12),
    count=st.integers(1, 40),
    seed=st.integers(0, 1000),
    pieces=st.integers(1, 4),
)
@settings(max_examples=50, deadline=None)
def test_metrics_agree_with_torchmetrics(classes: int, count: int, seed: int, pieces: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    ours = ClassificationMetrics(some_classes(classes))
    for part, truth in zip(logits.chunk(pieces), labels.chunk(pieces), strict=True):
        ours.update(part, (), batch_of(truth.tolist()))
    figures = ours.compute()

    def accuracy(**options: Any) -> float:
        return 100 * float(reference.multiclass_accuracy(logits, labels, classes, **options))

    assert figures["images"] == count
    assert figures["top1"] == pytest.approx(accuracy(average="micro"), abs=1e-4)
    k = min(5, classes)
    assert figures["top5"] == pytest.approx(accuracy(average="micro", top_k=k), abs=1e-4)
    confusion = reference.multiclass_confusion_matrix(logits, labels, classes)
    assert torch.equal(ours.sums["confusion"], confusion)
    slow = np.mean(
        [100 * (logits.argmax(1)[labels == k] == k).float().mean() for k in labels.unique()]
    )
    assert figures["mean_class"] == pytest.approx(float(slow), abs=1e-3)
    exact = torch.nn.functional.cross_entropy(logits.double(), labels)
    assert figures["loss"] == pytest.approx(float(exact), abs=1e-6)


def test_metrics_of_nothing_are_not_numbers_and_not_a_crash() -> None:
    figures = ClassificationMetrics(some_classes(3)).compute()
    assert figures["images"] == 0
    assert np.isnan(figures["top1"])


def test_sums_of_two_processes_make_the_figures_of_one() -> None:
    logits = torch.randn(11, 4)
    labels = torch.randint(4, (11,)).tolist()
    whole, first, second = (ClassificationMetrics(some_classes(4)) for _ in range(3))
    whole.update(logits, (), batch_of(labels))
    first.update(logits[:6], (), batch_of(labels[:6]))
    second.update(logits[6:], (), batch_of(labels[6:]))
    first.merge([first.state(), second.state()])
    assert first.compute() == whole.compute()


def test_the_loss_is_cross_entropy_with_soft_targets() -> None:
    logits = torch.randn(6, 5)
    smooth = mix(ClassificationOptions(label_smoothing=0.1), 5)(batch_of([0, 1, 2, 3, 4, 0]))
    (value,) = loss(logits, smooth).values()
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(
        logits, torch.tensor([0, 1, 2, 3, 4, 0])
    )
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    weights = torch.stack([t.weights for t in smooth.targets])
    assert float(value) == pytest.approx(float(SoftTargetCrossEntropy()(logits, weights)), rel=1e-6)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixing_blends_pictures_and_labels_by_the_same_share(mixup: float, cutmix: float) -> None:
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 16, 16).contiguous()
    options = ClassificationOptions(mixup=mixup, cutmix=cutmix, label_smoothing=0.0)
    for seed in range(8):
        np.random.seed(seed)
        given = batch_of([0, 1, 2, 3, 4, 5], images)
        mixed = mix(options, 6)(given)
        assert torch.equal(given.images, images)  # the batch that came in is left as it was
        for image, target in zip(mixed.images, mixed.targets, strict=True):
            assert float(target.weights.sum()) == pytest.approx(1, abs=1e-5)
            share = (target.weights * torch.arange(6.0)).sum()
            assert float(image.mean()) == pytest.approx(float(share), abs=1e-4)


def noise_picture(height: int = 60, width: int = 80) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).resize((width * 3, height * 3), Image.Resampling.BICUBIC)


def old_posterize(image: Image.Image, bits: int) -> Image.Image:
    return image.point(lambda value: value & ~(2 ** (8 - bits) - 1))


def test_posterizing_to_no_bits_gives_black_with_any_pillow() -> None:
    picture = noise_picture(4, 4)
    assert black_at_zero_bits(picture, 0).getextrema() == ((0, 0),) * 3
    assert (
        np.asarray(black_at_zero_bits(picture, 2)) == np.asarray(old_posterize(picture, 2))
    ).all()


def sample_of(picture: Image.Image) -> Sample[Any]:
    return Sample(image=picture, target=None, origin=Origin(name="x", size=(1, 1)))


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def test_evaluation_sees_what_timms_evaluation_sees() -> None:
    record = describe_input(ClassificationOptions(image_size=64))
    ours = eval_transform(record)(sample_of(noise_picture())).image
    theirs = create_transform(64, interpolation="bicubic", crop_pct=0.875)(noise_picture())
    assert isinstance(ours, torch.Tensor)
    assert float((ours - theirs).abs().max()) < 1e-5


def test_the_paper_recipe_augments_as_timms_training_transform_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same distribution: mean and spread of many draws, and never twice the same."""
    options = ClassificationOptions(**{**recipe_changes("paper", "pvt_v2_b0"), "image_size": 32})
    ours = train_transform(options)
    # timm's own cannot survive Pillow 13 at full strength (0 bits): let it posterize as before.
    monkeypatch.setattr(ImageOps, "posterize", lambda image, bits: old_posterize(image, bits))
    theirs = create_transform(
        32,
        is_training=True,
        color_jitter=0.4,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
    )
    seed_everything(0)
    picture = noise_picture()
    a = torch.stack([ours(sample_of(picture)).image for _ in range(400)])  # type: ignore[misc]
    b = torch.stack([theirs(picture) for _ in range(400)])
    assert a.shape == b.shape == (400, 3, 32, 32)
    assert float(a.mean()) == pytest.approx(float(b.mean()), abs=0.12)
    assert float(a.std()) == pytest.approx(float(b.std()), rel=0.08)
    spread_a, spread_b = (x.mean((1, 2, 3)).std() for x in (a, b))
    assert float(spread_a) == pytest.approx(float(spread_b), rel=0.2)
    assert not torch.equal(a[0], a[1])


def test_a_picture_survives_normalisation_and_back() -> None:
    picture = noise_picture(20, 20)
    record = {**describe_input(ClassificationOptions(image_size=60)), "crop_share": 1.0}
    image = eval_transform(record)(sample_of(picture)).image
    assert isinstance(image, torch.Tensor)
    assert (denormalise(image, record) == np.asarray(picture)).all()


def test_transforms_can_be_sent_to_reading_processes_that_are_spawned() -> None:
    options = ClassificationOptions(**recipe_changes("paper", "pvt_v2_b0"), rotate=5.0)
    for transform in (train_transform(options), eval_transform(describe_input(options))):
        seed_everything(0)
        first = transform(sample_of(noise_picture())).image
        seed_everything(0)
        again = pickle.loads(pickle.dumps(transform))(sample_of(noise_picture())).image
        assert torch.equal(first, again)


CLASSES = Classes(names=("cat", "dog", "a very long class name indeed"), ids=(7, 9, 11))
PREDICTION = ClassPrediction(scores=torch.tensor([0.2, 0.7, 0.1]))


def test_a_prediction_carries_names_and_original_ids() -> None:
    record = describe(PREDICTION, CLASSES)
    assert (record["name"], record["id"]) == ("dog", 9)
    assert [row["id"] for row in record["top"]] == [9, 7, 11]
    assert sum(row["score"] for row in record["top"]) == pytest.approx(1)


def test_captions_say_what_was_predicted_and_what_is_true() -> None:
    truth = batch_of([0, 1]).targets
    plain = mix(ClassificationOptions(label_smoothing=0.1), 2)(batch_of([1])).targets[0]
    assert caption(PREDICTION, CLASSES, None) == ("dog 0.70", None)
    assert caption(PREDICTION, CLASSES, truth[1]) == ("dog 0.70", True)
    assert caption(PREDICTION, CLASSES, truth[0]) == ("dog 0.70, is cat", False)
    mixed = MixedTarget(weights=torch.tensor([0.65, 0.3, 0.05]))
    assert describe_target(plain, CLASSES) == "dog"
    assert describe_target(mixed, CLASSES) in ("cat 0.7 + dog 0.3", "cat 0.6 + dog 0.3")


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (3000, 200), (200, 3000), (10, 3000)])
def test_a_drawn_prediction_keeps_the_picture_and_adds_lines_below(size: tuple[int, int]) -> None:
    drawn = draw(Image.new("RGB", size, "red"), PREDICTION, CLASSES)
    assert drawn.width >= 320
    assert drawn.getpixel((0, 0)) == (255, 0, 0)
    assert drawn.height >= size[1] + 3 * 18
    assert drawn.height < 5000
    line = max(18, drawn.width // 22)
    below = np.asarray(drawn.crop((0, drawn.height - 3 * line, drawn.width, drawn.height)))
    assert below.min() < 60  # there is writing
