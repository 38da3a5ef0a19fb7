"""Memory, operations and time of a model in inference and training, without running it.

Memory is the most that a process holds beyond what it held before the model was built: weights,
AdamW's two moments, gradients, and what is alive of activations at the worst moment (from
`trace`), and on a CPU what its allocator and its libraries take beyond that.

Time is an estimate: each operation takes as long as its arithmetic or its bytes, whichever is
longer, at the rates that operations of its kind reach on the device (`machine`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.operations import count_operations
from ..models import create_model
from .trace import Operation, shapes_alone

Use = Literal["inference", "training"]


class Recomputation(NamedTuple):
    """What is computed again in the backward pass instead of being kept.

    Attributes:
        switch_on: What is done to a model.
        heap: On a CPU, what glibc takes for each byte of activations that is asked for, as they
            come and go in all sizes. Measured by `benchmarks/plan_against_measured.py`.
    """

    switch_on: Callable[[Any], None]
    heap: float


RECOMPUTATIONS = {
    "none": Recomputation(lambda model: None, heap=1.19),
    "feed_forward": Recomputation(lambda model: model.set_recompute("feed_forward"), heap=1.5),
    "blocks": Recomputation(lambda model: model.set_recompute("blocks"), heap=1.72),
}
WITH_AUTOCAST = {"float32": False, "bf16": True}
# Bytes that torch and oneDNN load and set up on a CPU when they first compute; measured as well.
RUNTIME = {"float32": 30e6, "bf16": 85e6}
UPDATE = 28  # bytes that AdamW reads and writes for a parameter: it, its gradient, its two moments


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is to be planned.

    Attributes:
        model: A name of `list_models()`.
        size: (H, W) of the images.
        batch: Images at a time.
        use: Inference without gradients, or training with AdamW.
        precision: "float32", or "bf16" for mixed precision.
        recompute: A name of `RECOMPUTATIONS`; without effect in inference.
        features: The four maps instead of logits.
        device: "cpu" or "cuda".
    """

    model: str
    size: tuple[int, int] = (224, 224)
    batch: int = 1
    use: Use = "inference"
    precision: str = "float32"
    recompute: str = "none"
    features: bool = False
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a setting takes.

    Attributes:
        parameters: Numbers in the model.
        macs: Multiply-adds of one image's forward pass, attention included.
        attention: Those of them that are products of queries with keys and of weights with values.
        fixed: Bytes of weights and of the optimizer's moments.
        memory: Bytes at the worst moment, `fixed` and gradients included.
        operations: Of one step.
    """

    parameters: int
    macs: int
    attention: int
    fixed: int
    memory: int
    operations: Sequence[Operation]


def plan(setting: Setting) -> Plan:
    """Plans a setting."""
    with torch.device("meta"):
        bare = create_model(setting.model, features_only=setting.features)
    counted = count_operations(bare, setting.size)
    parameters = sum(p.numel() for p in bare.parameters())
    training = setting.use == "training"
    recomputation = RECOMPUTATIONS[setting.recompute if training else "none"]
    with shapes_alone() as trace, torch.device(setting.device):
        model = bare.to_empty(device=setting.device)  # no initial weights: they look at numbers
        moments: list[Tensor] = []
        if training:
            moments = [torch.empty_like(p) for p in model.parameters() for _ in range(2)]
        fixed = trace.alive
        images = torch.empty(setting.batch, 3, *setting.size)
        trace.start_again()
        if training:
            recomputation.switch_on(model)
            train_once(model.train(), images, setting)
        else:
            look_once(model.eval(), images, setting)
        peak, operations = trace.peak, trace.operations
        del moments
    if training:
        operations.append(
            Operation(
                name="AdamW",
                macs=0,
                bytes=UPDATE * parameters,
                large=0,
                dtype=torch.float32,
                depthwise=False,
            )
        )
    memory = float(peak)
    if setting.device == "cpu":
        memory = fixed + recomputation.heap * (peak - fixed) + RUNTIME[setting.precision]
    return Plan(
        parameters=parameters,
        macs=counted.macs,
        attention=counted.attention,
        fixed=fixed,
        memory=round(memory),
        operations=operations,
    )


def autocast(setting: Setting) -> torch.autocast:
    return torch.autocast(setting.device, torch.bfloat16, enabled=WITH_AUTOCAST[setting.precision])


@torch.no_grad()
def look_once(model: nn.Module, images: Tensor, setting: Setting) -> None:
    with autocast(setting):
        model(images)


def train_once(model: nn.Module, images: Tensor, setting: Setting) -> None:
    """A forward and a backward pass; the optimizer needs nothing beyond its moments."""
    with autocast(setting):
        outputs = model(images)
        loss = loss_of(outputs)
    del outputs
    torch.autograd.backward(loss)


def loss_of(outputs: Any) -> Tensor:
    """A loss like that of training: cross-entropy of logits; of maps, something of their size."""
    if isinstance(outputs, Tensor):
        labels = torch.zeros(len(outputs), dtype=torch.int64, device=outputs.device)
        return F.cross_entropy(outputs.float(), labels)
    return torch.stack([x.float().square().mean() for x in outputs]).sum()
