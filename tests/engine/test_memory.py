"""Recomputation is chosen by what a backbone keeps, which is counted."""

import pytest
import torch
from torch import nn

import rule
from pyramidvit.engine.device import build_fabric
from pyramidvit.engine.memory import kept_bytes, largest_image, set_recompute
from pyramidvit.errors import UserError
from pyramidvit.options import check_train_options
from pyramidvit.tasks.classification.config import ClassificationOptions
from pyramidvit.tasks.detection.config import DetectionOptions
from pyramidvit.tasks.segmentation.config import SegmentationOptions


class Told:
    """In the place of a reporter."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, key: str, text: str) -> None:
        self.lines.append(f"{key} {text}")


def test_memory_is_counted_once_and_without_parameters() -> None:
    layer, x = nn.Linear(4, 8), torch.randn(2, 4)
    assert kept_bytes(layer, lambda: layer(x)) == x.nbytes
    assert kept_bytes(layer, lambda: layer(x).exp().sum()) == x.nbytes + 2 * 8 * 4
    assert kept_bytes(layer, lambda: (layer(x), x[:1] * layer.bias[:4])) == x.nbytes


def test_a_budget_chooses_the_first_recomputation_that_fits() -> None:
    model = nn.Sequential(rule.build("pvt_v2_b0", features_only=True, out_indices=(0,)))
    fabric, images = build_fabric("cpu", 1, "float32"), rule.images(1, 32, 32)
    model.train()
    kept = {}
    for what in ("none", "feed_forward", "blocks"):
        model[0].set_recompute(what)
        kept[what] = 3 * kept_bytes(model, lambda: model(images))  # a batch of 6 in two parts
    budgets = {**kept, "least": 1000}
    for name, budget in budgets.items():
        told, options = Told(), {"recompute": "auto", "memory_budget": budget / 2**30}
        given = ClassificationOptions(image_size=32, batch_size=6, accumulate=2, **options)
        check_train_options(given)
        set_recompute(model, given, fabric, told)
        chosen = "blocks" if name == "least" else name
        assert model[0].recompute == chosen
        assert len(told.lines) == 1
        assert told.lines[0].startswith(f"memory --recompute {chosen}: of 3 images")
        assert ("NOTE: more than the budget" in told.lines[0]) is (name == "least")
    set_recompute(model, ClassificationOptions(grad_checkpointing=True), fabric, told)
    assert model[0].grad_checkpointing


def test_the_largest_image_is_known_for_each_task() -> None:
    assert largest_image(ClassificationOptions(image_size=96)) == (96, 96)
    assert largest_image(SegmentationOptions(crop_side=160)) == (160, 160)
    assert largest_image(DetectionOptions(short_side=100, long_side=333)) == (128, 352)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"recompute": "auto"}, "--memory_budget must be above 0 with --recompute auto"),
        ({"memory_budget": 2.0}, "and 0 without it, got 2.0"),
        ({"recompute": "feed_forward", "grad_checkpointing": True}, "--recompute must be blocks"),
    ],
)
def test_options_that_contradict_each_other_are_refused(given: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_train_options(ClassificationOptions(**given))
