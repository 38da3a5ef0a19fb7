"""Plans against what follows from a model, and against what a run really keeps."""

from dataclasses import replace
from functools import cache
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from pyramidvit import create_model
from pyramidvit.costs.machine import (
    Kind,
    describe_machine,
    estimate,
    kind_of,
    measure_machine,
)
from pyramidvit.costs.plan import RECOMPUTATIONS, RUNTIME, Plan, Setting, loss_of, plan

TRAINING = Setting(model="pvt_v2_b0", size=(64, 64), batch=4, use="training")


@cache
def plan_once(setting: Setting) -> Plan:
    return plan(setting)


def activations(setting: Setting) -> float:
    """Bytes of gradients and activations, as tensors ask for them."""
    planned = plan_once(setting)
    beyond = planned.memory - RUNTIME[setting.precision] - planned.fixed
    return beyond / RECOMPUTATIONS[setting.recompute].heap


def kept_bytes(setting: Setting) -> int:
    """What autograd keeps of a real forward pass beside parameters, each storage once."""
    torch.manual_seed(0)
    model: Any = create_model(setting.model).train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of(model(torch.randn(setting.batch, 3, *setting.size)))
    return sum(kept.values())


def test_weights_and_moments_are_counted_once_each() -> None:
    numbers = sum(p.numel() for p in create_model("pvt_v2_b0").parameters())
    assert plan_once(TRAINING).fixed == 3 * 4 * numbers
    inference = plan_once(replace(TRAINING, use="inference"))
    assert inference.fixed == 4 * numbers
    assert inference.parameters == numbers
    assert inference.attention < inference.macs


def test_training_holds_at_least_what_autograd_keeps() -> None:
    planned = plan_once(TRAINING)
    activations = (planned.memory - RUNTIME["float32"] - planned.fixed) / RECOMPUTATIONS[
        "none"
    ].heap
    kept = kept_bytes(TRAINING)
    # At the worst moment some gradients are there, and not everything that was kept.
    assert kept < activations < kept + planned.fixed / 3 + 0.2 * kept


def test_recomputation_and_bf16_take_less_and_a_larger_batch_more() -> None:
    plain, large = activations(TRAINING), activations(replace(TRAINING, batch=32))
    assert 4 * plain < large < 8 * plain
    for recompute in ("feed_forward", "blocks"):
        assert activations(replace(TRAINING, batch=32, recompute=recompute)) < 0.6 * large
    assert activations(replace(TRAINING, batch=32, precision="bf16")) < 0.8 * large


def test_seconds_follow_the_slower_of_arithmetic_and_bytes() -> None:
    planned = plan_once(replace(TRAINING, use="inference"))
    slow = describe_machine("cpu", {"float32": 1e9, "bf16": 1e9}, 1e15)
    computed = estimate(planned.operations, slow)
    assert computed > planned.macs * TRAINING.batch / 1e9
    narrow = describe_machine("cpu", {"float32": 1e15, "bf16": 1e15}, 1e9)
    moved = estimate(planned.operations, narrow)
    assert moved > 4 * planned.parameters / 1e9
    both = describe_machine("cpu", {"float32": 1e9, "bf16": 1e9}, 1e9)
    assert max(computed, moved) < estimate(planned.operations, both) < computed + moved


def test_a_measured_cpu_has_a_rate_for_every_kind_of_operation() -> None:
    machine = measure_machine("cpu")
    kinds = {(kind, precision) for kind in get_args(Kind) for precision in ("float32", "bf16")}
    assert set(machine.rates) == kinds
    assert all(0 < rate < float("inf") for rate in machine.rates.values())
    operations = plan_once(TRAINING).operations
    assert {kind_of(operation) for operation in operations} == set(get_args(Kind))
    for operation in operations:
        assert bool(operation.macs) is (kind_of(operation) not in ("functions", "moves"))


def test_large_blocks_that_the_system_fills_with_zeros_take_longer() -> None:
    setting = Setting(model="pvt_v2_b0", size=(224, 224), batch=16)
    operations = plan_once(setting).operations
    large = sum(operation.large for operation in operations)
    # 16 images of 3136 tokens with 256 hidden channels: three such tensors in both first blocks
    assert large == 2 * 3 * 16 * 3136 * 256 * 4
    machine = describe_machine("cpu", {"float32": 1e9, "bf16": 1e9}, 1e9)
    slower = estimate(operations, replace(machine, zeroing=1e-9))
    assert slower - estimate(operations, machine) == pytest.approx(large * 1e-9)
    small = plan_once(replace(setting, batch=1)).operations
    assert not any(operation.large for operation in small)


def test_training_computes_about_three_times_as_much() -> None:
    looks = plan_once(replace(TRAINING, use="inference")).operations
    learns = plan_once(TRAINING).operations
    again = plan_once(replace(TRAINING, recompute="blocks")).operations
    halves = plan_once(replace(TRAINING, recompute="feed_forward")).operations
    once = sum(operation.macs for operation in looks)
    assert once == pytest.approx(plan_once(TRAINING).macs * TRAINING.batch, rel=0.01)
    assert sum(operation.macs for operation in learns) == pytest.approx(3 * once, rel=0.1)
    assert sum(operation.macs for operation in again) == pytest.approx(4 * once, rel=0.1)
    # the first layers of early stages and all depth-wise convolutions again, oneDNN's included
    assert 3.1 * once < sum(operation.macs for operation in halves) < 3.6 * once
