"""What a backbone costs: multiply-adds of one image, exact and as the papers count them.

The papers' GFLOPs come from the reference's classification/get_flops.py: hooks of mmcv 1.3.8 on the
layers, and a closed form for the attention products. One multiply-add is one operation in both.
"""

import copy
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor, nn

from ..nn.attention import LinearSpatialReductionAttention, SpatialReductionAttention
from .trunk import STRIDES, Trunk

LayerShapes = dict[str, tuple[torch.Size, torch.Size]]  # layer name: shapes of input and output


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """The cost of one image; every number is a count of operations, not a time.

    Attributes:
        linear: Multiply-adds of the linear layers, without biases.
        conv: Multiply-adds of the convolutions, without biases.
        attention: Multiply-adds of the products of queries with keys and of weights with values.
        published: The papers' figure, which counts some other operations too.
    """

    linear: int
    conv: int
    attention: int
    published: int

    @property
    def macs(self) -> int:
        return self.linear + self.conv + self.attention


def count_operations(model: Trunk, size: tuple[int, int] = (224, 224)) -> Operations:
    """Counts the operations of a classifier or a pyramid on one image of `size` (height, width).

    Nothing is computed: a copy of the model runs on shapes alone.
    """
    shapes = trace(model, size)
    linear = conv = others = attention = published_attention = 0
    for name, layer in model.named_modules():
        if isinstance(layer, SpatialReductionAttention | LinearSpatialReductionAttention):
            (_, tokens, dim), (_, keys, _) = (shapes[f"{name}.{part}"][0] for part in ("q", "kv"))
            attention += 2 * tokens * keys * dim
            stage = int(name.removeprefix("block")[0]) - 1  # "block3.5.attn" is in stage 2
            published_attention += closed_form(layer, size, STRIDES[stage])
        if name not in shapes:
            continue
        source, result = shapes[name]
        if isinstance(layer, nn.Linear):
            linear += prod(source) * layer.out_features
        elif isinstance(layer, nn.Conv2d):
            conv += prod(result) * prod(layer.weight.shape[1:])
            others += prod(result)  # the bias
        elif isinstance(layer, nn.LayerNorm):
            others += 2 * prod(source)
        elif isinstance(layer, nn.ReLU | nn.AdaptiveAvgPool2d):
            others += prod(source)
    published = linear + conv + others + published_attention
    return Operations(linear=linear, conv=conv, attention=attention, published=published)


def trace(model: Trunk, size: tuple[int, int]) -> LayerShapes:
    """The shapes that pass through every layer without children, from a run without data."""
    model = copy.deepcopy(model).to("meta").eval()
    shapes: LayerShapes = {}

    def record(name: str, layer: nn.Module, args: tuple[Tensor], result: Tensor) -> None:
        shapes[name] = args[0].shape, result.shape

    for name, layer in model.named_modules():
        if not any(layer.children()):
            layer.register_forward_hook(partial(record, name))
    weight = model.get_parameter("patch_embed1.proj.weight")  # [C, in_chans, kernel, kernel]
    with torch.no_grad():
        model(weight.new_empty(1, weight.shape[1], *size))
    return shapes


def closed_form(
    layer: SpatialReductionAttention | LinearSpatialReductionAttention,
    size: tuple[int, int],
    stride: int,
) -> int:
    """The reference's formula for the attention products of one block.

    It rounds every grid down, also where v2 rounds up, and knows no class token.
    """
    height, width = size[0] // stride, size[1] // stride
    if isinstance(layer, LinearSpatialReductionAttention):
        keys = 7 * 7
    else:
        ratio = layer.sr.kernel_size[0] if layer.sr is not None else 1
        keys = (height // ratio) * (width // ratio)
    return 2 * height * width * keys * layer.q.in_features
