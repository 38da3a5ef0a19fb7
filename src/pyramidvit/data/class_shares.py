"""How much of labelled data each class covers."""

import contextlib
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ..structures import SegmentationTarget
from .images import BrokenImage
from .source import Source, Subset


class Labelled(Protocol):
    """A source whose label maps can be read without the pictures."""

    @property
    def num_classes(self) -> int: ...

    def read_target(self, index: int) -> SegmentationTarget: ...


def labelled_source(source: Source) -> tuple[Labelled, Callable[[int], int]]:
    """The source below all subsets, and which of its samples each number means."""
    if isinstance(source, Subset):
        inner, place = labelled_source(source.source)
        return inner, lambda index: place(source.indices[index])
    return source, lambda index: index  # type: ignore[return-value]


def class_shares(source: Source, advance: Callable[[], None] | None = None) -> Tensor:
    """The share of each class among the labelled pixels of a source, float64 [K]; sums to 1.

    Maps that cannot be read are passed over. Where nothing is labelled, all shares are 0.

    Args:
        source: Of `load_segmentation_data` or `load_scene_maps`.
        advance: Called after each map.
    """
    labelled, place = labelled_source(source)
    counts = torch.zeros(labelled.num_classes, dtype=torch.int64)
    for index in range(len(source)):
        with contextlib.suppress(BrokenImage):  # named where samples are read
            counts += count_labels(labelled.read_target(place(index)), labelled.num_classes)
        if advance:
            advance()
    return counts.double() / max(1, int(counts.sum()))


def count_labels(target: SegmentationTarget, num_classes: int) -> Tensor:
    """Pixels of each class in a map, int64 [K]."""
    shifted = target.labels.flatten().int() + 1  # UNLABELLED is the first
    return torch.bincount(shifted, minlength=num_classes + 1)[1:]
