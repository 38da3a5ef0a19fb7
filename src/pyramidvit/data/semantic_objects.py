"""Instance masks turned to semantic labels: what belongs to no object is background."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..structures import UNLABELLED, Classes, DetectionTarget, Sample, SegmentationTarget
from .objects import DetectionSource

BACKGROUND = "background"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMapSource:
    """Pictures whose label maps are painted from the masks of their objects.

    Attributes:
        objects: The pictures and their objects, with masks.
        numbers: int16 [k], the class in the map of each class of objects.
        background: Number of the class of what belongs to no object.
        num_classes: K.
    """

    objects: DetectionSource
    numbers: np.ndarray
    background: int
    num_classes: int

    @property
    def files(self) -> tuple[str, ...]:
        return self.objects.table.files

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index: int) -> Sample[SegmentationTarget]:
        sample = self.objects[index]
        assert isinstance(sample.target, DetectionTarget)
        return replace(sample, target=self.paint(sample.target))

    def read_target(self, index: int) -> SegmentationTarget:
        """The labels of one picture, without reading the picture where its size is known."""
        height, width = (int(side) for side in self.objects.table.sizes[index])
        if not (height and width):
            target = self[index].target
            assert target is not None
            return target
        return self.paint(self.objects.read_target(index, (height, width)))

    def paint(self, target: DetectionTarget) -> SegmentationTarget:
        return SegmentationTarget(labels=paint_objects(target, self.numbers, self.background))


def semantic_classes(classes: Classes) -> tuple[Classes, np.ndarray, int]:
    """Background and the classes of objects.

    A class of the data that is called "background" is taken for it. Else it comes first, with the
    id 0 if that is free.

    Returns:
        The classes, the number among them of each of the data's classes int16 [k], and that of the
        background.
    """
    numbers = np.arange(len(classes), dtype=np.int16)
    if BACKGROUND in classes.names:
        return classes, numbers, classes.names.index(BACKGROUND)
    whole = [i for i in classes.ids if isinstance(i, int)]
    free: int | str = 0 if 0 not in whole else max(whole) + 1
    free = BACKGROUND if len(whole) < len(classes.ids) else free
    both = Classes(names=(BACKGROUND, *classes.names), ids=(free, *classes.ids))
    return both, numbers + np.int16(1), 0


def paint_objects(target: DetectionTarget, numbers: np.ndarray, background: int) -> torch.Tensor:
    """Labels int16 [H, W] of an image with masks.

    Where objects overlap, the one with fewer pixels is on top, and of equal ones the later. What
    lies in a crowd and in no object is unlabelled: a crowd's outline is rough, so that some of it
    is of the class and some is not.

    Args:
        target: Objects with masks.
        numbers: int16 [k], the class in the map of each class of objects.
        background: The class of what belongs to no object.
    """
    assert target.masks is not None
    height, width = target.masks.size
    labels = np.full(height * width, background, np.int16)  # column by column, as runs go
    ends = np.cumsum(target.masks.num_runs.numpy())
    runs = np.split(target.masks.counts.numpy(), ends[:-1])
    crowd = target.crowd.numpy()
    areas = np.asarray([own[1::2].sum() for own in runs], np.int64)
    for k in np.lexsort((-areas, ~crowd)) if len(ends) else ():
        label = UNLABELLED if crowd[k] else numbers[int(target.labels[k])]
        bounds = np.cumsum(runs[k])
        starts, stops = bounds[:-1:2], bounds[1::2]
        if len(stops):
            inside = np.repeat(np.arange(1, len(runs[k])) % 2 == 1, runs[k][1:])
            stretch = labels[starts[0] : starts[0] + len(inside)]
            stretch[inside] = label
    return torch.from_numpy(np.ascontiguousarray(labels.reshape(width, height).T))
