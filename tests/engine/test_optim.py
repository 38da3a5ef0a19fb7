"""Learning rate and weight decay are the reference's."""

import pytest
import torch
from torch import nn

import pyramidvit
from pyramidvit.engine.optim import build_optimizer, build_schedule, peak_rate
from pyramidvit.options import TrainOptions
from pyramidvit.tasks.classification.config import ClassificationOptions, recipe_changes

# Learning rate by epoch, measured on the reference code (classification/main.py).
PUBLISHED = {
    0: 1e-6,
    1: 1e-6,
    2: 2.008e-4,
    3: 4.006e-4,
    4: 6.004e-4,
    5: 8.002e-4,
    6: 9.993e-4,
    50: 9.363e-4,
    100: 7.570e-4,
    151: 5.05e-4,
    200: 2.620e-4,
    299: 1.011e-5,
}


def rates(options: TrainOptions, steps: int, at: list[int]) -> list[float]:
    optimizer = torch.optim.AdamW(
        nn.Linear(2, 2).parameters(), lr=peak_rate(options, options.batch_size)
    )
    set_rate = build_schedule(optimizer, options, steps)
    found = []
    for step in at:
        set_rate(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_the_paper_recipe_has_the_references_learning_rate_in_every_epoch() -> None:
    options = ClassificationOptions(**recipe_changes("paper", "pvt_v2_b2"))
    steps = 10
    first = rates(options, steps, [epoch * steps for epoch in PUBLISHED])
    last = rates(options, steps, [epoch * steps + steps - 1 for epoch in PUBLISHED])
    assert first == last
    assert first == pytest.approx(list(PUBLISHED.values()), rel=6e-4)  # printed with 4 digits


def test_the_learning_rate_by_step_warms_up_and_ends_low() -> None:
    options = TrainOptions(epochs=10, lr=1e-3, warmup=1, warmup_lr=1e-5, min_lr=1e-6)
    found = rates(options, 100, [0, 50, 100, 500, 999])
    assert found[0] == pytest.approx(1e-5)
    assert found[1] == pytest.approx((1e-5 + 1e-3) / 2)
    assert found[2] == pytest.approx(1e-3, rel=0.03)
    assert found[3] == pytest.approx((1e-3 + 1e-6) / 2, rel=1e-3)
    assert found[4] == pytest.approx(1e-6, abs=1e-7)


def test_a_run_shorter_than_its_warm_up_still_reaches_its_learning_rate() -> None:
    options = TrainOptions(epochs=1, lr=1e-3, warmup=5)
    assert max(rates(options, 10, list(range(10)))) > 5e-4


def test_the_learning_rate_grows_with_the_batch_where_the_recipe_says_so() -> None:
    paper = recipe_changes("paper", "pvt_tiny")
    assert peak_rate(ClassificationOptions(**paper), 1024) == pytest.approx(1e-3)
    assert peak_rate(ClassificationOptions(**paper), 256) == pytest.approx(2.5e-4)
    assert peak_rate(TrainOptions(lr=3e-4), 7) == 3e-4


@pytest.mark.parametrize(
    ("name", "without", "values_without", "with_decay", "values_with"),
    [
        ("pvt_small", 199, 70_376, 102, 24_415_488),
        ("pvt_v2_b2", 220, 90_344, 114, 25_272_512),
    ],
)
def test_weight_decay_leaves_out_what_the_reference_leaves_out(
    name: str, without: int, values_without: int, with_decay: int, values_with: int
) -> None:
    optimizer = build_optimizer(pyramidvit.create_model(name), TrainOptions(weight_decay=0.05), 32)
    groups = {group["weight_decay"]: group["params"] for group in optimizer.param_groups}
    assert {decay: len(params) for decay, params in groups.items()} == {
        0.0: without,
        0.05: with_decay,
    }
    assert sum(p.numel() for p in groups[0.0]) == values_without
    assert sum(p.numel() for p in groups[0.05]) == values_with


def test_only_the_variants_with_high_drop_path_are_clipped_in_the_paper_recipe() -> None:
    clipped = {
        name
        for name in pyramidvit.list_models()
        if recipe_changes("paper", name)["clip_grad"] == 1.0
    }
    assert clipped == {"pvt_medium", "pvt_large", "pvt_v2_b3", "pvt_v2_b4", "pvt_v2_b5"}
