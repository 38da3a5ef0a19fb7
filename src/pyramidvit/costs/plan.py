"""Memory, operations and time of a model in inference and training, without running it.

Memory is the most that a process holds beyond what it held before the model was built: weights,
AdamW's two moments, gradients, and what is alive of activations at the worst moment (from
`trace`). On a CPU some is added for what torch loads and sets up when it first computes.

Time is an estimate: each operation takes as long as its arithmetic at the device's peak or its
bytes at the device's bandwidth, whichever is longer, at the efficiencies below.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.operations import count_operations
from ..models import create_model
from .trace import Operation, Trace, shapes_alone

Use = Literal["inference", "training"]

# What is computed again in the backward pass instead of being kept: a mode is a change of a model.
RECOMPUTATIONS: dict[str, Callable[[Any], None]] = {
    "nothing": lambda model: None,
    "blocks": lambda model: model.set_grad_checkpointing(),
}
WITH_AUTOCAST = {"float32": False, "bf16": True}
RUNTIME = {"inference": 0, "training": 0}  # bytes; see docs/benchmarks.md


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
    recompute: str = "nothing"
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
    with shapes_alone() as trace, torch.device(setting.device):
        model = create_model(setting.model, features_only=setting.features)
        moments: list[Tensor] = []
        if setting.use == "training":
            moments = [torch.empty_like(p) for p in model.parameters() for _ in range(2)]
        fixed = trace.alive
        images = torch.empty(setting.batch, 3, *setting.size)
        trace.start_again()
        if setting.use == "training":
            RECOMPUTATIONS[setting.recompute](model)
            train_once(model.train(), images, setting, trace)
        else:
            look_once(model.eval(), images, setting)
        peak, operations = trace.peak, trace.operations
        del moments
    runtime = RUNTIME[setting.use] if setting.device == "cpu" else 0
    return Plan(
        parameters=sum(p.numel() for p in bare.parameters()),
        macs=counted.macs,
        attention=counted.attention,
        fixed=fixed,
        memory=peak + runtime,
        operations=operations,
    )


def autocast(setting: Setting) -> torch.autocast:
    return torch.autocast(setting.device, torch.bfloat16, enabled=WITH_AUTOCAST[setting.precision])


@torch.no_grad()
def look_once(model: nn.Module, images: Tensor, setting: Setting) -> None:
    with autocast(setting):
        model(images)


def train_once(model: nn.Module, images: Tensor, setting: Setting, trace: Trace) -> None:
    """A forward and a backward pass; the optimizer needs nothing beyond its moments."""
    with autocast(setting):
        outputs = model(images)
        loss = loss_of(outputs)
    del outputs
    loss.backward()


def loss_of(outputs: Any) -> Tensor:
    """A loss like that of training: cross-entropy of logits; of maps, something of their size."""
    if isinstance(outputs, Tensor):
        labels = torch.zeros(len(outputs), dtype=torch.int64, device=outputs.device)
        return F.cross_entropy(outputs.float(), labels)
    return torch.stack([x.float().square().mean() for x in outputs]).sum()
