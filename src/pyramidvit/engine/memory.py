"""What training keeps for the backward pass: counted, and held within a budget."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..options import TrainOptions
from .report import Reporter

CHOICES = ("none", "feed_forward", "blocks")  # from the most memory to the least


@runtime_checkable
class Recomputing(Protocol):
    """A backbone that can compute its activations again in the backward pass."""

    in_chans: int

    def set_recompute(self, what: Any) -> None: ...


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


def set_recompute(
    model: nn.Module, options: TrainOptions, fabric: Fabric, reporter: Reporter
) -> None:
    """Has the backbones recompute what the options say; tells what was chosen for auto."""
    backbones = [module for module in model.modules() if isinstance(module, Recomputing)]
    what: str = "blocks" if options.grad_checkpointing else options.recompute
    if what == "auto":
        what = choose(backbones, options, fabric, reporter)
    for backbone in backbones:
        backbone.set_recompute(what)


def choose(backbones: list[Any], options: TrainOptions, fabric: Fabric, reporter: Reporter) -> str:
    """The first choice whose kept activations fit into the budget, or else the last.

    They are those of one image of the largest size that training sees, counted, times the images
    that a process has at once. What heads keep is theirs, and beside the budget.
    """
    at_once = -(-options.batch_size // (fabric.world_size * options.accumulate))
    budget = options.memory_budget * 2**30
    kept = {}
    for what in CHOICES:
        kept[what] = at_once * sum(kept_of_image(b, what, options, fabric) for b in backbones)
        if kept[what] <= budget:
            break
    figures = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in kept.items())
    short = "" if kept[what] <= budget else "; NOTE: more than the budget: see --accumulate"
    reporter.say(
        "memory",
        f"--recompute {what}: of {at_once} images a backbone keeps {figures}"
        f" (--memory_budget {options.memory_budget:g}{short})",
    )
    return what


def kept_of_image(backbone: Any, what: str, options: TrainOptions, fabric: Fabric) -> int:
    """Bytes that a backbone keeps of one image in training."""
    backbone.set_recompute(what)
    backbone.train()
    image = torch.zeros(1, backbone.in_chans, *largest_image(options), device=fabric.device)
    with torch.random.fork_rng([]), fabric.autocast():
        return kept_bytes(backbone, lambda: backbone(image))


def largest_image(options: Any) -> tuple[int, int]:
    """(H, W) of the largest images that training sees, in the words of the tasks' options."""
    for name in ("image_size", "crop_side"):  # a classifier's, a segmenter's
        side = getattr(options, name, 0)
        if side:
            return side, side
    return tuple(-(-side // 32) * 32 for side in (options.short_side, options.long_side))
