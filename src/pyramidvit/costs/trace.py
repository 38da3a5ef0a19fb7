"""What a run would do and hold, told from shapes: nothing is computed and no memory is taken.

The model itself runs, on torch's fake tensors, which know their device, shape and layout and hold
nothing. So whatever is done to the model (recomputation, autocast, other kernels) is seen as it is.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

KEPT = 32 << 20  # bytes: blocks of so many and more glibc can't be told to keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of an operator.

    Attributes:
        name: In torch's words, such as "aten.addmm".
        macs: Multiply-adds of its products; 0 for what is no product.
        bytes: Read and written.
        large: Those of results for which glibc asks the system, and gives them back after use.
        dtype: Of its first result.
        depthwise: Whether it is a convolution of each channel by itself.
    """

    name: str
    macs: int
    bytes: int
    large: int
    dtype: torch.dtype
    depthwise: bool


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what is alive, and writes down operations, while its `with` lasts.

    Attributes:
        alive: Bytes that tensors hold now.
        peak: The most there were, since the trace began or `start_again`.
        operations: In their order, views left out.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.peak = 0
        self.held: dict[int, int] = {}  # storages by their addresses, and their bytes
        self.operations: list[Operation] = []

    def start_again(self) -> None:
        """Forgets the operations and the peak, not what is alive."""
        self.operations, self.peak = [], self.alive

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.prim.device.default:  # a question that fake tensors ask all the time
            return result
        results = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        fresh = [tensor for tensor in results if self.hold(tensor)]
        if fresh or not (func.is_view or func is torch.ops.aten._unsafe_view.default):
            self.note(func, args, kwargs or {}, result, results, fresh)
        return result

    def hold(self, tensor: Tensor) -> bool:
        """Counts a tensor's storage until it is let go of; False if it is counted already."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.held:
            return False
        self.held[key] = storage.nbytes()
        self.alive += self.held[key]
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self.let_go, key)
        return True

    def let_go(self, key: int) -> None:
        self.alive -= self.held.pop(key)

    def note(
        self,
        func: Any,
        args: Any,
        kwargs: dict[str, Any],
        result: Any,
        results: list[Tensor],
        fresh: list[Tensor],
    ) -> None:
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        name = str(func.overloadpacket)
        is_convolution = name in CONVOLUTIONS
        self.operations.append(
            Operation(
                name=name,
                macs=count_macs(func, args, kwargs, result),
                bytes=sum(map(size_of, (*given, *results))),
                large=sum(size for size in map(size_of, fresh) if size >= KEPT),
                dtype=results[0].dtype if results else torch.float32,
                depthwise=is_convolution and args[CONVOLUTIONS[name]].shape[1] == 1,
            )
        )


# Which argument is the weight. torch's own counts know no groups on the way back.
CONVOLUTIONS = {"aten.convolution": 1, "aten.convolution_backward": 2}
ONEDNN_LINEAR = "mkldnn._linear_pointwise"
ATTENTION = "aten._scaled_dot_product"


def count_macs(func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> int:
    """Multiply-adds of an operator; 0 for what is no product."""
    name = str(func.overloadpacket)
    if name == "aten.convolution":
        return int(prod(result.shape) * prod(args[1].shape[1:]))
    if name == "aten.convolution_backward":
        wanted = sum(args[-1][:2])  # of the gradients of input and weight
        return int(wanted * prod(args[0].shape) * prod(args[2].shape[1:]))
    if name == ONEDNN_LINEAR:
        return int(prod(result.shape) * args[0].shape[-1])
    if name.startswith(ATTENTION):  # of which older versions of torch count none on a CPU
        back = name.endswith("backward")
        queries, keys = args[back], args[1 + back]  # [B, heads, N or M, C / heads]
        return int((5 if back else 2) * prod(queries.shape) * keys.shape[2])
    formula: Callable[..., int] | None = flop_registry.get(func.overloadpacket)
    return 0 if formula is None else formula(*args, **kwargs, out_val=result) // 2


def size_of(tensor: Tensor) -> int:
    return prod(tensor.shape) * tensor.element_size()


@contextmanager
def shapes_alone() -> Iterator[Trace]:
    """Within it tensors are fake, and followed; outside they mean nothing."""
    trace = Trace()
    with FakeTensorMode(allow_non_fake_inputs=True), trace:  # a model may come from "meta"
        yield trace
