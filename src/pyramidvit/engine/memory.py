"""What autograd keeps from a forward pass for the backward pass, counted."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def kept_bytes(model: nn.Module, run: Callable[[], object]) -> int:
    """Bytes that autograd keeps from `run` for a backward pass, without the model's parameters.

    Memory is counted once, however many views of it are kept, and whole. Nothing is estimated, so
    a second run gives the same figure.
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes: dict[int, int] = {}
    held: list[Tensor] = []  # so that no address is used again

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(x)
        return x

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda x: x):
        result = run()
    del result
    return sum(sizes.values())
