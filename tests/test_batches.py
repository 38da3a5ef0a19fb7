"""Batches are cut, and split by the sizes of their images."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyramidvit.structures import Origin, Sample, SegmentationTarget, collate, split_by_size

SIZES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6)


@given(sizes=SIZES, divisor=st.sampled_from([1, 4]), labelled=st.booleans())
def test_a_split_batch_has_every_image_as_if_it_came_alone(
    sizes: list[tuple[int, int]], divisor: int, labelled: bool
) -> None:
    samples: list[Sample[SegmentationTarget]] = []
    for number, size in enumerate(sizes):
        target = SegmentationTarget(labels=torch.full(size, number)) if labelled else None
        origin = Origin(name=str(number), size=size)
        samples.append(Sample(image=torch.rand(3, *size), target=target, origin=origin))
    parts = list(split_by_size(collate(samples, divisor=divisor), divisor=divisor))
    assert sorted(i for indices, _ in parts for i in indices) == list(range(len(sizes)))
    assert len({part.images.shape[2:] for _, part in parts}) == len(parts)  # no more than needed
    for indices, part in parts:
        assert len(part.targets) == len(indices) * labelled
        for place, index in enumerate(indices):
            alone = collate([samples[index]], divisor=divisor)
            assert torch.equal(part.images[place], alone.images[0])
            assert (part.sizes[place], part.origins[place]) == (alone.sizes[0], alone.origins[0])
            if labelled:
                assert part.targets[place] is samples[index].target


def test_a_batch_of_one_size_stays_as_it_is() -> None:
    image: Tensor = torch.rand(3, 8, 8)
    samples = [Sample(image=image, target=None, origin=Origin(name="a", size=(8, 8)))] * 2
    batch = collate(samples, divisor=4)
    ((indices, part),) = split_by_size(batch, divisor=4)
    assert indices == [0, 1]
    assert part is batch
