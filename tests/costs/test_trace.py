"""What is alive, and what is done, on shapes alone."""

import torch

from pyramidvit.costs.trace import shapes_alone


def test_the_peak_is_what_is_alive_at_the_worst_moment() -> None:
    with shapes_alone() as trace:
        a = torch.empty(1000)  # 4000 bytes
        b = a + 1
        del a
        c = b.view(10, 100).t()  # a view of the same memory
        del b
        d = c.double()  # 8000 bytes
        assert trace.peak == 12000
        assert trace.alive == 12000
        del c
        assert trace.alive == 8000
        trace.start_again()
        assert trace.peak == 8000
        del d
    assert trace.alive == 0


def test_what_the_backward_pass_needs_is_alive_until_then() -> None:
    with shapes_alone() as trace:
        x = torch.empty(100, 10)
        weight = torch.empty(10, 10, requires_grad=True)
        before = trace.alive
        y = (x @ weight).exp()  # kept by exp, not by the product
        assert trace.alive == before + 4000
        y.sum().backward()
        del y
        assert trace.alive == before + 400  # the gradient


def test_products_are_counted_and_views_are_no_operations() -> None:
    with shapes_alone() as trace:
        x = torch.empty(2, 8, 5, 5)
        kernel = torch.empty(8, 1, 3, 3)
        trace.start_again()
        y = torch.conv2d(x, kernel, padding=1, groups=8)
        y.flatten(1) @ torch.empty(200, 7)
        found = {operation.name: operation for operation in trace.operations}
    assert found["aten.convolution"].macs == 2 * 8 * 25 * 9
    assert found["aten.convolution"].depthwise
    assert found["aten.convolution"].bytes == 4 * (2 * 2 * 8 * 25 + 8 * 9)
    assert found["aten.mm"].macs == 2 * 200 * 7
    assert not found["aten.mm"].depthwise
    assert "aten.view" not in found
