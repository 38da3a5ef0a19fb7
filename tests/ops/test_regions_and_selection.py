"""Levels of regions in closed form, features cut from a plane, and which boxes survive."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from pyramidvit.ops import selection
from pyramidvit.ops.losses import focal_loss, objectness_loss
from pyramidvit.ops.regions import as_planes, pool_regions, region_levels
from pyramidvit.ops.selection import best_rows, not_hidden, select_boxes


@pytest.mark.parametrize(
    ("side", "level"),
    [(0, 0), (1, 0), (55, 0), (111, 0), (112, 1), (223, 1), (224, 2), (448, 3), (5000, 3)],
)
def test_a_region_is_looked_at_on_the_level_of_its_size(side: float, level: int) -> None:
    boxes = torch.tensor([[10.0, 10, 10 + side, 10 + side]])
    assert region_levels(boxes, 4).tolist() == [level]


def test_features_of_a_plane_are_its_values_at_the_centres_of_cells() -> None:
    maps = []
    for stride in (4, 8):
        y, x = torch.meshgrid(
            torch.arange(512 // stride), torch.arange(512 // stride), indexing="ij"
        )
        centre = torch.stack(((x + 0.5) * stride, (y + 0.5) * stride))  # pixels of the image
        maps.append(torch.stack((centre, centre + 1000)).float())  # two images
    boxes = torch.tensor([[40.0, 60, 96, 116], [100, 80, 300, 280], [40, 60, 96, 116]])
    found = pool_regions(maps, (4, 8), boxes, torch.tensor([0, 1, 1]), side=7)
    for features, box, offset in zip(found, boxes.tolist(), (0, 1000, 1000), strict=True):
        step = (box[2] - box[0]) / 7
        wanted = torch.tensor([box[0] + (i + 0.5) * step for i in range(7)]) + offset
        torch.testing.assert_close(features[0], wanted.expand(7, 7), rtol=0, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 6)] * 4), st.sampled_from([torch.float32, torch.bfloat16]))
def test_a_map_in_planes_is_the_same_map(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    plain = torch.randn(shape).to(dtype)
    for x in (
        plain,
        plain.contiguous(memory_format=torch.channels_last),
        plain.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),  # as tokens are seen as maps
        plain.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        found = as_planes(x)
        assert found.is_contiguous()
        assert torch.equal(found, plain)
    x = plain.double().contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(shape).double()
    (as_planes(x) * weight).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, weight)


def test_no_regions_have_no_features() -> None:
    maps = [torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)]
    nothing = torch.zeros(0, dtype=torch.int64)
    assert pool_regions(maps, (4, 8), torch.zeros(0, 4), nothing, 7).shape == (0, 3, 7, 7)


places = st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 15)] * 2)


@settings(deadline=None)
@given(st.lists(places, max_size=8), st.integers(1, 3), st.integers(0, 2**16), st.integers(1, 6))
def test_selected_boxes_are_those_of_plain_python(
    rows: list[tuple[int, ...]], classes: int, seed: int, most: int
) -> None:
    boxes = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in rows]).double().reshape(-1, 4)
    scores = torch.rand(
        len(rows), classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    found = select_boxes(boxes, scores, threshold=0.3, overlap=0.5, most=most)

    pairs = [(float(scores[i, k]), i, k) for i in range(len(rows)) for k in range(classes)]
    kept: list[tuple[float, int, int]] = []
    for score, i, k in sorted(pairs, reverse=True):
        rivals = [j for _, j, label in kept if label == k]
        hidden = any(float(box_iou(boxes[[i]], boxes[[j]])) > 0.5 for j in rivals)
        if score > 0.3 and not hidden:
            kept.append((score, i, k))
    wanted = kept[:most]
    assert found.scores.tolist() == [score for score, _, _ in wanted]
    assert found.places.tolist() == [i for _, i, _ in wanted]
    assert found.labels.tolist() == [k for _, _, k in wanted]
    assert torch.equal(found.boxes, boxes[found.places])


def test_many_boxes_hide_each_other_as_few_do(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3000, 2, generator=generator) * 200
    boxes = torch.cat((corners, corners + 20), dim=1)
    scores = torch.rand(3000, generator=generator)
    labels = torch.randint(80, (3000,), generator=generator)
    few = not_hidden(boxes, scores, labels, 0.5)
    monkeypatch.setattr(selection, "AT_ONCE", 1)
    assert 1000 < len(few) < 3000
    assert torch.equal(not_hidden(boxes, scores, labels, 0.5), few)


def test_the_best_rows_are_found_and_few_rows_stay_in_order() -> None:
    scores = torch.tensor([0.1, 0.9, 0.5])
    assert best_rows(scores, 2).tolist() == [1, 2]
    assert best_rows(scores, 3).tolist() == [0, 1, 2]
    assert best_rows(scores[:0], 3).tolist() == []


def test_the_focal_loss_has_its_closed_form() -> None:
    logits = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    p = torch.sigmoid(logits)[0]
    yes = -0.25 * (1 - p[0]) ** 2 * p[0].log()
    no = -0.75 * p[1] ** 2 * (1 - p[1]).log()
    assert float(focal_loss(logits, torch.tensor([0]))) == pytest.approx(float(yes + no))
    assert float(objectness_loss(logits[:, 1:], torch.tensor([-1]))) == pytest.approx(
        -float((1 - p[1]).log())
    )
