"""Which maps a model gives, and how one asks for them; both in timm's terms."""

from collections.abc import Sequence
from typing import Any


class FeatureInfo(list[dict[str, Any]]):
    """A record a map (num_chs, reduction, module, index), with timm's ways to ask for a column."""

    @property
    def out_indices(self) -> tuple[int, ...]:
        """The stages of the maps, 0 to 3."""
        return tuple(row["index"] for row in self)

    def channels(self) -> list[int]:
        return [row["num_chs"] for row in self]

    def reduction(self) -> list[int]:
        return [row["reduction"] for row in self]

    def module_name(self) -> list[str]:
        return [row["module"] for row in self]

    def get_dicts(self, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The records, or their columns `keys`."""
        return [{key: row[key] for key in keys or row} for row in self]


def pick_stages(indices: int | Sequence[int] | None, num_stages: int = 4) -> list[int]:
    """Turns timm's ways to name stages into numbers from 0 to `num_stages` - 1.

    Args:
        indices: Stages, negative from the end; a number n means the last n; None all.
        num_stages: How many there are.

    Raises:
        ValueError: A stage that is not there, or none at all.
    """
    if indices is None:
        return list(range(num_stages))
    if isinstance(indices, int):
        picked = list(range(num_stages - indices, num_stages))
    else:
        picked = [i + num_stages if i < 0 else i for i in indices]
    if not picked or not set(picked) <= set(range(num_stages)):
        raise ValueError(f"indices must name stages 0 to {num_stages - 1}, got {indices}")
    return picked
