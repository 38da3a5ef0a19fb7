"""The data contract: what flows between the rooms, for every task.

Images are [C, H, W]. Boxes, where a task has them, are float [n, 4] as (x0, y0, x1, y1) in pixels.
Targets live in the frame of the image they travel with; predictions live in the frame of the file,
and `postprocess` is the only place that changes frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Self, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor


class Movable:
    """Gives a frozen dataclass of tensors the one verb it needs."""

    __slots__ = ()

    def to(self, device: torch.device | str) -> Self:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        moved = {k: v.to(device) for k, v in values.items() if isinstance(v, Tensor | Movable)}
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """The label contract: row k says what output k means, in the data's own words.

    Attributes:
        names: What people call each class.
        ids: The identifiers that the data uses: folder names, category numbers, values in a map.
        colours: Red, green and blue from 0 to 255 of each class, where the data names colours.
        values: What the data's maps write for each class, where these are not the ids.
    """

    names: tuple[str, ...]
    ids: tuple[int | str, ...]
    colours: tuple[tuple[int, int, int], ...] = ()
    values: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def background(self) -> int | None:
        """The number of the class that remains beside the others, where one is called so."""
        names = [name.strip().lower() for name in self.names]
        return names.index("background") if "background" in names else None

    @property
    def written(self) -> tuple[int | str, ...]:
        """What a map says for each class: the data's own values, or else the ids."""
        return self.values or self.ids

    def to_records(self) -> list[dict[str, Any]]:
        """Plain records for JSON: [{"id": ..., "name": ...}, ...], with "colour" and "value" where
        there are any."""
        records: list[dict[str, Any]] = [
            {"id": i, "name": n} for i, n in zip(self.ids, self.names, strict=True)
        ]
        for record, colour in zip(records, self.colours, strict=False):
            record["colour"] = list(colour)
        for record, value in zip(records, self.values, strict=False):
            record["value"] = value
        return records

    @classmethod
    def from_records(cls, records: Sequence[Mapping[str, Any]]) -> Classes:
        named = [r["colour"] for r in records if "colour" in r]
        return cls(
            names=tuple(str(r["name"]) for r in records),
            ids=tuple(r["id"] for r in records),
            colours=tuple((int(r), int(g), int(b)) for r, g, b in named),
            values=tuple(int(r["value"]) for r in records if "value" in r),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an image came from.

    Attributes:
        name: The file's path, or a name made up for data without files.
        size: (H, W) of the file's picture, upright.
    """

    name: str
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTarget(Movable):
    """What the annotation of a classified image says.

    Attributes:
        label: Number of its class. No tensor: each would take a file handle on its way out of a
            reading process, and a batch of a thousand would run out of them.
    """

    label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedTarget(Movable):
    """What a training image is to be taken for.

    Attributes:
        weights: [K], sums to 1: one-hot, or softened by mixing and smoothing.
    """

    weights: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassPrediction(Movable):
    """What a classifier says of an image.

    Attributes:
        scores: [K] probabilities, in the order of the classes.
    """

    scores: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks(Movable):
    """Binary masks of one size, run by run: a thousand objects in a large image take little room.

    The order is COCO's: column by column from the left, each from the top; every mask starts with
    a run of zeros, which may be empty. `ops.masks` turns them into pixels and back.

    Attributes:
        size: (H, W) of every mask.
        counts: int64 [sum of num_runs] lengths of the runs of all masks, one mask after the other.
        num_runs: int64 [n] how many runs each mask has.
    """

    size: tuple[int, int]
    counts: Tensor
    num_runs: Tensor

    def __len__(self) -> int:
        return len(self.num_runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionTarget(Movable):
    """What the annotation says of the objects in an image, in the frame of that image.

    Attributes:
        boxes: float32 [n, 4], each with an area: an empty box cannot be learnt.
        labels: int64 [n], numbers of classes.
        crowd: bool [n], true where a box stands for many objects; training passes over these, and
            evaluation counts nothing that is found there.
        masks: One an object, of the image's size; None where the data has none.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    masks: Masks | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionPrediction(Movable):
    """What a detector finds in an image, in the frame of the file.

    Attributes:
        boxes: float32 [m, 4].
        labels: int64 [m], numbers of classes.
        scores: float32 [m], from 0 to 1, descending.
        masks: One a box, of the file's size; None from a detector that draws none.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Masks | None = None


UNLABELLED = -1  # in a map of labels: nothing is known of this pixel, and nothing counts there


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationTarget(Movable):
    """What the annotation says of every pixel of an image, in the frame of that image.

    Attributes:
        labels: int16 [H, W], numbers of classes, or UNLABELLED.
    """

    labels: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationPrediction(Movable):
    """What a segmenter says of every pixel of an image, in the frame of the file.

    Attributes:
        labels: [H, W], numbers of classes; uint8 up to 255 classes, else int16.
    """

    labels: Tensor


T = TypeVar("T", bound=Movable)  # a task's target
P = TypeVar("P", bound=Movable)  # a task's prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Generic[T]):
    """One image on its way to the model: a picture at first, a tensor after the transforms."""

    image: Image | Tensor
    target: T | None
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Generic[T]):
    """What the model, the loss and the post-processing see.

    Attributes:
        images: [B, C, H, W], padded with zeros at the right and the bottom.
        sizes: (H, W) of each image before padding.
        targets: One an image; empty when predicting.
        origins: One an image.
    """

    images: Tensor
    sizes: tuple[tuple[int, int], ...]
    targets: tuple[T, ...]
    origins: tuple[Origin, ...]

    def to(self, device: torch.device | str) -> Batch[T]:
        targets = tuple(target.to(device) for target in self.targets)
        return replace(self, images=self.images.to(device), targets=targets)


def cut_batch(batch: Batch[T], start: int, end: int) -> Batch[T]:
    """The images from `start` to before `end`, padded as they are."""
    return Batch(
        images=batch.images[start:end],
        sizes=batch.sizes[start:end],
        targets=batch.targets[start:end],
        origins=batch.origins[start:end],
    )


def split_by_size(batch: Batch[T], *, divisor: int = 1) -> Iterator[tuple[list[int], Batch[T]]]:
    """A batch as one for each size of its images, padded only to a multiple of `divisor`.

    What a network says of an image can depend on its padding; so it does not depend on the others.

    Yields:
        Which images of the batch they are, and the smaller batch; the batch itself where it is one.
    """
    members: dict[tuple[int, int], list[int]] = {}
    for index, (height, width) in enumerate(batch.sizes):
        size = (-(-height // divisor) * divisor, -(-width // divisor) * divisor)
        members.setdefault(size, []).append(index)
    for (height, width), indices in members.items():
        if batch.images.shape == (len(indices), batch.images.shape[1], height, width):
            yield indices, batch
            continue
        yield (
            indices,
            Batch(
                images=batch.images[indices, :, :height, :width],
                sizes=tuple(batch.sizes[i] for i in indices),
                targets=tuple(batch.targets[i] for i in indices if batch.targets),
                origins=tuple(batch.origins[i] for i in indices),
            ),
        )


def collate(samples: Sequence[Sample[T]], *, divisor: int = 1) -> Batch[T]:
    """Lines up transformed samples, padding their images to one size, a multiple of `divisor`."""
    images = [s.image for s in samples if isinstance(s.image, Tensor)]
    sizes = tuple((image.shape[1], image.shape[2]) for image in images)
    height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes, strict=True))

    padded = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for place, image, (h, w) in zip(padded, images, sizes, strict=True):
        place[:, :h, :w] = image

    return Batch(
        images=padded,
        sizes=sizes,
        targets=tuple(s.target for s in samples if s.target is not None),
        origins=tuple(s.origin for s in samples),
    )
