"""With masked padding, no detector's answer depends on how far an image is padded."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pyramidvit import create_model
from pyramidvit.ops.masks import encode_masks
from pyramidvit.ops.regions import pool_regions
from pyramidvit.structures import Batch, Classes, DetectionTarget, Origin, Sample, collate
from pyramidvit.tasks.detection.config import DetectionOptions
from pyramidvit.tasks.detection.loss import loss
from pyramidvit.tasks.detection.model import build_detector
from pyramidvit.tasks.detection.network import describe_model, forward, rebuild
from pyramidvit.tasks.detection.outputs import Decoding, RegionDetections, network_inputs
from pyramidvit.tasks.detection.table import HEADS

SIZES = ((64, 33), (30, 64))  # their own parts are 64 x 64 and 32 x 64
LIGHT: dict[str, dict[str, Any]] = {
    "retinanet": {},
    "faster_rcnn": {"hidden": 32},
    "mask_rcnn": {"hidden": 32},
    "atss": {},
    "gfl": {},
    "sparse_rcnn": {"hidden": 32, "depth": 2, "proposals": 10},
    "detr": {"hidden": 32, "depth": 2, "queries": 10, "drop_rate": 0.0},
    "cascade_mask_rcnn": {"hidden": 32},
}


def light(head: str, backbone: str = "pvt_v2_b0", **numbers: Any) -> torch.nn.Module:
    """A small detector in double precision whose answers differ well from box to box."""
    torch.manual_seed(0)
    hides_nothing = head in ("sparse_rcnn", "detr")
    overlap = 1.0 if hides_nothing else 0.5
    decoding = Decoding(score_threshold=0.0, nms_threshold=overlap, max_detections=10)
    numbers = {"width": 16, "decoding": decoding, **LIGHT[head], **numbers}
    model = build_detector(head, backbone, 3, **numbers).double().eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4 and not name.startswith("backbone."):
            torch.nn.init.kaiming_uniform_(parameter)
    return model


def padded_batch(side: int) -> Batch[DetectionTarget]:
    """Two images with an object each, padded to a square; noise where it is not their own."""
    torch.manual_seed(1)
    samples = []
    for height, width in SIZES:
        masks = torch.zeros(1, height, width, dtype=torch.bool)
        masks[:, 4:28, 6:30] = True
        target = DetectionTarget(
            boxes=torch.tensor([[6.0, 4, 30, 28]]),
            labels=torch.tensor([1]),
            crowd=torch.tensor([False]),
            masks=encode_masks(masks),
        )
        image = torch.randn(3, height, width, dtype=torch.float64)
        origin = Origin(name="", size=(height, width))
        samples.append(Sample(image=image, target=target, origin=origin))
    batch = collate(samples, divisor=32)
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    images[0, :, :64, :64], images[1, :, :32, :64] = batch.images[0], batch.images[1, :, :32]
    return replace(batch, images=images)


def alone(batch: Batch[DetectionTarget], i: int) -> Batch[DetectionTarget]:
    """One image of a batch, with its own padding."""
    height, width = (-(-side // 32) * 32 for side in batch.sizes[i])
    return Batch(
        images=batch.images[i : i + 1, :, :height, :width],
        sizes=batch.sizes[i : i + 1],
        targets=batch.targets[i : i + 1],
        origins=batch.origins[i : i + 1],
    )


@torch.no_grad()
def answers(model: torch.nn.Module, batch: Batch[DetectionTarget]) -> list[list[Tensor]]:
    """Boxes, scores, labels and logits of masks, if there are any, of each image."""
    outputs = forward(model, batch, learn=False)
    assert isinstance(outputs, RegionDetections)
    found, masks = outputs
    columns = [found.boxes, found.scores, found.labels, *([] if masks is None else [masks])]
    return [[x[found.images == i] for x in columns] for i in range(len(batch.sizes))]


@pytest.mark.parametrize("backbone", ["pvt_v2_b0", "pvt_tiny"])
@pytest.mark.parametrize("head", HEADS)
def test_an_image_is_detected_in_a_padded_batch_as_alone(head: str, backbone: str) -> None:
    model, batch = light(head, backbone, padding="masked"), padded_batch(96)
    for i, found in enumerate(answers(model, batch)):
        (wanted,) = answers(model, alone(batch, i))
        assert len(wanted[0]) > 0
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_as_published_it_is_not() -> None:
    model, batch = light("retinanet"), padded_batch(96)
    found, (wanted,) = answers(model, batch)[1], answers(model, alone(batch, 1))
    assert found[1][0] != pytest.approx(float(wanted[1][0]), rel=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_does_not_depend_on_how_far_a_batch_is_padded(head: str) -> None:
    model = light(head, padding="masked")
    terms = []
    for side in (64, 160):
        batch = padded_batch(side)
        torch.manual_seed(2)  # for the samples to learn from
        terms.append(loss(model(batch.images, **network_inputs(batch, learn=True)), batch))
    for name, term in terms[0].items():
        torch.testing.assert_close(terms[1][name], term, rtol=1e-5, atol=1e-7)
    torch.stack(list(terms[1].values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name  # or processes would wait for it
        assert bool(parameter.grad.isfinite().all()), name


def test_regions_across_the_border_of_an_own_part_are_read_as_of_the_image_alone() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    own = [x[:1, :, :8, :4], x[1:, :, :4, :8]]
    boxes = torch.tensor([[4.0, 0, 16, 32], [10, 3, 20, 30], [0, 9, 31, 60], [-9, -9, 50, 50]])
    boxes, images = boxes.double(), torch.tensor([0, 1, 1, 0])
    found = pool_regions([own], (4,), boxes, images, 7)
    for row, (box, image) in enumerate(zip(boxes, images.tolist(), strict=True)):
        zero = torch.zeros(1, dtype=torch.int64)
        wanted = pool_regions([own[image]], (4,), box[None], zero, 7)[0]
        torch.testing.assert_close(found[row], wanted)


def test_the_option_goes_into_the_record_and_comes_back() -> None:
    classes = Classes(names=("a",), ids=(1,))
    for head in HEADS:
        options = DetectionOptions(model=head, width=16, padding="masked")
        record = json.loads(json.dumps(describe_model(options, classes)))
        with torch.device("meta"):
            assert rebuild(record).padding == "masked"
        record = describe_model(replace(options, padding="published"), classes)
        assert "padding" not in record["numbers"]  # as it was before there was the option


def test_an_unknown_padding_is_refused() -> None:
    with pytest.raises(ValueError, match=r"padding must be one of .*, got 'maskd'"):
        create_model("retinanet", backbone="pvt_v2_b0", width=16, padding="maskd")
