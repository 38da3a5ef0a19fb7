"""What every kind of data becomes: classes, and lists of samples that are read one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..structures import Classes, Sample


class Source(Protocol):
    """Samples by number. Reading one may raise `BrokenImage`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample[Any]: ...


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Data as a training run or an evaluation takes it.

    Attributes:
        name: A short name, for run folders.
        summary: What was found and decided, in one line.
        classes: What the labels mean.
        splits: "train" and "validation", or "all" where the folder has no parts.
        in_memory: True where reading costs nothing, so that reading processes would not pay.
    """

    name: str
    summary: str
    classes: Classes
    splits: dict[str, Source]
    in_memory: bool = False


@dataclass(frozen=True, slots=True)
class Subset:
    """Some samples of a source, by number."""

    source: Source
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample[Any]:
        return self.source[self.indices[index]]

    @property
    def labels(self) -> tuple[int | None, ...]:
        labels = known_labels(self.source)
        return tuple(labels[index] for index in self.indices) if labels else ()


def known_labels(source: Source) -> tuple[int, ...]:
    """The number of each sample's class, without reading a sample.

    Empty where a source has no `labels`, or not one for every sample.
    """
    labels: Sequence[int | None] = getattr(source, "labels", ())
    known = tuple(label for label in labels if label is not None)
    return known if len(known) == len(source) else ()
