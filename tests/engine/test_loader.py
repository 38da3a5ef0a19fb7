"""Which image comes when: the same for one process, several, and a run that was cut off."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data.distributed_sampler import RepeatAugSampler

from pyramidvit.data.images import BrokenImage
from pyramidvit.engine.loader import (
    TrainingBatches,
    epoch_order,
    plain_loader,
    rank_share,
    training_loader,
)
from pyramidvit.errors import UserError
from pyramidvit.structures import ClassTarget, Origin, Sample


class Numbers:
    """Samples whose image is their number; some of them broken."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample[Any]:
        if index in self.broken:
            raise BrokenImage(f"{index}.jpg", "truncated")
        return Sample(
            image=torch.full((1, 2, 2), float(index)),
            target=ClassTarget(label=0),
            origin=Origin(name=str(index), size=(2, 2)),
        )


def add_noise(sample: Sample[Any]) -> Sample[Any]:
    """Uses all three global generators, as augmentation does."""
    import random

    noise = torch.rand(1).item() + np.random.rand() + random.random()
    return Sample(image=sample.image + noise / 10, target=sample.target, origin=sample.origin)


def images(loader: Any) -> list[torch.Tensor]:
    return [delivery.batch.images for delivery in loader]


@given(
    count=st.integers(8, 300),
    epoch=st.integers(0, 3),
    half=st.integers(1, 8),
    ranks=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=60, deadline=None)
def test_processes_share_the_batches_that_one_would_take(
    count: int, epoch: int, half: int, ranks: int
) -> None:
    size = 2 * half * ranks
    if count < 2 * ranks:
        return

    def batches(rank: int, of: int) -> list[list[Any]]:
        sampler = TrainingBatches(count, size, seed=3, repeats=1, rank=rank, ranks=of)
        sampler.epoch = epoch
        return list(sampler)

    together = [sorted(sum(parts, [])) for parts in zip(*(batches(r, ranks) for r in range(ranks)))]  # noqa: B905, RUF017
    alone = TrainingBatches(count, size, seed=3, repeats=1, rank=0, ranks=1)
    alone.epoch, alone.batch_size = epoch, min(size, count - count % (2 * ranks))
    alone.steps = count // alone.batch_size
    assert together == [sorted(batch) for batch in alone]


@given(st.integers(1, 6), st.integers(1, 4))
def test_mixing_pairs_are_the_same_in_every_process(half: int, ranks: int) -> None:
    batch = list(range(2 * half * ranks))
    pairs = {frozenset(p) for p in zip(batch, reversed(batch), strict=True)}
    shared = set()
    for rank in range(ranks):
        mine = rank_share(batch, rank, ranks)
        shared |= {frozenset(p) for p in zip(mine, reversed(mine), strict=True)}
    assert shared == pairs


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_without_pairs_a_process_may_take_an_odd_number_of_images(ranks: int) -> None:
    shares = [
        list(TrainingBatches(70, 3 * ranks, seed=0, repeats=1, rank=r, ranks=ranks, pairs=False))
        for r in range(ranks)
    ]
    alone = TrainingBatches(70, 3 * ranks, seed=0, repeats=1, rank=0, ranks=1, pairs=False)
    together = [sorted(sum(parts, [])) for parts in zip(*shares, strict=True)]  # noqa: RUF017
    assert together == [sorted(batch) for batch in alone]
    assert {len(batch) for share in shares for batch in share} == {3}
    with pytest.raises(UserError, match="use a multiple of 8"):
        TrainingBatches(70, 12, seed=0, repeats=1, rank=0, ranks=8, pairs=False)


def test_an_epoch_takes_every_sample_once_in_another_order_each_time() -> None:
    first = epoch_order(100, seed=0, epoch=0, repeats=1)
    assert sorted(first) == list(range(100))
    assert first != epoch_order(100, seed=0, epoch=1, repeats=1)
    assert first != epoch_order(100, seed=1, epoch=0, repeats=1)
    assert first == epoch_order(100, seed=0, epoch=0, repeats=1)


def test_repeated_augmentation_is_the_references() -> None:
    order = epoch_order(1000, seed=0, epoch=0, repeats=3)
    assert len(order) == 768  # 1000 rounded down to a multiple of 256
    assert set(Counter(order).values()) == {3}
    assert all(len(set(order[i : i + 3])) == 1 for i in range(0, 768, 3))
    # Over 4 processes timm gives the processes the same images, a batch at a time.
    parts = []
    for rank in range(4):
        sampler = RepeatAugSampler(range(1000), num_replicas=4, rank=rank, num_repeats=3)
        parts.append(list(sampler))
    sampler = RepeatAugSampler(range(1000), num_replicas=1, rank=0, num_repeats=3)
    assert [x for group in zip(*parts, strict=True) for x in group] == list(sampler)
    assert len(epoch_order(20, seed=0, epoch=0, repeats=3)) == 20


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_cut_off_sees_the_very_batches_it_would_have_seen(workers: int) -> None:
    def loader(start: int, processes: int) -> Any:
        batches = TrainingBatches(20, 4, seed=5, repeats=1, rank=0, ranks=1)
        batches.epoch, batches.start = 1, start
        return training_loader(Numbers(20), add_noise, batches, seed=5, workers=processes)

    whole = images(loader(0, 0))
    rest = images(loader(3, workers))
    assert len(rest) == 2
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[3:], strict=True))
    assert not torch.equal(whole[0] % 1, whole[1] % 1)  # the noise differs between batches


def test_augmenting_leaves_the_global_generators_alone() -> None:
    batches = TrainingBatches(8, 4, seed=5, repeats=1, rank=0, ranks=1)
    torch.manual_seed(1)
    np.random.seed(1)
    images(training_loader(Numbers(8), add_noise, batches, seed=5, workers=0))
    drawn = torch.rand(1), np.random.rand()
    torch.manual_seed(1)
    np.random.seed(1)
    assert drawn == (torch.rand(1), np.random.rand())


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_evaluation_takes_every_sample_once_over_any_number_of_processes(ranks: int) -> None:
    seen = []
    for rank in range(ranks):
        loader = plain_loader(
            Numbers(21), lambda s: s, batch_size=4, workers=0, rank=rank, ranks=ranks
        )
        seen += [origin.name for delivery in loader for origin in delivery.batch.origins]
    assert sorted(map(int, seen)) == list(range(21))


def test_a_broken_image_is_named_and_the_next_whole_one_takes_its_place() -> None:
    batches = TrainingBatches(8, 8, seed=0, repeats=1, rank=0, ranks=1)
    source = Numbers(8, broken=(3, 4))
    (delivery,) = training_loader(source, lambda s: s, batches, seed=0, workers=0)
    assert {error.path for error in delivery.broken} == {"3.jpg", "4.jpg"}
    numbers = sorted(int(o.name) for o in delivery.batch.origins)
    assert numbers == [0, 1, 2, 5, 5, 5, 6, 7]


def test_evaluation_leaves_a_broken_image_out() -> None:
    loader = plain_loader(
        Numbers(5, broken=(0, 1, 4)), lambda s: s, batch_size=2, workers=0, rank=0, ranks=1
    )
    deliveries = list(loader)
    assert [d.batch is None for d in deliveries] == [True, False, True]
    assert sum(len(d.broken) for d in deliveries) == 3


def test_a_batch_larger_than_the_data_or_than_what_repeating_leaves_of_it_is_cut() -> None:
    assert TrainingBatches(400, 1024, seed=0, repeats=3, rank=0, ranks=1).batch_size == 256
    assert TrainingBatches(11, 32, seed=0, repeats=1, rank=0, ranks=1).batch_size == 10


def test_a_batch_of_a_thousand_comes_out_of_a_reading_process() -> None:
    """Each tensor of a delivery takes a file handle, and 1024 of those is the usual limit."""
    batches = TrainingBatches(1200, 1200, seed=0, repeats=1, rank=0, ranks=1)
    (delivery,) = training_loader(Numbers(1200), add_noise, batches, seed=0, workers=1)
    assert len(delivery.batch.targets) == 1200


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UserError, match="multiple of 4"):
        TrainingBatches(100, 6, seed=0, repeats=1, rank=0, ranks=2)
    with pytest.raises(UserError, match="too few"):
        TrainingBatches(1, 6, seed=0, repeats=1, rank=0, ranks=1)
