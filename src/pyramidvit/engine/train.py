"""The training loop, the same for every task, on Lightning Fabric.

Fabric and not the Trainer: the loop fits on a page, and since order, augmentation and drop path
follow from (seed, step) alone, going on in the middle of an epoch needs the step number, the
weights and the optimizer's moments, and nothing of the loop's inner state.
"""

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from ..errors import UserError
from ..structures import Batch, cut_batch
from .broken import BrokenImages
from .device import reading_processes
from .evaluate import evaluate
from .freezing import set_training_mode
from .loader import Delivery, seed_all, training_loader
from .optim import largest_rate
from .outputs import cut_steps, write_epoch, write_step
from .run import STREAM_MIX, STREAM_STEP, Run
from .snapshot import load_snapshot, save_snapshot

EVALUATION_BATCH = 128
Mix = Callable[[Batch[Any]], Batch[Any]]


def fit(run: Run) -> None:
    """Trains from where the run stands to its last epoch, evaluating and saving after each.

    It ends before that where the best figure has not risen for `patience` epochs, and says so; the
    learning rate is planned for all epochs nonetheless.

    Raises:
        UserError: Too many unreadable images, a loss that is not finite, a full disk.
    """
    options, progress, steps = run.options, run.progress, run.batches.steps
    ranks = run.fabric.world_size
    workers = reading_processes(options.workers, in_memory=run.data.in_memory, ranks=ranks)
    source = run.data.splits["train"]
    loader = training_loader(
        source,
        run.transform,
        run.batches,
        seed=options.seed,
        workers=workers,
        divisor=run.task.divisor,
    )
    mix = run.task.mix(options, len(run.data.classes))
    broken = BrokenImages(run.reporter, len(source), options.max_broken)
    broken.seen = progress.broken
    unseen = BrokenImages(run.reporter, len(run.data.splits["validation"]), options.max_broken)
    writer = SummaryWriter(run.folder, purge_step=progress.step) if run.reporter.speaks else None

    if not progress.step:
        save_state(run)  # so that a run cut off at any time can go on

    for epoch in range(len(progress.history), options.epochs):
        if has_stalled(run):
            break
        run.batches.epoch, run.batches.start = epoch, progress.step - epoch * steps
        started, first = time.perf_counter(), progress.step
        with run.reporter.progress(f"epoch {epoch + 1}/{options.epochs}", steps) as bar:
            for delivery in loader:
                broken.note(delivery.broken)
                if ranks == 1:
                    broken.check()
                row = train_step(run, delivery, mix)
                speed = images_per_second(run, first, started)
                figures = f"loss {row['loss']:.3f}  {speed:.0f} images/s"
                bar.advance(figures, to=progress.step - epoch * steps)
                if writer is not None:
                    write_step(run, row, writer)
                if progress.step % options.checkpoint_steps == 0:
                    save_state(run)
        speed = images_per_second(run, first, started)
        broken.share(ranks)
        save_state(run)  # an evaluation that fails, on a broken image say, costs no training
        finish_epoch(run, epoch, speed, workers, unseen, writer)
    if writer is not None:
        writer.close()
    if has_stalled(run):
        run.reporter.say("stopped", stall(run))


def is_done(run: Run) -> bool:
    """Whether nothing is left to train."""
    return len(run.progress.history) >= run.options.epochs or has_stalled(run)


def has_stalled(run: Run) -> bool:
    """Whether a run ends before its last epoch, for want of a better figure."""
    done, patience = len(run.progress.history), run.options.patience
    return bool(patience) and done < run.options.epochs and done - best_epoch(run) >= patience


def best_epoch(run: Run) -> int:
    """The first epoch with the best figure, from 1; 0 before any."""
    figures = [row[run.task.best] for row in run.progress.history]
    return figures.index(max(figures)) + 1 if figures else 0


def stall(run: Run) -> str:
    """What a run says that stopped early."""
    return (
        f"early, after epoch {len(run.progress.history)} of {run.options.epochs}: no better"
        f" {run.task.best} since epoch {best_epoch(run)} (--patience {run.options.patience})"
    )


def images_per_second(run: Run, first: int, started: float) -> float:
    seconds = time.perf_counter() - started
    return (run.progress.step - first) * run.batches.batch_size / seconds


def train_step(run: Run, delivery: Delivery, mix: Mix) -> dict[str, float]:
    """One forward, one backward, one update; returns loss, gradient norm and learning rate."""
    progress, options, fabric = run.progress, run.options, run.fabric
    if delivery.batch is None:
        raise UserError("none of the training images can be read")
    seed_all(options.seed, STREAM_MIX, progress.step)  # alike in all processes
    batch = mix(delivery.batch.to(fabric.device))
    seed_all(options.seed, STREAM_STEP, progress.step, fabric.global_rank)

    run.set_rate(progress.step)
    set_training_mode(run.model, run.frozen)
    run.optimizer.zero_grad()
    loss = mean_over_processes(fabric, add_gradients(run, batch))
    check_finite(run, "loss", loss)
    norm = nn.utils.clip_grad_norm_(run.bare.parameters(), options.clip_grad or math.inf)
    check_finite(run, "gradient norm", float(norm))
    run.optimizer.step()

    progress.step += 1
    progress.loss_sum += loss
    if run.averaged is not None:
        run.averaged.update(run.bare, step=progress.step)
    rate = largest_rate(run.optimizer)
    return {"step": progress.step, "loss": loss, "grad_norm": float(norm), "lr": rate}


def add_gradients(run: Run, batch: Batch[Any]) -> Tensor:
    """The loss of a batch, whose gradients are added part by part; each part counts by its size."""
    count, parts = len(batch.images), run.options.accumulate
    bounds = [count * k // parts for k in range(parts + 1)]
    pieces = [(a, b) for a, b in itertools.pairwise(bounds) if b > a]
    losses = []
    for start, end in pieces:
        part = cut_batch(batch, start, end) if len(pieces) > 1 else batch
        with run.fabric.no_backward_sync(run.model, enabled=end < count):
            outputs = run.task.forward(run.model, part, True)
            total = torch.stack(list(run.loss(outputs, part).values())).sum()
            total = total * ((end - start) / count)
            run.fabric.backward(total)
        losses.append(total.detach())
    return torch.stack(losses).sum()


def mean_over_processes(fabric: Fabric, value: Tensor) -> float:
    if fabric.world_size == 1:
        return float(value)
    reduced = fabric.all_reduce(value, reduce_op="mean")
    assert isinstance(reduced, Tensor)
    return float(reduced)


def check_finite(run: Run, name: str, value: float) -> None:
    """Stops before an update that would spoil the weights."""
    if not math.isfinite(value):
        raise UserError(
            f"training stopped before update {run.progress.step + 1}: the {name} is {value}; the"
            f" last snapshot in {run.folder} is sound: try a lower --lr, --clip_grad 1, or float32"
        )


def finish_epoch(
    run: Run,
    epoch: int,
    speed: float,
    workers: int,
    broken: BrokenImages,
    writer: SummaryWriter | None,
) -> None:
    """Evaluates, and has everything written."""
    progress, best = run.progress, run.task.best
    result = evaluate(
        run.fabric,
        run.task,
        run.judged,
        run.data.splits["validation"],
        run.data.classes,
        run.input_record,
        batch_size=min(run.options.batch_size, EVALUATION_BATCH),
        workers=workers,
        reporter=run.reporter,
        broken=broken,
        show=run.task.shown,
    )
    progress.history.append(
        {
            "epoch": epoch + 1,
            "step": progress.step,
            "lr": largest_rate(run.optimizer),
            "train_loss": progress.loss_sum / run.batches.steps,
            **result.figures,
            "images_per_second": round(speed, 1),
        }
    )
    progress.loss_sum = 0.0
    # The first epoch always: a figure that nothing in the data can give is NaN, and beats nothing.
    is_best = epoch == 0 or result.figures[best] > progress.best
    progress.best = max(progress.best, result.figures[best])
    if writer is not None:
        write_epoch(run, result, is_best, writer)
    save_state(run)
    run.fabric.barrier()


def save_state(run: Run) -> None:
    """Writes the snapshot that `resume` goes on from; only the first process does."""
    if not run.reporter.speaks:
        return
    parts: dict[str, Any] = {"identity": run.identity, "model": run.bare.state_dict()}
    parts["optimizer"] = run.optimizer.state_dict()
    if run.averaged is not None:
        parts["averaged"] = run.averaged.module.state_dict()
    save_snapshot(run.folder / "state.pt", run.progress, parts)


def resume(run: Run) -> None:
    """Puts a run back to its last snapshot, its tables included.

    Raises:
        UserError: There is no snapshot, it is damaged, or the data is not what it was.
    """
    run.progress, parts = load_snapshot(run.folder / "state.pt")
    for name, value in run.identity.items():
        was = parts["identity"].get(name)
        if was != value:
            raise UserError(
                f"{run.folder} cannot go on: its {name} changed since it was cut off"
                f" ({difference(was, value)}): put the data back as it was, or start anew"
            )
    run.bare.load_state_dict(parts["model"])
    run.optimizer.load_state_dict(parts["optimizer"])
    if run.averaged is not None:
        run.averaged.module.load_state_dict(parts["averaged"])
    if run.reporter.speaks:
        cut_steps(run.folder / "steps.csv", run.progress.step)


def difference(was: Any, now: Any) -> str:
    """How two values differ; of lists of records, the names that went and came."""
    if isinstance(was, list) and isinstance(now, list):
        gone, new = ([r["name"] for r in a if r not in b] for a, b in ((was, now), (now, was)))
        return f"gone: {', '.join(gone[:5]) or 'none'}; new: {', '.join(new[:5]) or 'none'}"
    return f"was {was}, is {now}"
