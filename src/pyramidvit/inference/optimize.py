"""`optimize`: chooses how a model runs fastest here, prepares that, and compares it first."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..backbones.trunk import MIN_SIZE, Trunk
from ..errors import UserError
from . import compiled, openvino, packed
from .trunk import PreparedTrunk, Run, Shape, compute

RouteName = Literal["auto", "openvino", "compiled", "packed", "eager"]
Precision = Literal["float32", "bf16"]
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
TOLERANCE = 1e-4  # in float32, of the largest value of an output
ROUNDING = 2.0  # in bf16, times what the model as written loses
LOOKS = 4  # at how long a batch takes, of which the shortest counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A way to run a trunk.

    Attributes:
        seconds: What preparing it for a shape takes, roughly.
        check: Raises a `UserError` where a trunk cannot go this way on this machine.
        prepare: (trunk in evaluation mode, shape, dtype) to what runs images of that shape; None
            where packed weights or the model as written take all shapes.
        image_a_thread: Whether a large batch may run faster in pieces of an image for each thread,
            since what one image needs stays in the processor's cache. It is prepared both ways
            then, and whole it is kept where that is quicker.
    """

    seconds: float
    check: Callable[[Trunk], None]
    prepare: Callable[[Trunk, Shape, torch.dtype], Run] | None = None
    image_a_thread: bool = False


ROUTES = {  # from the quickest to the slowest
    "openvino": Route(
        seconds=10, check=openvino.check, prepare=openvino.prepare, image_a_thread=True
    ),
    "compiled": Route(seconds=60, check=compiled.check, prepare=compiled.prepare),
    "packed": Route(seconds=0.3, check=packed.check),
    "eager": Route(seconds=0, check=lambda trunk: None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What `optimize` did: the attribute `optimized` of what it returns.

    Attributes:
        route: The one that was taken.
        precision: In which it computes.
        difference: From the model as written in float32: the largest, as a share of the largest
            value of its output, over all outputs on noise.
        passed_over: Why quicker routes were not taken, a line each.
    """

    route: str
    precision: str
    difference: float
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        reasons = "".join(f"; {reason}" for reason in self.passed_over)
        return f"{self.route} in {self.precision}, {self.difference:.1g} off{reasons}"


def optimize(
    model: nn.Module,
    example: Tensor | int | Sequence[Any] = 224,
    *,
    route: RouteName = "auto",
    precision: Precision = "float32",
    patience: float = 5.0,
) -> nn.Module:
    """A form of a model for inference, which gives what the model gives, and sooner.

    A classifier or a pyramid of this package is prepared whole; of a detector or a segmenter its
    backbone is, and the rest of it is shared but for the layout of convolutions' weights. The
    result is compared with the model, on noise, before it is returned. It has no gradients and
    stays in evaluation mode; the weights are those that the model has now. Its attribute
    `optimized`, a `Choice`, says what was done.

    Args:
        model: A classifier, a pyramid, or whatever has one of them inside; float32. It is left as
            it is.
        example: What to prepare for: images, their shape (B, C, H, W), several such shapes, or a
            side in pixels for one square image. Other shapes work as well, through "packed".
        route: "packed", torch with weights packed once; "compiled", torch's compiler, which needs a
            C++ compiler and a minute, and keeps its work in a cache; "openvino", where that is
            installed; "eager", as written; "auto" for the quickest one that is there, takes at most
            `patience` to prepare and gives what the model gives.
        precision: "float32", or "bf16" for all that the trunk computes; outputs are float32.
        patience: Seconds that "auto" may take to prepare, roughly.

    Raises:
        UserError: The model has no trunk of this package in float32, or the route that was asked
            for cannot be taken here or gives something else.
        ValueError: A route, a precision or an example that there is not.
    """
    if route != "auto" and route not in ROUTES:
        raise ValueError(f"route must be auto or one of {', '.join(ROUTES)}, got {route!r}")
    if precision not in DTYPES:
        raise ValueError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}")
    trunk, dtype = find_trunk(model), DTYPES[precision]
    shapes = shapes_of(example, trunk.in_chans)
    passed_over: list[str] = []
    for name in list(ROUTES) if route == "auto" else [route]:
        ways = {way for shape in shapes for way in ways_of(ROUTES[name], shape)}
        seconds = ROUTES[name].seconds * len(ways)
        try:
            if route == "auto" and seconds > patience:
                raise UserError(f"{name} takes about {seconds:g} s to prepare")
            prepared = prepare(trunk, name, shapes, dtype)
            difference = compare(trunk, prepared, name, shapes, dtype)
        except UserError as error:
            if route != "auto" or name == "eager":
                raise
            passed_over.append(str(error))
            continue
        break
    found = put_in(model, trunk, prepared)
    if name != "eager":
        lay_out(found)
    choice = Choice(
        route=name, precision=precision, difference=difference, passed_over=tuple(passed_over)
    )
    object.__setattr__(found, "optimized", choice)
    return found


def find_trunk(model: nn.Module) -> Trunk:
    """The model itself, or what is in it.

    Raises:
        UserError: There is none, or more than one, or it is not in float32.
    """
    trunks = [part for part in model.modules() if isinstance(part, Trunk)]
    if len(trunks) != 1:
        raise UserError(
            f"optimize takes a model with one PVT of this package inside; {type(model).__name__}"
            f" has {len(trunks)}"
        )
    dtype = next(trunks[0].parameters()).dtype
    if dtype != torch.float32:
        raise UserError(f"optimize takes models in float32, got {dtype}: call model.float() before")
    return trunks[0]


def shapes_of(example: Tensor | int | Sequence[Any], in_chans: int) -> list[Shape]:
    """The shapes (B, C, H, W) that an example stands for.

    Raises:
        ValueError: It stands for none.
    """
    if isinstance(example, int):
        shapes: list[Shape] = [(1, in_chans, example, example)]
    elif isinstance(example, Tensor):
        shapes = [tuple(example.shape)]
    elif example and not isinstance(example[0], int):
        shapes = [tuple(shape) for shape in example]
    else:
        shapes = [tuple(example)]
    for shape in shapes:
        if len(shape) != 4 or shape[0] < 1 or shape[1] != in_chans or min(shape[2:]) < MIN_SIZE:
            raise ValueError(
                f"an example must have the shape (batch, {in_chans}, height, width) with sides from"
                f" {MIN_SIZE} up, got {shape}"
            )
    return shapes


def prepare(trunk: Trunk, name: str, shapes: Sequence[Shape], dtype: torch.dtype) -> PreparedTrunk:
    """A trunk made ready for a route.

    Raises:
        UserError: It cannot be taken here.
    """
    route = ROUTES[name]
    route.check(trunk)
    written = packed.share(trunk, torch.float32)
    if route.prepare is None:
        whole = packed.share(trunk, dtype) if name == "eager" else packed.pack(trunk, dtype)
        return PreparedTrunk(whole, {})
    runs: dict[Shape, Run] = {}
    try:
        for shape in dict.fromkeys(shapes):
            piece, batch = ways_of(route, shape)
            for way in {piece, batch} - runs.keys():
                runs[way] = route.prepare(written, way, dtype)
            if piece != batch and not is_quicker_whole(runs, batch, piece):
                del runs[batch]
    except Exception as error:  # of a foreign compiler, which may raise anything
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(f"route {name} failed on this machine: {reason[:200]}") from error
    return PreparedTrunk(packed.pack(trunk, dtype), runs)


def ways_of(route: Route, shape: Shape) -> tuple[Shape, Shape]:
    """The shapes that a route is prepared for: of pieces, and of the batch as it is."""
    return (cut(shape, torch.get_num_threads()) if route.image_a_thread else shape), shape


def cut(shape: Shape, most: int) -> Shape:
    """The shape of a piece of at most so many images, of which a batch of a shape is a multiple."""
    batch, *rest = shape
    piece = max(count for count in range(1, min(batch, most) + 1) if batch % count == 0)
    return piece, *rest


def is_quicker_whole(runs: Mapping[Shape, Run], shape: Shape, piece: Shape) -> bool:
    """Whether images of a shape are computed sooner as one batch than in pieces."""
    images = torch.zeros(shape)
    taken: dict[Shape, list[float]] = {shape: [], piece: []}
    for _ in range(LOOKS):
        for way, seconds in taken.items():
            start = time.perf_counter()
            compute(runs[way], images, way[0])
            seconds.append(time.perf_counter() - start)
    return min(taken[shape]) < min(taken[piece])


def compare(
    trunk: Trunk,
    prepared: PreparedTrunk,
    name: str,
    shapes: Sequence[Shape],
    dtype: torch.dtype,
) -> float:
    """The largest difference of a prepared trunk from the trunk, as a share of the largest value.

    Raises:
        UserError: It is too large.
    """
    written = PreparedTrunk(packed.share(trunk, torch.float32), {})
    rounded = None if dtype == torch.float32 else PreparedTrunk(packed.share(trunk, dtype), {})
    device = next(trunk.parameters()).device
    generator = torch.Generator().manual_seed(0)
    most = 0.0
    for shape in dict.fromkeys((*shapes, *prepared.runs)):
        images = torch.randn(shape, generator=generator).to(device)
        expected = written(images)
        limit = TOLERANCE if rounded is None else ROUNDING * difference(rounded(images), expected)
        found = difference(prepared(images), expected)
        if not found <= limit:
            raise UserError(
                f"route {name} gives something else than the model: for images of {shape} it is"
                f" {found:.1g} of the largest value off, and {limit:.1g} is allowed"
            )
        most = max(most, found)
    return most


def difference(found: Any, expected: Any) -> float:
    """The largest difference as a share of the largest value; infinite where shapes differ."""
    if isinstance(expected, Tensor):
        found, expected = [found], [expected]
    shares = [
        float((a - b).abs().max() / b.abs().max()) if a.shape == b.shape else float("inf")
        for a, b in zip(found, expected, strict=True)
    ]
    return max(shares) if all(share == share for share in shares) else float("inf")


def put_in(model: nn.Module, trunk: Trunk, prepared: PreparedTrunk) -> nn.Module:
    """The model with a prepared trunk in place of its own; all else is shared with it."""
    kept = [*model.parameters(), *model.buffers()]
    memo: dict[int, Any] = {id(each): each for each in kept}
    memo[id(trunk)] = prepared
    return copy.deepcopy(model, memo).eval()


def lay_out(found: nn.Module) -> None:
    """Gives convolutions weights in the order of channels-last maps: torch would copy them at every
    call, for every level of a pyramid. They stay parameters, since autocast keeps what it makes of
    those for the next level."""
    for part in found.modules():
        if isinstance(part, nn.Conv2d):
            weight = part.weight.detach().contiguous(memory_format=torch.channels_last)
            part.weight = nn.Parameter(weight, part.weight.requires_grad)
