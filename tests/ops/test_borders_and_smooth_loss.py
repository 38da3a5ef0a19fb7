"""Anchors at the border of an image, and a loss that is smooth at zero, in closed form."""

import pytest
import torch

from pyramidvit.ops.anchors import inside_image
from pyramidvit.ops.losses import smooth_l1_loss


def test_anchors_inside_end_short_of_the_lower_and_right_border() -> None:
    anchors = torch.tensor(
        [[0.0, 0, 39, 29], [0, 0, 40, 29], [0, 0, 39, 30], [-0.5, 0, 9, 9], [0, -0.5, 9, 9]]
    )
    assert inside_image(anchors, (30, 40)).tolist() == [True, False, False, False, False]
    assert inside_image(torch.zeros(0, 4), (30, 40)).shape == (0,)


def test_the_smooth_loss_is_a_parabola_that_goes_on_as_a_line() -> None:
    off = torch.tensor([0.0, 0.1, -0.2, 0.5, -3.0])
    found = [float(smooth_l1_loss(x, torch.zeros(()), 0.5)) for x in off]
    assert found == pytest.approx([0, 0.01, 0.04, 0.25, 2.75])
    total = smooth_l1_loss(off + 7, torch.full((5,), 7.0), 0.5)
    assert float(total) == pytest.approx(sum(found))
    assert float(smooth_l1_loss(off[:0], off[:0], 0.5)) == 0
