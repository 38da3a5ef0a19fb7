"""Holding out a share of each class for validation."""

import random
from collections.abc import Sequence


def hold_out(
    labels: Sequence[int], share: float, seed: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Splits sample numbers into training and validation, class by class, the same for a seed.

    Every class of two or more samples keeps at least one on either side.
    """
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_class.setdefault(label, []).append(index)

    validation: set[int] = set()
    for label, members in sorted(by_class.items()):
        count = min(max(round(len(members) * share), 1), len(members) - 1)
        validation.update(random.Random(f"{seed}:{label}").sample(members, count))
    train = tuple(i for i in range(len(labels)) if i not in validation)
    return train, tuple(sorted(validation))
