"""Fine-tuning: what is frozen stays as it is, layers learn at their own rates, classes are drawn
equally often, and a run that stands still ends."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pyramidvit
from pyramidvit.cli.tasks import TASKS
from pyramidvit.data.digits import load_digit_data
from pyramidvit.data.source import Source, Subset
from pyramidvit.engine import train
from pyramidvit.engine.device import build_fabric
from pyramidvit.engine.freezing import freeze, set_training_mode
from pyramidvit.engine.loader import TrainingBatches, epoch_order, even_draw, training_loader
from pyramidvit.engine.optim import build_optimizer, build_schedule, largest_rate
from pyramidvit.engine.report import Reporter
from pyramidvit.engine.run import Run, build_run
from pyramidvit.options import TrainOptions
from pyramidvit.tasks.classification.config import ClassificationOptions, recipe_changes
from pyramidvit.tasks.classification.frozen import frozen

OPTIONS = ClassificationOptions(
    **{
        **recipe_changes("digits", "pvt_v2_b0"),
        "batch_size": 20,
        "epochs": 2,
        "warmup": 0.5,
        "workers": 0,
        "checkpoint_steps": 1,
    }
)


@pytest.fixture(autouse=True)
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables and pictures after an epoch take seconds, and have tests of their own."""
    monkeypatch.setattr(train, "write_epoch", lambda *_: None)


def make_run(folder: Path, options: ClassificationOptions) -> Run:
    """A run on 40 digits, two updates an epoch, with 20 others for validation."""
    folder.mkdir(exist_ok=True)
    data = load_digit_data(seed=0)
    few = {"train": tuple(range(40)), "validation": tuple(range(20))}
    splits: dict[str, Source] = {k: Subset(data.splits[k], few[k]) for k in few}
    fabric = build_fabric("cpu", 1, options.precision)
    task = TASKS["classification"]
    run = build_run(task, options, replace(data, splits=splits), fabric, Reporter(speaks=True))
    run.folder = folder
    return run


def train_an_epoch(run: Run) -> None:
    """The updates of an epoch, without evaluating and writing anything."""
    loader = training_loader(
        run.data.splits["train"], run.transform, run.batches, seed=run.options.seed, workers=0
    )
    mix = run.task.mix(run.options, len(run.data.classes))
    for delivery in loader:
        train.train_step(run, delivery, mix)


# Layer decay


def scales(name: str, decay: float) -> dict[str, float]:
    """The share of the learning rate that each parameter of a model gets."""
    model = pyramidvit.create_model(name)
    optimizer = build_optimizer(model, TrainOptions(layer_decay=decay), 32)
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return {name: group_of[id(p)]["lr_scale"] for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["pvt_v2_b0", "pvt_tiny"])
def test_each_layer_has_the_rate_of_the_next_times_the_decay(name: str) -> None:
    found = scales(name, 0.5)
    assert found["head.weight"] == 1
    assert found["norm4.weight" if "v2" in name else "norm.weight"] == 1
    for stage in range(1, 5):
        for block in range(2):  # eight blocks in all
            layers_above = 8 - (2 * (stage - 1) + block)
            assert found[f"block{stage}.{block}.mlp.fc1.weight"] == 0.5**layers_above
    # A patch embedding goes with the first block of its stage, but for the stem, which is a layer.
    for stage, share in ((1, 0.5**9), (2, 0.5**6), (3, 0.5**4), (4, 0.5**2)):
        assert found[f"patch_embed{stage}.proj.weight"] == share
        assert found.get(f"pos_embed{stage}", share) == share


def test_layers_keep_their_shares_through_warm_up_and_cosine() -> None:
    options = TrainOptions(layer_decay=0.8, epochs=10, lr=1e-3, warmup=2, warmup_lr=1e-5)
    optimizer = build_optimizer(pyramidvit.create_model("pvt_v2_b0"), options, 32)
    plain = torch.optim.AdamW(nn.Linear(2, 2).parameters(), lr=1e-3)
    set_rate, set_plain = (build_schedule(o, options, 10) for o in (optimizer, plain))
    for step in (0, 7, 20, 60, 99):
        set_rate(step)
        set_plain(step)
        rate = plain.param_groups[0]["lr"]
        assert largest_rate(optimizer) == rate
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(rate * group["lr_scale"], rel=1e-12)
        lowest = min(group["lr"] for group in optimizer.param_groups)
        assert lowest == pytest.approx(rate * 0.8**9)


def test_weight_decay_falls_on_the_same_parameters_with_a_layer_decay() -> None:
    model = pyramidvit.create_model("pvt_tiny")
    decayed = []
    for layer_decay in (1.0, 0.7):
        options = TrainOptions(layer_decay=layer_decay, weight_decay=0.05)
        groups = build_optimizer(model, options, 32).param_groups
        chosen = [group for group in groups if group["weight_decay"] == 0.05]
        decayed.append({id(p) for group in chosen for p in group["params"]})
    assert decayed[0] == decayed[1] != set()


@pytest.mark.parametrize("decay", ["matrices", "all", "not_norms"])
def test_a_backbone_learns_at_its_share_of_the_rate_and_decays_as_before(decay: str) -> None:
    model = nn.ModuleDict(
        {part: nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)) for part in ("backbone", "head")}
    )
    common = {"decay": decay, "weight_decay": 0.05, "epochs": 4, "warmup": 1, "warmup_lr": 1e-5}
    plain, slow = (
        build_optimizer(model, TrainOptions(backbone_lr=share, **common), 8) for share in (1.0, 0.1)
    )
    for optimizer in (plain, slow):
        set_rate = build_schedule(optimizer, TrainOptions(**common), 10)
        set_rate(7)
    groups = [
        {id(p): group for group in optimizer.param_groups for p in group["params"]}
        for optimizer in (plain, slow)
    ]
    for name, parameter in model.named_parameters():
        before, after = (found[id(parameter)] for found in groups)
        share = 0.1 if name.startswith("backbone.") else 1.0
        assert after["lr"] == pytest.approx(before["lr"] * share, rel=1e-12)
        assert after["weight_decay"] == before["weight_decay"]


# Freezing


def trained_names(name: str, **options: Any) -> set[str]:
    model = pyramidvit.create_model(name, num_classes=3)
    freeze(model, frozen(ClassificationOptions(**options), model))
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", ["pvt_v2_b0", "pvt_tiny"])
def test_freezing_takes_whole_stages_from_the_first_on(name: str) -> None:
    everything = {name for name, _ in pyramidvit.create_model(name).named_parameters()}
    head = {"head.weight", "head.bias"}
    last_norm = {"norm4.weight", "norm4.bias"} if "v2" in name else {"norm.weight", "norm.bias"}
    assert trained_names(name) == everything
    assert trained_names(name, freeze=4) == head | last_norm
    assert trained_names(name, probe=True) == head
    assert trained_names(name, probe=True, freeze=2) == head
    for stages in (1, 2, 3):
        parts = ("patch_embed", "pos_embed", "block", "norm")
        begins = tuple(f"{part}{stage}" for part in parts for stage in range(1, stages + 1))
        expected = {name for name in everything if not name.startswith(begins)}
        assert trained_names(name, freeze=stages) == expected


def test_frozen_parts_are_in_evaluation_mode_and_the_rest_is_not() -> None:
    model = pyramidvit.create_model("pvt_v2_b0", drop_path_rate=0.5)
    parts = freeze(model, frozen(ClassificationOptions(freeze=2), model))
    set_training_mode(model, parts)
    for name, module in model.named_modules():
        stage = next((c for c in name.split(".")[0] if c.isdigit()), "5")
        assert module.training == (int(stage) > 2), name


def test_features_below_a_probe_know_no_drop_path() -> None:
    model = pyramidvit.create_model("pvt_v2_b0", drop_path_rate=0.9)
    images = torch.randn(2, 3, 32, 32)
    parts = freeze(model, frozen(ClassificationOptions(probe=True), model))
    set_training_mode(model, parts)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


@pytest.mark.parametrize(
    "changes", [{"freeze": 2, "layer_decay": 0.8}, {"freeze": 4}, {"probe": True}]
)
@pytest.mark.parametrize("model", ["pvt_v2_b0", "pvt_tiny"])
def test_what_is_frozen_is_the_same_to_the_last_bit_after_training(
    tmp_path: Path, model: str, changes: dict[str, Any]
) -> None:
    options = replace(OPTIONS, model=model, epochs=1, ema=0.5, drop_path_rate=0.2, **changes)
    run = make_run(tmp_path, options)
    before = {name: value.clone() for name, value in run.bare.state_dict().items()}
    train_an_epoch(run)
    still = frozen(options, run.bare)
    assert run.averaged is not None
    for weights in (run.bare, run.averaged.module):
        for name, value in weights.state_dict().items():
            assert torch.equal(value, before[name]) == (name in still), name
    in_optimizer = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    for name, parameter in run.bare.named_parameters():
        assert (parameter.grad is None) == (name in still)
        assert (id(parameter) not in in_optimizer) == (name in still)


# Even drawing


@given(
    groups=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    seed=st.integers(0, 5),
    epochs=st.integers(1, 5),
)
@settings(max_examples=100, deadline=None)
def test_groups_and_samples_of_a_group_are_drawn_equally_often(
    groups: list[int], seed: int, epochs: int
) -> None:
    drawn = []
    for epoch in range(epochs):
        stretch = even_draw(groups, seed=seed, epoch=epoch)
        assert len(stretch) == len(groups)
        counts = [Counter(groups[i] for i in stretch)[group] for group in set(groups)]
        assert max(counts) - min(counts) <= 1
        drawn += stretch
    counts = [Counter(groups[i] for i in drawn)[group] for group in set(groups)]
    assert max(counts) - min(counts) <= 1
    times = Counter(drawn)
    for group in set(groups):
        own = [times[i] for i, other in enumerate(groups) if other == group]
        assert max(own) - min(own) <= 1


GROUPS = [0] * 300 + [1] * 20 + [2] * 5


def batches(**options: Any) -> TrainingBatches:
    settings = {"seed": 3, "repeats": 1, "rank": 0, "ranks": 1, "groups": GROUPS} | options
    return TrainingBatches(len(GROUPS), 32, **settings)


def test_an_even_epoch_is_as_long_as_a_natural_one_and_shuffled() -> None:
    even, natural = batches(), batches(groups=None)
    assert (even.steps, even.batch_size) == (natural.steps, natural.batch_size)
    order = even.order()
    assert len(order) == len(natural.order())
    assert natural.order() == epoch_order(len(GROUPS), seed=3, epoch=0, repeats=1)
    assert Counter(GROUPS[i] for i in order) in ({0: 109, 1: 108, 2: 108}, {0: 108, 1: 108, 2: 109})
    # A third of any stretch is of each group, give or take what chance does.
    assert all(5 < Counter(GROUPS[i] for i in order[:60])[group] < 40 for group in (0, 1, 2))
    assert order != sorted(order)


def test_an_even_order_follows_from_seed_and_epoch() -> None:
    first, again, other_seed, later = batches(), batches(), batches(seed=4), batches()
    later.epoch = 1
    assert first.order() == again.order()
    assert first.order() != other_seed.order()
    assert first.order() != later.order()


def test_an_even_order_is_shared_and_cut_off_as_a_natural_one() -> None:
    alone = batches()
    whole = list(alone)
    alone.start = 4
    assert list(alone) == whole[4:]
    shares = [list(batches(rank=rank, ranks=2)) for rank in (0, 1)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert sorted(batch) == sorted(first + second)


def test_even_drawing_goes_with_repeated_augmentation() -> None:
    order = batches(repeats=3).order()
    assert len(order) == 256  # 325 rounded down to a multiple of 256
    assert all(len(set(order[i : i + 3])) == 1 for i in range(0, 255, 3))
    counts = Counter(GROUPS[i] for i in order)
    assert min(counts.values()) > 40


# Early end, and going on


def test_a_run_that_stands_still_ends_early_and_is_then_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = {"lr": 0.0, "min_lr": 0.0, "warmup_lr": 0.0, "patience": 2, "epochs": 9}
    run = make_run(tmp_path, replace(OPTIONS, **still))
    assert not train.is_done(run)
    train.fit(run)
    assert [row["epoch"] for row in run.progress.history] == [1, 2, 3]
    said = "early, after epoch 3 of 9: no better top1 since epoch 1 (--patience 2)"
    assert capsys.readouterr().out.count(said) == 1

    resumed = make_run(tmp_path, replace(OPTIONS, **still))
    train.resume(resumed)
    assert train.is_done(resumed)
    before = (tmp_path / "state.pt").read_bytes()
    train.fit(resumed)
    assert resumed.progress.step == run.progress.step
    assert (tmp_path / "state.pt").read_bytes() == before
    assert said in capsys.readouterr().out


def test_patience_counts_from_the_first_of_equal_bests_and_leaves_the_schedule_alone(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path, replace(OPTIONS, epochs=10, patience=3))
    patient = make_run(tmp_path, replace(OPTIONS, epochs=10))
    figures = [10.0, 30.0, 20.0, 30.0]
    stalled = []
    for epoch in range(len(figures) + 1):
        run.progress.history = [{"top1": figure} for figure in figures[:epoch]]
        stalled.append(train.has_stalled(run))
    assert stalled == [False] * 5
    run.progress.history = [{"top1": figure} for figure in [*figures, 29.0]]
    assert train.has_stalled(run)
    assert train.best_epoch(run) == 2
    patient.progress.history = run.progress.history
    assert not train.has_stalled(patient)
    run.progress.history = [{"top1": 50.0}] * 10
    assert not train.has_stalled(run), "a run that reached its last epoch did not end early"
    for r in (run, patient):
        r.set_rate(9)
    assert largest_rate(run.optimizer) == largest_rate(patient.optimizer)


def test_a_fine_tuning_that_was_cut_off_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(
        OPTIONS,
        freeze=1,
        layer_decay=0.7,
        sampling="balanced",
        class_weights="balanced",
        ema=0.9,
        drop_path_rate=0.2,
        mixup=0.4,
        patience=5,
    )
    whole = make_run(tmp_path / "whole", options)
    train.fit(whole)
    assert whole.progress.step == 4

    cut = make_run(tmp_path / "cut", options)
    one_step = train.train_step

    def die_at_the_fourth(run: Run, *rest: Any) -> dict[str, float]:
        if run.progress.step == 3:
            raise KeyboardInterrupt
        return one_step(run, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_step", die_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            train.fit(cut)
    resumed = make_run(tmp_path / "cut", options)
    train.resume(resumed)
    train.fit(resumed)
    for name, value in whole.judged.state_dict().items():
        assert torch.equal(value, resumed.judged.state_dict()[name]), name
    steps = [(tmp_path / folder / "steps.csv").read_text() for folder in ("whole", "cut")]
    assert steps[0] == steps[1]


def test_the_table_of_a_run_says_the_rate_of_the_head(tmp_path: Path) -> None:
    rates = []
    for decay in (1.0, 0.5):
        run = make_run(tmp_path / str(decay), replace(OPTIONS, epochs=1, layer_decay=decay))
        train.fit(run)
        rates.append(run.progress.history[0]["lr"])
        assert min(g["lr"] for g in run.optimizer.param_groups) == pytest.approx(
            rates[0] * decay**9
        )
    assert rates[0] == rates[1]
