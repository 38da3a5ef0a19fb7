"""The kernels against torch in float64. Run with PYRAMIDVIT_KERNELS=1: on a GPU, or, with
TRITON_INTERPRET=1 beside it, in Triton's interpreter on a CPU."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyramidvit.backbones.pvt_v2 import PVTv2Pyramid, PVTv2Size
from pyramidvit.nn.kernels import operators
from pyramidvit.nn.tokens import to_map, to_tokens

DEVICE = "cpu" if operators.INTERPRETED else "cuda"
# B, H, W, C: odd sizes, one row, one column, more than one tile of columns and channels
SIZES = [(2, 3, 5, 24), (1, 1, 6, 8), (2, 3, 1, 8), (1, 2, 18, 70)]
# Of one rounding, at most. The interpreter cuts bfloat16 off behind its 8 bits, a GPU rounds.
FINEST = {torch.float32: 1e-6, torch.bfloat16: 2**-7}


def apart(found: Tensor, exact: Tensor) -> float:
    found, exact = found.detach(), exact.detach()
    return float((found.double() - exact).norm() / exact.norm())


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(dtype).requires_grad_()


def exact(tensors: list[Tensor]) -> list[Tensor]:
    return [x.detach().double().requires_grad_() for x in tensors]


@pytest.mark.parametrize("dtype", FINEST, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_convolution_and_gelu_are_torchs(size: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    batch, height, width, dim = size
    x = drawn(batch, height * width, dim, dtype=dtype)
    inputs = [x, drawn(dim, 1, 3, 3), drawn(dim)]
    grad = drawn(*x.shape, dtype=dtype).detach()

    found = operators.conv_gelu(*inputs, height, width)
    found.backward(grad)
    wide = exact(inputs)
    grid = (height, width)
    convolved = F.conv2d(to_map(wide[0], grid), wide[1], wide[2], padding=1, groups=dim)
    result = F.gelu(to_tokens(convolved))
    result.backward(grad.double())

    assert found.dtype == dtype
    assert apart(found, result) < FINEST[dtype]
    assert apart(inputs[0].grad, wide[0].grad) < 2 * FINEST[dtype]  # rounded before the GELU too
    for ours, theirs in zip(inputs[1:], wide[1:], strict=True):
        assert ours.grad.dtype == torch.float32
        assert apart(ours.grad, theirs.grad) < 1e-6  # in bfloat16 too: sums are float32


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.float32, torch.bfloat16),
                                    (torch.bfloat16, torch.bfloat16)], ids=str)  # fmt: skip
@pytest.mark.parametrize("size", [(2, 35, 24), (1, 5, 512)], ids=str)
def test_sum_and_norm_are_torchs(
    size: tuple[int, ...], dtypes: tuple[torch.dtype, torch.dtype]
) -> None:
    torch.manual_seed(0)
    dim = size[-1]
    inputs = [drawn(*size, dtype=dtypes[0]), drawn(*size, dtype=dtypes[1]), drawn(dim), drawn(dim)]
    grads = [drawn(*size, dtype=dtype).detach() for dtype in dtypes]

    total, normed, _, _ = operators.add_norm_operator(*inputs, 1e-6, dtypes[1])
    torch.autograd.backward([total, normed], grads)
    assert total.dtype == dtypes[0]
    assert normed.dtype == dtypes[1]
    assert apart(total, inputs[0].double() + inputs[1].double()) < FINEST[dtypes[0]]

    wide = exact([total, *inputs[2:]])
    result = F.layer_norm(wide[0], (dim,), wide[1], wide[2], 1e-6)
    torch.autograd.backward([wide[0] * 1.0, result], [grad.double() for grad in grads])
    assert apart(normed, result) < FINEST[dtypes[1]]
    for ours, dtype in zip(inputs[:2], dtypes, strict=True):
        assert ours.grad.dtype == dtype
        assert apart(ours.grad, wide[0].grad) < FINEST[dtype]
    for ours, theirs in zip(inputs[2:], wide[1:], strict=True):
        assert apart(ours.grad, theirs.grad) < 2e-6


def test_a_model_learns_the_same_with_kernels_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    size = PVTv2Size(dims=(16,), depths=(2,), num_heads=(1,), sr_ratios=(2,), mlp_ratios=(2,))
    model = PVTv2Pyramid(size, out_indices=(0,)).to(DEVICE).train()
    images = torch.randn(1, 3, 32, 32, device=DEVICE)
    found = []
    for wanted in (True, False):
        monkeypatch.setattr(operators, "WANTED", wanted)
        assert operators.fast(images) is wanted
        model.zero_grad()
        torch.manual_seed(0)  # for stochastic depth
        maps = model(images)
        sum(x.square().mean() for x in maps).backward()
        found.append([*maps, *(p.grad for p in model.parameters())])
    for ours, plain in zip(*found, strict=True):
        assert float((ours - plain).norm()) < 1e-5 * float(plain.norm()) + 1e-7
