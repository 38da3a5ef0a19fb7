"""A training run: what the loop's functions share, and how it is put together."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from timm.utils import ModelEmaV3
from torch import nn

from .. import __version__
from ..data.source import DataSet, known_labels
from ..errors import UserError
from ..options import TrainOptions
from ..task import Loss, Task
from .freezing import freeze
from .loader import TrainingBatches, Transform, seed_all
from .memory import set_recompute
from .optim import build_optimizer, build_schedule
from .report import Reporter
from .snapshot import Progress

STREAM_INIT, STREAM_STEP, STREAM_MIX = 0, 1, 2  # keep random numbers of different uses apart


@dataclass(kw_only=True)
class Run:
    """A training run.

    Attributes:
        model: As Fabric wraps it; `bare` is the same without the wrapping.
        frozen: The parts of `bare` none of whose parameters are trained.
        averaged: The moving average of the weights, where the options ask for one.
        batches: Which samples each update of this process takes.
        transform: From a sample to an augmented one.
        loss: From outputs and a batch to named scalars.
        set_rate: Sets the learning rate for an update, by its number.
        input_record: What the checkpoints say of the model's input.
        record: What else they say: task, model, classes, data.
        progress: Where the run stands.
        folder: Where everything is written.
    """

    task: Task
    options: TrainOptions
    data: DataSet
    fabric: Fabric
    reporter: Reporter
    model: Any
    bare: nn.Module
    frozen: tuple[nn.Module, ...]
    optimizer: Any
    averaged: ModelEmaV3 | None
    batches: TrainingBatches
    transform: Transform
    loss: Loss
    set_rate: Callable[[int], None]
    input_record: dict[str, Any]
    record: dict[str, Any]
    progress: Progress
    folder: Path

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        return {
            "model": self.record["model"],
            "classes": self.record["classes"],
            "training images": len(self.data.splits["train"]),
            "updates an epoch": self.batches.steps,
            "averaged weights": self.averaged is not None,
        }

    @property
    def judged(self) -> nn.Module:
        """The weights that are evaluated and kept: the averaged ones, where there are any."""
        return self.bare if self.averaged is None else self.averaged.module


def build_run(
    task: Task,
    options: TrainOptions,
    data: DataSet,
    fabric: Fabric,
    reporter: Reporter,
) -> Run:
    """Builds model, optimizer and schedule; nothing is written yet.

    Raises:
        UserError: An unknown model, a checkpoint that does not fit, too few images.
    """
    labels = known_labels(data.splits["train"])
    batches = TrainingBatches(
        len(data.splits["train"]),
        options.batch_size,
        seed=options.seed,
        repeats=options.repeats,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
        groups=task.draw_evenly(options, labels),
        pairs=task.mixes_pairs,
    )
    if not len(data.splits["validation"]):
        raise UserError(f"{data.name} has no validation images")
    transform = task.train_transform(options)
    loss = task.loss(options, labels, data.classes)
    seed_all(options.seed, STREAM_INIT)
    bare = task.build_model(options, data.classes)
    bare.to(memory_format=torch.channels_last)  # as the gradients of convolutions come out
    frozen = freeze(bare, task.frozen(options, bare))
    optimizer = build_optimizer(bare, options, batches.batch_size)
    model, optimizer = fabric.setup(bare, optimizer)
    set_recompute(bare, options, fabric, reporter)
    averaged = ModelEmaV3(bare, decay=options.ema, use_warmup=True) if options.ema else None
    input_record = task.describe_input(options)
    return Run(
        task=task,
        options=options,
        data=data,
        fabric=fabric,
        reporter=reporter,
        model=model,
        bare=bare,
        frozen=frozen,
        optimizer=optimizer,
        averaged=averaged,
        batches=batches,
        transform=transform,
        loss=loss,
        set_rate=build_schedule(optimizer, options, batches.steps),
        input_record=input_record,
        record={
            "version": __version__,
            "task": task.name,
            "model": task.describe_model(options, data.classes),
            "classes": data.classes.to_records(),
            "input": input_record,
            "data": options.data or data.name,
            "options": asdict(options),
        },
        progress=Progress(),
        folder=Path(),
    )
