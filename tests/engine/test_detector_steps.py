"""An update of a detector in parts, and with activations computed again: the same gradients."""

import pytest
import torch
from torch import Tensor

from pyramidvit.data.scenes import load_scene_data
from pyramidvit.engine.device import build_fabric
from pyramidvit.engine.loader import seed_all
from pyramidvit.engine.report import Reporter
from pyramidvit.engine.run import build_run
from pyramidvit.engine.train import add_gradients
from pyramidvit.structures import collate
from pyramidvit.tasks.detection.config import DetectionOptions
from pyramidvit.tasks.detection.task import DETECTION

SMALL = {"short_side": 64, "long_side": 64, "width": 8, "batch_size": 2, "num_scales": 1}


def gradients_of(**changes: object) -> tuple[float, dict[str, Tensor], int]:
    """The loss of one image taken twice, its gradients, and how often a block was computed.

    Twice the same, for RetinaNet divides by the anchors of objects in what it sees at once.
    """
    options = DetectionOptions(**(SMALL | changes))  # type: ignore[arg-type]
    data = load_scene_data(seed=0, train=2, validation=1)
    run = build_run(
        DETECTION, options, data, build_fabric("cpu", 1, "float32"), Reporter(speaks=False)
    )
    seed_all(1)
    sample = run.transform(data.splits["train"][0])
    calls: list[int] = []
    run.bare.backbone.block1[0].register_forward_pre_hook(lambda *_: calls.append(1))  # type: ignore
    run.model.train()
    seed_all(2)
    loss = add_gradients(run, collate([sample, sample], divisor=DETECTION.divisor))
    named = run.bare.named_parameters()
    return float(loss), {name: p.grad for name, p in named if p.grad is not None}, len(calls)


@pytest.mark.parametrize(
    ("plain", "changed", "calls"),
    [
        ({"drop_path_rate": 0.0}, {"accumulate": 2}, (1, 2)),
        ({"drop_path_rate": 0.3}, {"grad_checkpointing": True}, (1, 2)),
    ],
)
def test_a_detector_saves_memory_and_gets_the_same_gradients(
    plain: dict[str, object], changed: dict[str, object], calls: tuple[int, int]
) -> None:
    loss, gradients, once = gradients_of(**plain)
    again, others, twice = gradients_of(**plain, **changed)
    assert (once, twice) == calls
    assert again == pytest.approx(loss, rel=1e-5)
    assert others.keys() == gradients.keys()
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-6 * largest)
