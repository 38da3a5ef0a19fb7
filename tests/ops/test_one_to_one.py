"""Pairs of queries and objects, against all pairs that there are."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramidvit.ops.boxes import extents
from pyramidvit.ops.matching import BACKGROUND, match_one_to_one

costs = st.integers(0, 5).flatmap(
    lambda objects: st.lists(
        st.lists(st.integers(-9, 9), min_size=objects, max_size=objects), min_size=1, max_size=5
    )
)


def least_sum(cost: list[list[int]]) -> int:
    """Of all ways to give as many objects as there can be a query of their own."""
    queries, objects = len(cost), len(cost[0])
    if objects <= queries:
        ways = itertools.permutations(range(queries), objects)
        return min(sum(cost[q][o] for o, q in enumerate(way)) for way in ways)
    others = itertools.permutations(range(objects), queries)
    return min(sum(cost[q][o] for q, o in enumerate(way)) for way in others)


@settings(max_examples=200, deadline=None)
@given(costs)
def test_no_other_pairs_cost_less(cost: list[list[int]]) -> None:
    matches = match_one_to_one(torch.tensor(cost).float().reshape(len(cost), -1)).tolist()
    taken = [m for m in matches if m != BACKGROUND]
    assert len(taken) == len(set(taken)) == min(len(cost), len(cost[0]))
    assert sum(cost[q][m] for q, m in enumerate(matches) if m != BACKGROUND) == least_sum(cost)


def test_without_objects_all_is_background() -> None:
    assert match_one_to_one(torch.zeros(3, 0)).tolist() == [BACKGROUND] * 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_taken_last(bad: float) -> None:
    cost = torch.tensor([[bad, 7.0], [6.0, bad], [bad, bad]])
    assert match_one_to_one(cost).tolist() == [1, 0, BACKGROUND]


def test_extents_are_width_and_height_twice() -> None:
    found = extents([(2, 3), (5, 7)], torch.zeros(1, dtype=torch.float64))
    assert found.dtype == torch.float64
    assert found.tolist() == [[[3, 2, 3, 2]], [[7, 5, 7, 5]]]
