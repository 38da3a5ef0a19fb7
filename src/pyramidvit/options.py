"""Options that every task's training has; a task's own options extend them.

Nothing heavy is imported here, so that help and mistakes are answered at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import UserError


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training run.

    Args:
        data: Folder of the data; without it, the handwritten digits that scikit-learn ships.
        model: Name of the model, see `pvt models`.
        pretrained: Checkpoint to start from.
        recipe: Named settings, see `pvt train --help`; any other option overrides its part.
        epochs: Passes over the training images.
        batch_size: Images an update, over all processes together.
        lr: Peak learning rate, at `lr_batch` images an update.
        lr_batch: Batch size that `lr` is meant for: lr grows in proportion; 0 takes lr as it is.
        min_lr: Learning rate at the end.
        warmup: Epochs of linear warm-up from `warmup_lr`, at most half of all epochs.
        warmup_lr: Learning rate at the first update.
        lr_by: Moves the learning rate every "step" or every "epoch".
        schedule: "cosine" from `lr` to `min_lr`, "step": a tenth from each of `lr_drops` on, or
            "poly": from `lr` to `min_lr` with the power `poly_power` of what is left to do.
        lr_drops: Epochs after which the learning rate drops to a tenth, with schedule step.
        poly_power: Power of schedule poly; 1 is a straight line.
        warmup_updates: Updates of linear warm-up from `warmup_lr`; 0 takes `warmup` epochs.
        weight_decay: AdamW's, on the weights that `decay` says.
        decay: What weight decay is for: "matrices" (two or more dimensions), "all", or
            "not_norms" (all whose names do not contain norm).
        layer_decay: Factor on the learning rate from each layer to the one before it, so that
            early layers learn slower than the head; 1 treats all alike.
        backbone_lr: Learning rate of a detector's or a segmenter's backbone, as a share of all
            other parts'.
        freeze: Stages from the first on, 0 to 4, whose weights stay as they are.
        accumulate: Parts in which a batch is computed, one after the other, to save memory.
        recompute: What the backward pass computes again, to save memory: "none", "feed_forward"
            (the widest part of each block), "blocks", or "auto": the first of these with which the
            activations fit into `memory_budget`.
        memory_budget: GiB that a backbone's kept activations may take, with recompute auto.
        grad_checkpointing: The same as `recompute` blocks, under its older name.
        clip_grad: Largest norm of the gradient; 0 leaves it alone.
        ema: Decay of the averaged weights that are then evaluated and kept; 0 for none.
        patience: Epochs without a better best figure after which training stops; 0 never stops.
        seed: Decides initial weights, order, augmentation and held-out images.
        device: "auto", "cpu", "cuda" or "mps".
        devices: Processes on this machine, one a device; torchrun's count wins.
        precision: "float32", "bf16" for mixed precision, or "auto": bf16 where the device computes
            with it natively.
        workers: Image-reading processes for each training process; -1 decides by the machine.
        repeats: Times that an epoch draws each image (repeated augmentation).
        checkpoint_steps: Updates between snapshots inside an epoch, for --resume.
        max_broken: Share of unreadable images that is skipped before training is refused.
        output: Run folder to create; without it, runs/<data>-<model>-<number>.
    """

    data: str | None = None
    model: str = "pvt_v2_b0"
    pretrained: str | None = None
    recipe: str = "auto"
    epochs: int = 30
    batch_size: int = 32
    lr: float = 5e-4
    lr_batch: int = 0
    min_lr: float = 1e-6
    warmup: float = 2.0
    warmup_lr: float = 1e-6
    lr_by: Literal["step", "epoch"] = "step"
    schedule: Literal["cosine", "step", "poly"] = "cosine"
    lr_drops: tuple[int, ...] = ()
    poly_power: float = 0.9
    warmup_updates: int = 0
    weight_decay: float = 0.05
    decay: Literal["matrices", "all", "not_norms"] = "matrices"
    layer_decay: float = 1.0
    backbone_lr: float = 1.0
    freeze: int = 0
    accumulate: int = 1
    recompute: Literal["none", "feed_forward", "blocks", "auto"] = "none"
    memory_budget: float = 0.0
    grad_checkpointing: bool = False
    clip_grad: float = 1.0
    ema: float = 0.0
    patience: int = 0
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    precision: Literal["float32", "bf16", "auto"] = "float32"
    workers: int = -1
    repeats: int = 1
    checkpoint_steps: int = 500
    max_broken: float = 0.05
    output: str | None = None


def is_embedded(data: str | None) -> bool:
    """Whether a place of data means what is made of the digits that come with a dependency."""
    return data is None or (data in ("digits", "scenes") and not Path(data).exists())


def check_train_options(options: TrainOptions) -> None:
    """Refuses numbers out of range, before any work is done.

    Raises:
        UserError: Naming the option, what it must be and what it is.
    """
    for name in ("epochs", "batch_size", "devices", "repeats", "checkpoint_steps"):
        require(options, name, getattr(options, name) >= 1, "1 or more")
    for name in (
        "lr",
        "min_lr",
        "warmup",
        "warmup_lr",
        "weight_decay",
        "clip_grad",
        "lr_batch",
        "warmup_updates",
        "seed",
        "patience",
    ):
        require(options, name, getattr(options, name) >= 0, "0 or more")
    for name in ("ema", "max_broken"):
        require(options, name, 0 <= getattr(options, name) < 1, "from 0 to below 1")
    drops = options.lr_drops
    ascending = all(a < b for a, b in zip((0, *drops), drops, strict=False))
    require(options, "lr_drops", ascending, "epochs from 1 up, in ascending order")
    require(options, "poly_power", options.poly_power > 0, "above 0")
    whole = options.accumulate >= 1 and options.batch_size % options.accumulate == 0
    require(options, "accumulate", whole, f"a divisor of the batch size {options.batch_size}")
    same = options.layer_decay == 1 or options.decay == "matrices"
    require(options, "decay", same, '"matrices" together with --layer_decay')
    require(options, "workers", options.workers >= -1, "-1 or more")
    named = not options.grad_checkpointing or options.recompute in ("none", "blocks")
    require(options, "recompute", named, "blocks, or left out, together with --grad_checkpointing")
    budgeted = (options.recompute == "auto") == (options.memory_budget > 0)
    must = "above 0 with --recompute auto, and 0 without it"
    require(options, "memory_budget", budgeted, must)
    for name in ("layer_decay", "backbone_lr"):
        require(options, name, 0 < getattr(options, name) <= 1, "from above 0 to 1")
    require(options, "freeze", 0 <= options.freeze <= 4, "from 0 to 4")


def require(options: object, name: str, holds: bool, must: str) -> None:
    if not holds:
        raise UserError(f"--{name} must be {must}, got {getattr(options, name)}")
