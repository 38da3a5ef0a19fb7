"""Two processes that each see one image learn what one process learns from both."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from pyramidvit.structures import Batch, DetectionTarget, Origin, Sample, collate
from pyramidvit.tasks.detection.divisors import mean_of_processes
from pyramidvit.tasks.detection.loss import loss
from pyramidvit.tasks.detection.model import build_detector
from pyramidvit.tasks.detection.outputs import network_inputs

NAMES = ("atss", "gfl", "sparse_rcnn", "detr")
MANY = ((2, 2, 30, 40), (20, 10, 60, 50), (8, 30, 50, 60), (1, 1, 62, 62), (40, 5, 60, 20))
FEW = ((10, 10, 40, 44),)


def batch_of(*objects: tuple[tuple[int, int, int, int], ...]) -> Batch[DetectionTarget]:
    """An image of 64 x 64 for each list of boxes, alike for the same number of boxes."""
    samples = []
    for boxes in objects:
        torch.manual_seed(len(boxes))
        target = DetectionTarget(
            boxes=torch.tensor(boxes, dtype=torch.float32),
            labels=torch.arange(len(boxes)) % 3,
            crowd=torch.zeros(len(boxes), dtype=torch.bool),
        )
        origin = Origin(name="", size=(64, 64))
        samples.append(Sample(image=torch.randn(3, 64, 64), target=target, origin=origin))
    return collate(samples, divisor=32)


def terms_of(name: str, batch: Batch[DetectionTarget]) -> dict[str, float]:
    """The loss terms of a small detector that is the same wherever this is called."""
    torch.manual_seed(0)
    numbers = {"width": 16, **({} if name in ("atss", "gfl") else {"hidden": 16})}
    model = build_detector(name, "pvt_v2_b0", 3, **numbers).eval()
    if name == "gfl":  # as sure as after some training: of less than 1 no divisor is made
        torch.nn.init.zeros_(model.bbox_head.gfl_cls.bias)
    outputs = model(batch.images, **network_inputs(batch, learn=True))
    return {name: float(term.detach()) for name, term in loss(outputs, batch).items()}


def see_one_image(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    batch = batch_of((MANY, FEW)[rank])
    torch.save({name: terms_of(name, batch) for name in NAMES}, f"{folder}/{rank}.pt")
    with torch.no_grad():
        assert float(mean_of_processes(torch.tensor(rank))) == rank
    dist.destroy_process_group()


def test_the_mean_of_two_processes_losses_is_the_loss_of_both_images(tmp_path: Path) -> None:
    multiprocessing.start_processes(see_one_image, (str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name in NAMES:
        mean = {key: (found[0][name][key] + found[1][name][key]) / 2 for key in found[0][name]}
        wanted = terms_of(name, batch_of(MANY, FEW))
        if name == "detr":  # as in the reference, its classes are over each process's own weights
            assert mean.pop("classes") != pytest.approx(wanted.pop("classes"), rel=1e-3)
        assert mean == pytest.approx(wanted, rel=1e-4), name


def test_a_process_by_itself_divides_by_its_own_count() -> None:
    assert int(mean_of_processes(torch.tensor(7))) == 7
