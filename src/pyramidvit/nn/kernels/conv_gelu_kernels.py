"""Triton: a 3x3 depth-wise convolution, bias and GELU in one pass over tokens, and its gradients.

Between the convolution and the GELU nothing is written, so a forward pass keeps its input alone;
the backward pass convolves again. All sums are float32. A map's values lie as [B, H, W, C].
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import on_device_of

CHANNELS = 64  # of a tile
COLUMNS = 16  # of a tile at most
ROWS = 8  # of a program that sums the weights' gradients


@triton.jit
def convolve(
    source, weight, image, y, xs, cs, height, width, dim, flipped: tl.constexpr
):  # [columns, channels]
    """The convolution without bias at columns `xs` of row `y`, zeros around the map."""
    total = tl.zeros((xs.shape[0], cs.shape[0]), tl.float32)
    for tap in tl.static_range(9):
        values = shifted(source, tap, image, y, xs, cs, height, width, dim)
        place = 8 - tap if flipped else tap
        factor = tl.load(weight + place * dim + cs, mask=cs < dim, other=0.0).to(tl.float32)
        total += values * factor[None, :]
    return total


@triton.jit
def shifted(source, tap: tl.constexpr, image, y, xs, cs, height, width, dim):
    """What one of the 9 weights meets at columns `xs` of row `y`, as float32."""
    rows = y + tap // 3 - 1 + xs * 0  # a vector: the interpreter joins no scalar truths with them
    columns = xs + tap % 3 - 1
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    places = ((image * height + rows) * width + columns)[:, None] * dim + cs[None, :]
    mask = inside[:, None] & (cs < dim)[None, :]
    return tl.load(source + places, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def forward_kernel(
    source, weight, bias, out, height, width, dim, x_tile: tl.constexpr, c_tile: tl.constexpr
):
    """One program a row, its tile of columns and its tile of channels."""
    line = tl.program_id(0).to(tl.int64)
    image, y = line // height, line % height
    xs = tl.program_id(1) * x_tile + tl.arange(0, x_tile)
    cs = tl.program_id(2) * c_tile + tl.arange(0, c_tile)
    total = convolve(source, weight, image, y, xs, cs, height, width, dim, False)
    total += tl.load(bias + cs, mask=cs < dim, other=0.0).to(tl.float32)[None, :]
    result = total * 0.5 * (1 + tl.math.erf(total * 0.7071067811865476))
    places = (line * width + xs)[:, None] * dim + cs[None, :]
    mask = (xs < width)[:, None] & (cs < dim)[None, :]
    tl.store(out + places, result.to(out.dtype.element_ty), mask=mask)


@triton.jit
def inner_gradient_kernel(
    grad, source, weight, bias, inner, sums, lines, height, width, dim,
    lines_each: tl.constexpr, x_tile: tl.constexpr, c_tile: tl.constexpr,
):  # fmt: skip
    """The gradient before the GELU, and of a few rows the sums for weights (0 to 8) and bias (9).

    Each program writes sums of its own, which are then added in a fixed order: no atomic addition,
    whose order would be another one each time.
    """
    cs = tl.program_id(1) * c_tile + tl.arange(0, c_tile)
    shift = tl.load(bias + cs, mask=cs < dim, other=0.0).to(tl.float32)
    kinds = tl.arange(0, 16)  # 10 of them are meant: a tile's sides are powers of 2
    own = tl.zeros((16, c_tile), tl.float32)
    first = tl.program_id(0).to(tl.int64) * lines_each
    for line in range(first, min(first + lines_each, lines)):
        image, y = line // height, line % height
        for start in range(0, width, x_tile):
            xs = start + tl.arange(0, x_tile)
            total = convolve(source, weight, image, y, xs, cs, height, width, dim, False)
            total += shift[None, :]
            share = 0.5 * (1 + tl.math.erf(total * 0.7071067811865476))
            slope = share + total * tl.exp(-0.5 * total * total) * 0.3989422804014327
            places = (line * width + xs)[:, None] * dim + cs[None, :]
            mask = (xs < width)[:, None] & (cs < dim)[None, :]
            value = tl.load(grad + places, mask=mask, other=0.0).to(tl.float32) * slope
            tl.store(inner + places, value.to(inner.dtype.element_ty), mask=mask)
            for tap in tl.static_range(9):
                met = shifted(source, tap, image, y, xs, cs, height, width, dim)
                own += tl.where(kinds[:, None] == tap, tl.sum(met * value, axis=0)[None, :], 0.0)
            own += tl.where(kinds[:, None] == 9, tl.sum(value, axis=0)[None, :], 0.0)
    places = (tl.program_id(0).to(tl.int64) * 10 + kinds)[:, None] * dim + cs[None, :]
    tl.store(sums + places, own, mask=(kinds < 10)[:, None] & (cs < dim)[None, :])


@triton.jit
def input_gradient_kernel(
    inner, weight, out, height, width, dim, x_tile: tl.constexpr, c_tile: tl.constexpr
):
    """The convolution's gradient for its input: a convolution with the weights turned round."""
    line = tl.program_id(0).to(tl.int64)
    image, y = line // height, line % height
    xs = tl.program_id(1) * x_tile + tl.arange(0, x_tile)
    cs = tl.program_id(2) * c_tile + tl.arange(0, c_tile)
    total = convolve(inner, weight, image, y, xs, cs, height, width, dim, True)
    places = (line * width + xs)[:, None] * dim + cs[None, :]
    mask = (xs < width)[:, None] & (cs < dim)[None, :]
    tl.store(out + places, total.to(out.dtype.element_ty), mask=mask)


def forward(x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int) -> Tensor:
    """GELU(convolution + bias) of tokens [B, H*W, C] with weights [C, 1, 3, 3]."""
    x, taps = x.contiguous(), taps_of(weight)
    batch, _, dim = x.shape
    out = torch.empty_like(x)  # [B, H*W, C]
    columns = columns_of(width)
    grid = (batch * height, triton.cdiv(width, columns), triton.cdiv(dim, CHANNELS))
    with on_device_of(x):
        forward_kernel[grid](
            x, taps, bias, out, height, width, dim, x_tile=columns, c_tile=CHANNELS
        )
    return out


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients for x, weight and bias; the latter two are summed in float32."""
    grad, x, taps = grad.contiguous(), x.contiguous(), taps_of(weight)
    batch, _, dim = x.shape
    inner, out = torch.empty_like(x), torch.empty_like(x)  # [B, H*W, C] each
    lines, columns, tiles = batch * height, columns_of(width), triton.cdiv(dim, CHANNELS)
    programs = triton.cdiv(lines, ROWS)
    sums = torch.empty(programs, 10, dim, dtype=torch.float32, device=x.device)
    size = {"x_tile": columns, "c_tile": CHANNELS}
    with on_device_of(x):
        inner_gradient_kernel[(programs, tiles)](
            grad, x, taps, bias, inner, sums, lines, height, width, dim, lines_each=ROWS, **size
        )
        input_gradient_kernel[(lines, triton.cdiv(width, columns), tiles)](
            inner, taps, out, height, width, dim, **size
        )
    total = sums.sum(0)  # [10, C]
    for_weight = total[:9].t().reshape(weight.shape).to(weight.dtype)
    return out, for_weight.contiguous(), total[9].to(bias.dtype)


def taps_of(weight: Tensor) -> Tensor:
    """Weights [C, 1, 3, 3] as [9, C], which neighbouring threads read in one go."""
    return weight.reshape(-1, 9).t().contiguous()


def columns_of(width: int) -> int:
    return int(min(COLUMNS, triton.next_power_of_2(width)))
