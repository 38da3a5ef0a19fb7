"""Fused operators: Triton's kernels on a GPU, torch's own operators in one call elsewhere.

`fast` is the one door: the modules ask it whether to come here. They do so only where the
environment variable PYRAMIDVIT_KERNELS=1 asks for it, since the kernels never ran on a GPU yet, and
never on a CPU, where torch's separate operators are as good. TRITON_INTERPRET=1 beside it runs them
in Triton's interpreter on a CPU, slowly, as a test does.

They are operators of `torch.library`, with shapes that can be told without running them and with
gradients, so `torch.compile` keeps them whole. A graph that is exported takes torch's own operators
instead: other runtimes do not know these.
"""

import importlib.util
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..tokens import to_map, to_tokens

HAS_TRITON = importlib.util.find_spec("triton") is not None
WANTED = os.environ.get("PYRAMIDVIT_KERNELS", "0") == "1"
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


def fast(x: Tensor) -> bool:
    """Whether kernels are asked for, and exist for where `x` is and what it holds. A symbol of a
    traced graph is no tensor, so traced graphs have torch's own operators."""
    return isinstance(x, Tensor) and runs_kernels(x) and not torch.compiler.is_exporting()


def runs_kernels(x: Tensor) -> bool:
    here = x.is_cuda or INTERPRETED
    return HAS_TRITON and WANTED and here and x.dtype in PRECISIONS


@torch.library.custom_op("pyramidvit::conv_gelu", mutates_args=())
def conv_gelu(x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int) -> Tensor:
    """GELU of a 3x3 depth-wise convolution of tokens; its backward pass keeps the input alone.

    Args:
        x: Tokens [B, H*W, C].
        weight: [C, 1, 3, 3], of any precision; sums are float32.
        bias: [C].
        height: H.
        width: W.

    Returns:
        Tokens [B, H*W, C] in the precision of `x`.
    """
    if runs_kernels(x):
        from . import conv_gelu_kernels

        return conv_gelu_kernels.forward(x, weight, bias, height, width)
    return F.gelu(convolve(x, weight, bias, height, width)).contiguous()


@torch.library.custom_op("pyramidvit::conv_gelu_backward", mutates_args=())
def conv_gelu_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `conv_gelu` for x, weight and bias, from that for what it returns."""
    if runs_kernels(x):
        from . import conv_gelu_kernels

        return conv_gelu_kernels.backward(grad, x, weight, bias, height, width)
    inner = torch.ops.aten.gelu_backward(grad, convolve(x, weight, bias, height, width))
    dim, grid = x.shape[2], (height, width)
    for_x, for_weight, for_bias = torch.ops.aten.convolution_backward(
        to_map(inner, grid), to_map(x, grid), weight.to(x.dtype), [dim], [1, 1], [1, 1], [1, 1],
        False, [0, 0], dim, [True, True, True],
    )  # fmt: skip
    for_x = to_tokens(for_x).contiguous()  # [B, H*W, C]
    return for_x, for_weight.to(weight.dtype).contiguous(), for_bias.to(bias.dtype)


def convolve(x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int) -> Tensor:
    """The convolution alone, by torch: tokens [B, H*W, C] to tokens [B, H*W, C]."""
    weight, bias, dim = weight.to(x.dtype), bias.to(x.dtype), x.shape[2]
    return to_tokens(F.conv2d(to_map(x, (height, width)), weight, bias, padding=1, groups=dim))


@conv_gelu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@conv_gelu_backward.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    like = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, weight, bias))
    return tuple(like)  # type: ignore[return-value]


def keep_input(ctx: object, inputs: tuple[object, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])  # type: ignore[attr-defined]
    ctx.size = inputs[3:]  # type: ignore[attr-defined]


def through_conv_gelu(ctx: object, grad: Tensor) -> tuple[Tensor | None, ...]:
    found = conv_gelu_backward(grad, *ctx.saved_tensors, *ctx.size)  # type: ignore[attr-defined]
    return (*found, None, None)


conv_gelu.register_autograd(through_conv_gelu, setup_context=keep_input)


@torch.library.custom_op("pyramidvit::add_norm", mutates_args=())
def add_norm_operator(
    x: Tensor, branch: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x + branch, its LayerNorm in `dtype`, and what the backward pass needs of that norm.

    Args:
        x: Tokens [B, N, C].
        branch: Tokens [B, N, C], perhaps in another precision.
        weight: [C], of the norm.
        bias: [C], of the norm.
        eps: What the norm adds to variances.
        dtype: Precision of the normalised tokens; the sum's is what torch's addition gives.

    Returns:
        The sum [B, N, C], the normalised sum [B, N, C], and in float32 the means and the inverse
        standard deviations [B, N].
    """
    if runs_kernels(x):
        from . import add_norm_kernels

        return add_norm_kernels.forward(x, branch, weight, bias, eps, dtype)
    total = (x + branch).contiguous()
    out, means, scales = torch.native_layer_norm(
        total.float(), (x.shape[-1],), weight.float(), bias.float(), eps
    )
    return total, out.to(dtype), means[..., 0], scales[..., 0]


@torch.library.custom_op("pyramidvit::add_norm_backward", mutates_args=())
def add_norm_backward(
    grad_total: Tensor,
    grad_out: Tensor,
    total: Tensor,
    means: Tensor,
    scales: Tensor,
    weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `add_norm` for both summands (it is the same), weight and bias."""
    if runs_kernels(total):
        from . import add_norm_kernels

        return add_norm_kernels.backward(grad_total, grad_out, total, means, scales, weight)
    shape, factor = (total.shape[-1],), weight.float()
    for_total, for_weight, for_bias = torch.ops.aten.native_layer_norm_backward(
        grad_out.float(), total.float(), shape, means[..., None], scales[..., None],
        factor, torch.zeros_like(factor), [True, True, True],
    )  # fmt: skip
    for_total = (for_total + grad_total).to(total.dtype)  # [B, N, C]
    return for_total.contiguous(), for_weight.to(weight.dtype), for_bias.to(weight.dtype)


@add_norm_operator.register_fake
def _(
    x: Tensor, branch: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    total = x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, branch.dtype))
    out = x.new_empty(x.shape, dtype=dtype)
    means, scales = (x.new_empty(x.shape[:-1], dtype=torch.float32) for _ in range(2))
    return total, out, means, scales


@add_norm_backward.register_fake
def _(
    grad_total: Tensor,
    grad_out: Tensor,
    total: Tensor,
    means: Tensor,
    scales: Tensor,
    weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        total.new_empty(total.shape),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape),
    )


def keep_sum(ctx: object, inputs: tuple[object, ...], output: tuple[Tensor, ...]) -> None:
    total, _, means, scales = output
    ctx.mark_non_differentiable(means, scales)  # type: ignore[attr-defined]
    ctx.save_for_backward(total, means, scales, inputs[2])  # type: ignore[attr-defined]
    ctx.precisions = inputs[0].dtype, inputs[1].dtype  # type: ignore[attr-defined]


def through_add_norm(
    ctx: object, grad_total: Tensor, grad_out: Tensor, *_: object
) -> tuple[Tensor | None, ...]:
    grad, *for_norm = add_norm_backward(grad_total, grad_out, *ctx.saved_tensors)  # type: ignore[attr-defined]
    first, second = ctx.precisions  # type: ignore[attr-defined]
    return (grad.to(first), grad.to(second), *for_norm, None, None)


add_norm_operator.register_autograd(through_add_norm, setup_context=keep_sum)


def add_norm(x: Tensor, branch: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """The residual sum of tokens [B, N, C] and what `norm` makes of it, in one pass on a GPU."""
    if not fast(x):
        x = x + branch
        return x, norm(x)
    dtype = torch.promote_types(x.dtype, branch.dtype)
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)  # what follows would round to it anyway
    total, normed, _, _ = add_norm_operator(x, branch, norm.weight, norm.bias, norm.eps, dtype)
    return total, normed
