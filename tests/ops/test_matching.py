"""Matching against slow plain Python, and samples by their counts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from pyramidvit.ops import matching
from pyramidvit.ops.matching import BACKGROUND, IGNORED, match_boxes, sample_matches

# Whole numbers from a small range, so that overlaps tie.
corner, side = st.integers(0, 12), st.integers(1, 8)
box = st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
box_lists = st.lists(box, max_size=7)


def overlap_of(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    return float(box_iou(torch.tensor([a]).float(), torch.tensor([b]).float()))


def match_slowly(
    anchors: list[tuple[int, ...]],
    objects: list[tuple[int, ...]],
    foreground: float,
    background: float,
    low_quality: float | None,
) -> list[int]:
    """Object after object, anchor after anchor."""
    matches = []
    for anchor in anchors:
        overlaps = [overlap_of(anchor, one) for one in objects]
        best = max(overlaps, default=0.0)
        if best >= foreground:
            matches.append(overlaps.index(best))
        else:
            matches.append(BACKGROUND if best < background else IGNORED)
    for number, one in enumerate(objects if low_quality is not None else []):
        overlaps = [overlap_of(anchor, one) for anchor in anchors]
        best = max(overlaps, default=0.0)
        assert low_quality is not None
        for i, overlap in enumerate(overlaps):
            if overlap == best > 0 and best >= low_quality:
                matches[i] = number
    return matches


@settings(max_examples=150, deadline=None)
@given(
    box_lists,
    box_lists,
    st.sampled_from([(0.5, 0.4, 0.0), (0.7, 0.3, 0.3), (0.5, 0.5, 0.5), (0.5, 0.5, None)]),
    st.sampled_from([1, 10, 1 << 22]),
)
def test_matches_are_those_of_plain_python(
    anchors: list[tuple[int, ...]],
    objects: list[tuple[int, ...]],
    limits: tuple[float, float, float | None],
    pairs_at_once: int,
) -> None:
    foreground, background, low_quality = limits
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "PAIRS_AT_ONCE", pairs_at_once)
        found = match_boxes(
            torch.tensor(anchors).float().reshape(-1, 4),
            torch.tensor(objects).float().reshape(-1, 4),
            foreground=foreground,
            background=background,
            low_quality=low_quality,
        )
    assert found.tolist() == match_slowly(anchors, objects, *limits)


def test_all_anchors_that_tie_at_the_best_overlap_are_taken() -> None:
    anchors = torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4], [8, 0, 12, 4], [0, 8, 4, 12]])
    objects = torch.tensor([[0.0, 0, 12, 4]])
    found = match_boxes(anchors, objects, foreground=0.5, background=0.4, low_quality=0.0)
    assert found.tolist() == [0, 0, 0, BACKGROUND]


def test_an_object_far_from_all_anchors_takes_none() -> None:
    anchors, objects = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[50.0, 50, 60, 60]])
    found = match_boxes(anchors, objects, foreground=0.5, background=0.4, low_quality=0.0)
    assert found.tolist() == [BACKGROUND]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([IGNORED, BACKGROUND, 0, 1, 2]), max_size=40),
    st.integers(0, 20),
    st.sampled_from([0.25, 0.5, 1.0]),
)
def test_samples_have_the_right_counts(matches: list[int], count: int, share: float) -> None:
    objects, background = sample_matches(torch.tensor(matches, dtype=torch.int64), count, share)
    available = sum(m >= 0 for m in matches), matches.count(BACKGROUND)
    assert len(objects) == min(available[0], int(count * share))
    assert len(background) == min(available[1], count - len(objects))
    assert all(matches[i] >= 0 for i in objects.tolist())
    assert all(matches[i] == BACKGROUND for i in background.tolist())
    assert len({*objects.tolist(), *background.tolist()}) == len(objects) + len(background)


def test_samples_are_drawn_evenly_and_follow_from_the_seed() -> None:
    matches = torch.full((10,), BACKGROUND)
    torch.manual_seed(0)
    drawn = [sample_matches(matches, 3, 0.5)[1] for _ in range(2000)]
    counts = torch.cat(drawn).bincount(minlength=10)
    assert 500 < int(counts.min()) <= int(counts.max()) < 700  # 600 each, give or take 5 sigma
    torch.manual_seed(0)
    assert torch.equal(sample_matches(matches, 3, 0.5)[1], drawn[0])


def test_a_thousand_objects_meet_many_anchors_in_little_memory() -> None:
    corners = torch.rand(20_000, 2) * 500
    anchors = torch.cat((corners, corners + 30), dim=1)
    objects = anchors[:1000] + 1
    found = match_boxes(anchors, objects, foreground=0.5, background=0.4, low_quality=0.0)
    overlap = box_iou(objects, anchors)
    best = overlap.max(dim=0)
    sure = best.values >= 0.5
    taken = overlap[found[sure], sure.nonzero().flatten()]
    assert bool((taken >= 0.5).all())
    assert set(range(1000)) == set(found.tolist()) - {BACKGROUND, IGNORED}
