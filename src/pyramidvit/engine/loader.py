"""Which image comes when, and with which random numbers.

Everything random about a sample is a function of (seed, epoch, place in the epoch), and the order
of an epoch a function of (seed, epoch). So a run that was cut off goes on with the very batches it
would have seen, whatever the number of reading processes, and several training processes see
together the batches that one would.
"""

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.data.distributed_sampler import RepeatAugSampler
from torch.utils.data import DataLoader, Dataset, Sampler

from ..data.images import BrokenImage
from ..data.source import Source
from ..errors import UserError
from ..structures import Batch, Sample, collate

Transform = Callable[[Sample[Any]], Sample[Any]]
STREAM_EVEN = 1  # ends the numbers that seed an even draw: an epoch's order has another seed


class Key(NamedTuple):
    """Asks for a sample by number, for a place in the order of an epoch."""

    epoch: int
    place: int
    number: int


class Delivery(NamedTuple):
    """What a loader hands out: a batch (None if no image could be read) and the broken files."""

    batch: Batch[Any] | None
    broken: tuple[BrokenImage, ...]


@dataclass(frozen=True)
class TrainingSamples(Dataset[Any]):
    """Augmented samples by key. In place of a broken image comes the next one that is whole."""

    source: Source
    transform: Transform
    seed: int

    def __getitem__(self, key: Key) -> tuple[Sample[Any] | None, list[BrokenImage]]:
        broken = []
        for offset in range(len(self.source)):
            try:
                sample = self.source[(key.number + offset) % len(self.source)]
            except BrokenImage as error:
                broken.append(error)
                continue
            with seeded(self.seed, key.epoch, key.place):
                return self.transform(sample), broken
        return None, broken


@dataclass(frozen=True)
class PlainSamples(Dataset[Any]):
    """Samples by number, without augmentation; a broken image is left out and named."""

    source: Source
    transform: Transform

    def __getitem__(self, index: int) -> tuple[Sample[Any] | None, list[BrokenImage]]:
        try:
            return self.transform(self.source[index]), []
        except BrokenImage as error:
            return None, [error]


class seeded:  # noqa: N801, it reads as a statement
    """Seeds torch's, numpy's and Python's generators inside a `with`, and puts them back."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def __enter__(self) -> None:
        self.states = torch.get_rng_state(), np.random.get_state(), random.getstate()
        seed_all(*self.numbers)

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self.states[0])
        np.random.set_state(self.states[1])
        random.setstate(self.states[2])


def seed_all(*numbers: int) -> None:
    """Seeds all generators, the GPU's too, with a mixture of whole numbers from 0 up."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def epoch_order(count: int, *, seed: int, epoch: int, repeats: int) -> list[int]:
    """The order in which an epoch goes through `count` samples.

    With `repeats` above 1 it is repeated augmentation as in the reference (classification/
    samplers.py, timm): each sample `repeats` times in a row, and only so many that an epoch stays
    as long as without, rounded down to a multiple of 256.
    """
    if repeats == 1:
        return shuffled(count, seed, epoch)
    mixed = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    sampler = RepeatAugSampler(
        range(count),
        num_replicas=1,
        rank=0,
        num_repeats=repeats,
        selected_round=256 if count >= 256 else 0,
    )
    sampler.set_epoch(mixed)
    return list(sampler)


def even_draw(groups: Sequence[int], *, seed: int, epoch: int) -> list[int]:
    """As many sample numbers as there are samples, every group of them drawn equally often.

    The draws of all epochs form one sequence that goes round the groups; of a group's samples it
    takes each once, in a shuffled order, before it takes one again. So over any stretch the groups
    differ by one draw at most, and so do the samples of one group.

    Args:
        groups: Number of the group that each sample belongs to.
        seed: Decides the order within groups.
        epoch: Which stretch of the sequence is wanted; it comes sorted by group.
    """
    members: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    count, turns = len(groups), len(members)
    drawn: list[int] = []
    for turn, (group, own) in enumerate(sorted(members.items())):
        # The group's draws before the epoch's first place, and before its last one's successor.
        draw, end = (-((turn - place) // turns) for place in (epoch * count, (epoch + 1) * count))
        while draw < end:
            lap, start = divmod(draw, len(own))
            order = shuffled(len(own), seed, group, lap, STREAM_EVEN)
            taken = order[start : start + end - draw]
            drawn += [own[i] for i in taken]
            draw += len(taken)
    return drawn


def shuffled(count: int, *numbers: int) -> list[int]:
    mixed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed)).tolist()


def rank_share(batch: Sequence[Any], rank: int, ranks: int) -> list[Any]:
    """The part of a global batch that one of several processes takes.

    Half of it from the front and half mirrored from the back: Mixup and CutMix pair the i-th image
    with the i-th from the end, and so make the same pairs in every process as one process would.
    """
    if ranks == 1:
        return list(batch)
    count = len(batch) // ranks
    half = count // 2
    rest = count - half  # one more where a share is odd, as it may be where no pairs are made
    front = slice(rank * rest, (rank + 1) * rest)
    back = slice(len(batch) - (rank + 1) * half, len(batch) - rank * half)
    return [*batch[front], *batch[back]]


class TrainingBatches(Sampler[list[Key]]):
    """The keys of one process's batches through an epoch, from any update of it on.

    With `groups`, a number for each sample, those of every number are drawn equally often; an epoch
    stays as long as without. With `pairs` each process gets an even number of images, which are
    mixed in pairs; otherwise any number that is the same for all.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int,
        repeats: int,
        rank: int,
        ranks: int,
        groups: Sequence[int] | None = None,
        pairs: bool = True,
    ) -> None:
        unit = 2 * ranks if pairs else ranks
        if ranks > 1 and batch_size % unit:
            raise UserError(
                f"--batch_size {batch_size} cannot be shared by {ranks} processes: use a multiple"
                f" of {unit}"
            )
        self.count, self.seed, self.repeats = count, seed, repeats
        self.rank, self.ranks = rank, ranks
        self.groups = groups
        self.epoch, self.start = 0, 0
        drawn = len(self.order())
        self.batch_size = min(batch_size, drawn - drawn % unit)
        self.steps = drawn // self.batch_size if self.batch_size else 0
        if not self.steps:
            raise UserError(f"{count} training images are too few for {ranks} processes")

    def order(self) -> list[int]:
        """The sample numbers of the epoch, place by place."""
        order = epoch_order(self.count, seed=self.seed, epoch=self.epoch, repeats=self.repeats)
        if self.groups is None:
            return order
        drawn = even_draw(self.groups, seed=self.seed, epoch=self.epoch)
        return [drawn[i] for i in order]

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        keys = [Key(self.epoch, place, number) for place, number in enumerate(self.order())]
        for step in range(self.start, self.steps):
            batch = keys[step * self.batch_size : (step + 1) * self.batch_size]
            yield rank_share(batch, self.rank, self.ranks)


def training_loader(
    source: Source,
    transform: Transform,
    batches: TrainingBatches,
    *,
    seed: int,
    workers: int,
    divisor: int = 1,
) -> DataLoader[Delivery]:
    """Batches of one process, padded to a multiple of `divisor`.

    Set `batches.epoch` and `batches.start`, then iterate.
    """
    return DataLoader(
        TrainingSamples(source, transform, seed),
        batch_sampler=batches,
        collate_fn=functools.partial(deliver, divisor=divisor),
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # otherwise starting it would draw from the global one
    )


def plain_loader(
    source: Source,
    transform: Transform,
    *,
    batch_size: int,
    workers: int,
    rank: int,
    ranks: int,
    divisor: int = 1,
) -> DataLoader[Delivery]:
    """Every sample once, over all processes together: process r takes batches r, r + ranks, ...

    Whole batches, so that a sample has the same neighbours however many processes there are: in
    another batch a network's float32 outputs can differ in their last bits.
    """
    numbers = range(len(source))
    starts = range(rank * batch_size, len(source), ranks * batch_size)
    batches = [list(numbers[start : start + batch_size]) for start in starts]
    return DataLoader(
        PlainSamples(source, transform),
        batch_sampler=batches,
        collate_fn=functools.partial(deliver, divisor=divisor),
        num_workers=workers if len(batches) > 1 else 0,
        generator=torch.Generator(),
    )


def deliver(
    items: list[tuple[Sample[Any] | None, list[BrokenImage]]], *, divisor: int = 1
) -> Delivery:
    samples = [sample for sample, _ in items if sample is not None]
    broken = tuple(error for _, errors in items for error in errors)
    return Delivery(collate(samples, divisor=divisor) if samples else None, broken)
