"""Features of many pictures, in one Parquet file that is written as they come."""

import json
import os
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet
from torch import Tensor, nn

from ..structures import Batch

ROWS = 1024  # pictures in a row group: what is held in memory, 2 MB at 512 channels


class PooledFeatures(nn.Module):
    """What the head of a classifier reads, [B, C] float32, from images [B, in_chans, H, W]."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier: Any = classifier

    def forward(self, images: Tensor) -> Tensor:
        features = self.classifier.forward_features(images)
        pooled: Tensor = self.classifier.forward_head(features, pre_logits=True)  # [B, C]
        return pooled.float()


def to_rows(features: Tensor, _: Batch[Any]) -> list[np.ndarray]:
    """Float32 [C], one an image: takes the place of a task's `postprocess`."""
    return list(features.cpu().numpy())


def write_features(
    path: Path, rows: Iterable[tuple[str, np.ndarray]], description: Mapping[str, Any]
) -> int:
    """Writes columns "path" (string) and "features" (fixed_size_list<float32>[C]).

    Only a row group is held in memory; the file is written beside its place and moved there when it
    is whole.

    Args:
        path: The file; one that is there is replaced.
        rows: Names and features, float32 [C].
        description: For the schema's metadata; a value that is no string is written as JSON.

    Returns:
        The number of rows; with 0 no file is written, as nobody knows C.

    Raises:
        OSError: The disk is full, or writing is not allowed.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return 0
    schema = build_schema(len(first[1]), description)
    partial = path.with_name(f".{path.name}.partial")
    count = 0
    rows = chain([first], rows)
    try:
        with partial.open("wb") as file:
            with parquet.ParquetWriter(file, schema) as writer:
                while group := list(islice(rows, ROWS)):
                    writer.write_table(build_table(group, schema))
                    count += len(group)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def build_schema(channels: int, description: Mapping[str, Any]) -> Any:
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in description.items()}
    columns = {"path": pyarrow.string(), "features": pyarrow.list_(pyarrow.float32(), channels)}
    return pyarrow.schema(columns, metadata=metadata)


def build_table(group: list[tuple[str, np.ndarray]], schema: Any) -> Any:
    # A name that is not valid UTF-8 is spelled out, as in the other verbs' files.
    names = [name.encode(errors="backslashreplace").decode() for name, _ in group]
    values = np.concatenate([features for _, features in group]).astype(np.float32)
    channels = schema.field("features").type.list_size
    features = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values), channels)
    return pyarrow.Table.from_arrays([pyarrow.array(names), features], schema=schema)
