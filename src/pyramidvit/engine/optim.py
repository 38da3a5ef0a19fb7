"""The optimizer and the learning rate's course, from timm's and torch's parts."""

import logging
from collections.abc import Callable
from typing import Any

from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import AdamW

from ..options import TrainOptions


def build_optimizer(model: nn.Module, options: TrainOptions, batch_size: int) -> AdamW:
    """AdamW; the option `decay` says what weight decay is for.

    By default not for biases, other 1-D parameters, and what the model names. Parameters that need
    no gradient are left out. With a layer decay d, the rate of a layer is d ** (layers between it
    and the head); the model's `group_matcher` says what a layer is. With a `backbone_lr`, what is
    named backbone learns at that share of the rate.
    """
    without: set[str] = getattr(model, "no_weight_decay", set)()
    decay = options.weight_decay
    if options.decay != "matrices":
        groups = groups_by_name(model, decay, "" if options.decay == "all" else "norm")
    elif options.layer_decay == 1:
        groups = param_groups_weight_decay(model, decay, no_weight_decay_list=without)
    else:
        groups = param_groups_layer_decay(
            model, decay, no_weight_decay_list=without, layer_decay=options.layer_decay
        )
    if options.backbone_lr != 1:
        groups = slowed(groups, model, options.backbone_lr)
    return AdamW(groups, lr=peak_rate(options, batch_size), fused=True)


def groups_by_name(model: nn.Module, decay: float, without: str) -> list[dict[str, Any]]:
    """Weight decay for every parameter but those whose names contain `without`; "" spares none."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    spared = [p for name, p in named if without and without in name]
    decayed = [p for name, p in named if not without or without not in name]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def slowed(groups: list[dict[str, Any]], model: nn.Module, share: float) -> list[dict[str, Any]]:
    """The same groups, but that the parameters of the backbone have groups of their own."""
    own = {id(p) for name, p in model.named_parameters() if name.startswith("backbone.")}
    parts = []
    for group in groups:
        for scale, within in ((1.0, False), (share, True)):
            chosen = [p for p in group["params"] if (id(p) in own) is within]
            parts.append({**group, "params": chosen, "lr_scale": scale})
    return [part for part in parts if part["params"]]


def peak_rate(options: TrainOptions, batch_size: int) -> float:
    """The learning rate, in proportion to the batch size where the options ask for that."""
    return options.lr * (batch_size / options.lr_batch if options.lr_batch else 1)


def largest_rate(optimizer: Any) -> float:
    """The learning rate of the group that learns fastest: with a layer decay, the head's."""
    return float(max(group["lr"] for group in optimizer.param_groups))


def build_schedule(optimizer: Any, options: TrainOptions, steps: int) -> Callable[[int], None]:
    """Sets the learning rate for an update, by its number: linear warm-up, then the schedule.

    By epoch it is the reference's schedule, which is moved after an epoch with that epoch's number,
    so that the first two epochs both run at `warmup_lr` (classification/main.py). A layer's share
    of the rate (timm's `lr_scale`) is applied to all of it, to `warmup_lr` and `min_lr` too.
    """
    warmup = options.warmup_updates or round(min(options.warmup, options.epochs / 2) * steps)
    if options.schedule != "cosine":
        return lambda step: set_plain_rate(optimizer, options, step, steps, warmup)
    # timm warns that a run of one update has nothing to anneal, which is as it should be.
    logging.getLogger("timm.scheduler").setLevel(logging.ERROR)
    unit = 1 if options.lr_by == "epoch" else steps
    cosine = CosineLRScheduler(
        optimizer,
        t_initial=options.epochs * unit,
        lr_min=options.min_lr,
        warmup_t=warmup if unit == steps else round(warmup / steps),
        warmup_lr_init=options.warmup_lr,
    )
    if options.lr_by == "epoch":
        return lambda step: cosine.step(max(step // steps - 1, 0))
    return lambda step: cosine.step(step)


def set_plain_rate(
    optimizer: Any, options: TrainOptions, step: int, steps: int, warmup: int
) -> None:
    """The rate of an update with schedule step or poly, and before that a straight line up from
    `warmup_lr` to it (mmcv 1.3, lr_updater.py).

    In steps it is a tenth for each epoch of `lr_drops` that is over. With poly it comes down from
    the peak to `min_lr` as (updates left / all updates) ** `poly_power` does.
    """
    drop = 0.1 ** sum(step >= epoch * steps for epoch in options.lr_drops)
    left = (1 - step / (options.epochs * steps)) ** options.poly_power
    for group in optimizer.param_groups:
        peak = group.setdefault("initial_lr", group["lr"])
        poly = options.min_lr + (peak - options.min_lr) * left
        rate = poly if options.schedule == "poly" else peak * drop
        if step < warmup:
            rate = options.warmup_lr + (rate - options.warmup_lr) * step / warmup
        group["lr"] = rate * group.get("lr_scale", 1.0)
