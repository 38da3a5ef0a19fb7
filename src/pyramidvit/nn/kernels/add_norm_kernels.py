"""Triton: a residual sum and its LayerNorm in one pass over tokens, and its gradients.

All statistics and sums are float32. A program has a few tokens, each of them whole.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import on_device_of

VALUES = 2048  # of a tile: tokens times channels, the latter rounded up to a power of 2
TILES = 8  # of a program that sums the gradients for weight and bias


@triton.jit
def forward_kernel(
    x, branch, weight, bias, total, out, means, scales, tokens, dim, eps,
    n_tile: tl.constexpr, c_tile: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * n_tile + tl.arange(0, n_tile)
    cs = tl.arange(0, c_tile)
    mask = (rows < tokens)[:, None] & (cs < dim)[None, :]
    places = rows[:, None] * dim + cs[None, :]
    value = tl.load(x + places, mask=mask, other=0.0).to(tl.float32)
    value += tl.load(branch + places, mask=mask, other=0.0).to(tl.float32)
    value = value.to(total.dtype.element_ty)
    tl.store(total + places, value, mask=mask)
    value = value.to(tl.float32)  # the norm sees the sum as it is kept
    mean = tl.sum(value, axis=1) / dim  # [tokens]
    centred = tl.where(mask, value - mean[:, None], 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, axis=1) / dim + eps)
    factor = tl.load(weight + cs, mask=cs < dim, other=0.0).to(tl.float32)
    shift = tl.load(bias + cs, mask=cs < dim, other=0.0).to(tl.float32)
    result = centred * scale[:, None] * factor[None, :] + shift[None, :]
    tl.store(out + places, result.to(out.dtype.element_ty), mask=mask)
    tl.store(means + rows, mean, mask=rows < tokens)
    tl.store(scales + rows, scale, mask=rows < tokens)


@triton.jit
def backward_kernel(
    grad_total, grad_out, total, means, scales, weight, grad, sums, tokens, dim,
    tiles: tl.constexpr, n_tile: tl.constexpr, c_tile: tl.constexpr,
):  # fmt: skip
    """The gradient of both summands; each program's own sums for weight (0) and bias (1)."""
    cs = tl.arange(0, c_tile)
    factor = tl.load(weight + cs, mask=cs < dim, other=0.0).to(tl.float32)
    for_weight = tl.zeros((c_tile,), tl.float32)
    for_bias = tl.zeros((c_tile,), tl.float32)
    first = tl.program_id(0).to(tl.int64) * tiles * n_tile
    for tile in range(tiles):
        rows = first + tile * n_tile + tl.arange(0, n_tile)
        mask = (rows < tokens)[:, None] & (cs < dim)[None, :]
        places = rows[:, None] * dim + cs[None, :]
        mean = tl.load(means + rows, mask=rows < tokens, other=0.0)
        scale = tl.load(scales + rows, mask=rows < tokens, other=0.0)
        value = tl.load(total + places, mask=mask, other=0.0).to(tl.float32)
        unit = tl.where(mask, (value - mean[:, None]) * scale[:, None], 0.0)
        given = tl.load(grad_out + places, mask=mask, other=0.0).to(tl.float32)
        for_weight += tl.sum(given * unit, axis=0)
        for_bias += tl.sum(given, axis=0)
        given *= factor[None, :]
        level = tl.sum(given, axis=1) / dim
        slope = tl.sum(given * unit, axis=1) / dim
        result = scale[:, None] * (given - level[:, None] - unit * slope[:, None])
        result += tl.load(grad_total + places, mask=mask, other=0.0).to(tl.float32)
        tl.store(grad + places, result.to(grad.dtype.element_ty), mask=mask)
    places = tl.program_id(0).to(tl.int64) * 2 * dim + cs
    tl.store(sums + places, for_weight, mask=cs < dim)
    tl.store(sums + places + dim, for_bias, mask=cs < dim)


def forward(
    x: Tensor, branch: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x + branch of tokens [B, N, C], its LayerNorm in `dtype`, means and inverse deviations."""
    x, branch = x.contiguous(), branch.contiguous()
    dim = x.shape[-1]
    total = torch.empty_like(x, dtype=torch.promote_types(x.dtype, branch.dtype))  # [B, N, C]
    out = torch.empty_like(x, dtype=dtype)  # [B, N, C]
    means = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)  # [B, N]
    scales = torch.empty_like(means)  # [B, N]
    tokens, size = means.numel(), tile(dim)
    with on_device_of(x):
        forward_kernel[(triton.cdiv(tokens, size["n_tile"]),)](
            x, branch, weight, bias, total, out, means, scales, tokens, dim, eps, **size
        )
    return total, out, means, scales


def backward(
    grad_total: Tensor,
    grad_out: Tensor,
    total: Tensor,
    means: Tensor,
    scales: Tensor,
    weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of the sum, of the norm's weight and of its bias."""
    grad_total, grad_out = grad_total.contiguous(), grad_out.contiguous()
    dim, tokens = total.shape[-1], means.numel()
    size = tile(dim)
    programs = triton.cdiv(tokens, TILES * size["n_tile"])
    grad = torch.empty_like(total)  # [B, N, C]
    sums = torch.empty(programs, 2, dim, dtype=torch.float32, device=total.device)
    with on_device_of(total):
        backward_kernel[(programs,)](
            grad_total, grad_out, total, means, scales, weight, grad, sums, tokens, dim,
            tiles=TILES, **size,
        )  # fmt: skip
    for_weight, for_bias = sums.sum(0).to(weight.dtype).unbind()
    return grad, for_weight.clone(), for_bias.clone()


def tile(dim: int) -> dict[str, int]:
    """How many tokens a tile has, and how many channels."""
    channels = triton.next_power_of_2(dim)
    return {"n_tile": max(1, VALUES // channels), "c_tile": channels}
