"""The second half of a block, norm and feed-forward network, that keeps little but its input.

Its hidden tensors, 4 or 8 times as wide as the tokens and three of them, are most of what a model
keeps for the backward pass. Here the backward pass computes them again, a few images at a time, so
that they are small while they exist. The gradients are written out rather than left to autograd:
that saves the second matrix product of the forward pass, and lets buffers be used twice.

Sums for weights are added up in float32, or in float64 where the weights are, whatever precision
the products have.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from .bounds import Bounds, clear
from .feed_forward import ConvFeedForward, FeedForward
from .kernels.operators import conv_gelu, conv_gelu_backward, convolve, fast
from .tokens import Grid, to_map, to_tokens

PIECE = {"cpu": 8 << 20, "cuda": 256 << 20}  # bytes of a hidden tensor at a time: a CPU's cache
# A value of the first layer's output costs 2 * C operations and a few bytes. From this width C on
# it is kept: the late stages have few tokens, and keeping all of theirs is little.
WIDE = 160


class Half(NamedTuple):
    """What the computation needs beside tensors that gradients are for."""

    grid: Grid
    bounds: Bounds | None
    eps: float
    relu_first: bool
    dtype: torch.dtype  # of products


class Weights(NamedTuple):
    """Parameters in the order in which they are handed in; plain networks have no convolution."""

    norm_weight: Tensor
    norm_bias: Tensor
    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor
    conv_weight: Tensor | None = None
    conv_bias: Tensor | None = None


def second_half(
    norm: nn.LayerNorm, mlp: nn.Module, x: Tensor, grid: Grid, bounds: Bounds | None
) -> Tensor:
    """mlp(norm(x)) of tokens [B, N, C], which keeps x for the backward pass, and little else.

    Layers that somebody put in the place of ours, or listens to, are run as they are, and again in
    the backward pass.
    """
    weights = known_weights(norm, mlp)
    if weights is None:
        run = lambda x: mlp(norm(x), grid, bounds)  # noqa: E731
        out: Tensor = checkpoint(run, x, use_reentrant=False)
        return out
    kind = x.device.type
    mixed = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if mixed else x.dtype
    relu_first = isinstance(getattr(mlp, "relu", None), nn.ReLU)
    half = Half(grid, bounds, norm.eps, relu_first, dtype)
    given = [w for w in weights if w is not None]
    out = SecondHalf.apply(x, half, *given)
    return out


def known_weights(norm: nn.Module, mlp: nn.Module) -> Weights | None:
    """The parameters, or None where a layer is not one of ours as it was built."""
    if type(norm) is not nn.LayerNorm or type(mlp) not in (FeedForward, ConvFeedForward):
        return None
    layers: list[nn.Module] = [norm, mlp.fc1, mlp.fc2]  # type: ignore[list-item]
    kinds: list[type[nn.Module]] = [nn.LayerNorm, nn.Linear, nn.Linear]
    if isinstance(mlp, ConvFeedForward):
        layers.append(mlp.dwconv.dwconv)
        kinds.append(nn.Conv2d)
    if any(type(layer) is not kind for layer, kind in zip(layers, kinds, strict=True)):
        return None
    if any(m._forward_hooks or m._forward_pre_hooks for m in (norm, *mlp.modules())):
        return None
    return Weights(*(p for layer in layers for p in (layer.weight, layer.bias)))  # type: ignore[arg-type]


class SecondHalf(torch.autograd.Function):
    """See the head of this file."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, half: Half, *given: Tensor) -> Tensor:
        kept, parts = [], []
        with torch.autocast(x.device.type, enabled=False):
            weights = Weights(*(w.to(half.dtype) for w in given))
            for piece in pieces(x, weights, half):
                hidden = widen(normalise(x[piece], given, half)[0], weights, half, piece)
                activated = activate(hidden, weights, half)  # [b, N, E]
                parts.append(linear(activated, weights.fc2_weight, weights.fc2_bias))
                if x.shape[2] >= WIDE:
                    kept.append(hidden)
        ctx.save_for_backward(x, *given, *kept)
        ctx.half, ctx.count = half, len(given)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        given, kept, half = saved[: ctx.count], saved[ctx.count :], ctx.half
        sums = [torch.zeros_like(w, dtype=sum_precision(w)) for w in given]
        parts = []
        with torch.autocast(x.device.type, enabled=False):
            weights = Weights(*(w.to(half.dtype) for w in given))
            for i, piece in enumerate(pieces(x, weights, half)):
                tokens, *statistics = normalise(x[piece], given, half)
                hidden = kept[i] if kept else widen(tokens, weights, half, piece)
                back, for_weights = through_network(
                    grad[piece].to(half.dtype), tokens, hidden, weights, half, piece
                )
                found, for_norm = through_norm(back, x[piece], statistics, given)
                parts.append(found)
                for total, term in zip(sums, [*for_norm, *for_weights], strict=True):
                    total += term
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        return (whole, None, *(total.to(w.dtype) for total, w in zip(sums, given, strict=True)))


def through_network(
    grad: Tensor, tokens: Tensor, hidden: Tensor, weights: Weights, half: Half, piece: slice
) -> tuple[Tensor, list[Tensor]]:
    """The gradient behind the norm, for a piece, and its terms of those for the weights.

    A hidden tensor is used up as soon as there is one, while a cache may have it still.
    """
    rows, convolved = grad.flatten(0, 1), hidden  # [b * N, C], [b, N, E]
    # Any, since None is looked for in the next line
    convolution: tuple[Any, Any] = weights.conv_weight, weights.conv_bias
    fused = weights.conv_weight is not None and fast(hidden)
    if fused:
        activated = conv_gelu(hidden, *convolution, *half.grid)
    else:
        if weights.conv_weight is not None:
            convolved = convolve(hidden, *convolution, *half.grid)
        activated = F.gelu(convolved)
    for_fc2 = [rows.t() @ activated.flatten(0, 1), rows.sum(0, dtype=sum_precision(rows))]
    del activated
    inner, for_conv = linear(grad, weights.fc2_weight.t(), None), []  # [b, N, E]
    if fused:
        inner, *for_conv = conv_gelu_backward(inner, hidden, *convolution, *half.grid)
    else:
        torch.ops.aten.gelu_backward.grad_input(inner, convolved, grad_input=inner)
        del convolved
        if weights.conv_weight is not None:
            inner, *for_conv = through_convolution(inner, hidden, weights.conv_weight, half.grid)
    if half.bounds is not None and for_conv:
        inner = to_tokens(clear(to_map(inner, half.grid), cut(half.bounds, piece)))
    if half.relu_first:
        inner = torch.ops.aten.threshold_backward(inner, hidden, 0)
    lines = inner.flatten(0, 1)  # [b * N, E]
    for_fc1 = [lines.t() @ tokens.flatten(0, 1), lines.sum(0, dtype=sum_precision(lines))]
    back = linear(inner, weights.fc1_weight.t(), None)  # [b, N, C]
    return back, [*for_fc1, *for_fc2, *for_conv]


def through_convolution(
    grad: Tensor, hidden: Tensor, weight: Tensor, grid: Grid
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients for hidden tokens, for the convolution's weights and for its bias."""
    dim, whole = hidden.shape[2], [True, True, True]
    for_map, for_weight, for_bias = torch.ops.aten.convolution_backward(
        to_map(grad, grid), to_map(hidden, grid), weight, [dim], [1, 1], [1, 1], [1, 1], False,
        [0, 0], dim, whole,
    )  # fmt: skip
    return to_tokens(for_map), for_weight, for_bias


def through_norm(
    grad: Tensor, x: Tensor, statistics: Sequence[Tensor], given: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The gradient for a piece of the tokens, and its terms of those for the norm's parameters."""
    source = x.to(norm_precision(x, given[0]))
    for_x, *for_norm = torch.ops.aten.native_layer_norm_backward(
        grad.to(source.dtype), source, x.shape[-1:], *statistics, *given[:2], [True, True, True]
    )
    return for_x.to(x.dtype), for_norm


def normalise(x: Tensor, given: Sequence[Tensor], half: Half) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens behind the norm in the products' precision, and the norm's means and scales."""
    x = x.to(norm_precision(x, given[0]))
    tokens, means, scales = torch.native_layer_norm(x, x.shape[-1:], given[0], given[1], half.eps)
    return tokens.to(half.dtype), means, scales


def norm_precision(x: Tensor, weight: Tensor) -> torch.dtype:
    """The norm's, as autocast has it: on a GPU its weights', on a CPU that of the tokens."""
    return weight.dtype if x.is_cuda else x.dtype


def sum_precision(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def widen(tokens: Tensor, weights: Weights, half: Half, piece: slice) -> Tensor:
    """What the convolution, or the GELU of a plain network, is given: [b, N, E]."""
    hidden = linear(tokens, weights.fc1_weight, weights.fc1_bias)  # [b, N, E]
    if half.relu_first:
        hidden.relu_()
    if weights.conv_weight is None or half.bounds is None:
        return hidden
    return to_tokens(clear(to_map(hidden, half.grid), cut(half.bounds, piece)))


def activate(hidden: Tensor, weights: Weights, half: Half) -> Tensor:
    """What the second linear layer is given: [b, N, E]."""
    if weights.conv_weight is None or weights.conv_bias is None:
        return F.gelu(hidden)
    if fast(hidden):
        out: Tensor = conv_gelu(hidden, weights.conv_weight, weights.conv_bias, *half.grid)
        return out
    convolved = convolve(hidden, weights.conv_weight, weights.conv_bias, *half.grid)
    activated: Tensor = torch.ops.aten.gelu_(convolved)  # in place: nobody keeps it
    return activated


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias. On a CPU by oneDNN, which torch asks for bfloat16 alone by itself.

    The operator is torch's own but private, hence looked for; it has no gradient.
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and ONEDNN is not None:
        out: Tensor = ONEDNN(x, weight, bias, "none", [], "")
        return out
    return F.linear(x, weight, bias)


def find_onednn() -> Any:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


ONEDNN = find_onednn()


def pieces(x: Tensor, weights: Weights, half: Half) -> list[slice]:
    """A few images at a time, and at least one."""
    bytes_each = x.shape[1] * weights.fc1_weight.shape[0] * half.dtype.itemsize
    count = max(1, PIECE.get(x.device.type, PIECE["cuda"]) // bytes_each)
    return [slice(start, start + count) for start in range(0, x.shape[0], count)]


def cut(bounds: Bounds, piece: slice) -> Bounds:
    """The bounds of some images of a batch."""
    part = Bounds((), bounds.padded, bounds.device)
    part.own = bounds.own[piece]
    return part
