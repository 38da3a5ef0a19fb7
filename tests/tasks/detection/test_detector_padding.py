"""With masked padding, no detector's answer depends on how far an image is padded."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pyramidvit import create_model, list_models
from pyramidvit.ops.masks import encode_masks
from pyramidvit.ops.regions import pool_regions
from pyramidvit.structures import Batch, Classes, DetectionTarget, Origin, Sample, collate
from pyramidvit.tasks.detection.config import DetectionOptions
from pyramidvit.tasks.detection.loss import loss
from pyramidvit.tasks.detection.model import build_detector
from pyramidvit.tasks.detection.network import describe_model, forward, rebuild
from pyramidvit.tasks.detection.outputs import Decoding, RegionDetections, network_inputs
from pyramidvit.tasks.detection.table import DETECTORS
from pyramidvit.tasks.detection.trunk import bounds_of, read_maps

SIZES = ((64, 33), (30, 64))  # their own parts are 64 x 64 and 32 x 64
LARGE = ((200, 130), (90, 310))  # several cells also at stride 64
MEDIUM = ((100, 65), (60, 160))
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
    """A small detector in double precision whose answers differ well from box to box.

    Scores are far from 0 and from 1, where they would be alike to the last digit, and boxes are
    moved by about the size of their anchors, up to 800 pixels, no more.
    """
    torch.manual_seed(0)
    hides_nothing = head in ("sparse_rcnn", "detr")
    overlap = 1.0 if hides_nothing else 0.5
    decoding = Decoding(score_threshold=0.0, nms_threshold=overlap, max_detections=10)
    numbers = {"width": 16, "decoding": decoding, **LIGHT.get(head, {}), **numbers}
    model = build_detector(head, backbone, 3, **numbers).double().eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4 and not name.startswith("backbone."):
            torch.nn.init.kaiming_uniform_(parameter)
            if "retina_" in name:
                parameter.data *= 0.2
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
    """Boxes, scores, labels and masks, if there are any, of each image."""
    outputs = forward(model, batch, learn=False)
    assert isinstance(outputs, RegionDetections)
    found, masks = outputs
    columns = [found.boxes, found.scores, found.labels]
    if masks is not None:
        columns.append(masks.sigmoid())
    return [[x[found.images == i] for x in columns] for i in range(len(batch.sizes))]


def check_alone_and_beside(
    model: torch.nn.Module, sizes: Sequence[tuple[int, int]], dtype: torch.dtype
) -> None:
    """Holds features and detections of images in a batch to those of each image alone.

    Within 1e-5: features of the largest one of their map, scores as they are, boxes of a pixel in
    float64; in float32 boxes are within 3e-5 of the image's longer side. The boxes' rounding moves
    masks, so that these are within a thousandth.
    """
    torch.manual_seed(1)
    samples: list[Sample[DetectionTarget]] = [
        Sample(image=torch.randn(3, *size), target=None, origin=Origin(name="", size=size))
        for size in sizes
    ]
    batch = collate(samples, divisor=32)
    batch = replace(batch, images=batch.images.to(dtype))
    model = model.to(dtype)
    with torch.no_grad():
        bounds = bounds_of(batch.images, batch.sizes, "masked")
        maps = read_maps(model.backbone, batch.images, bounds)
    beside = answers(model, batch)
    for i, (size, found) in enumerate(zip(sizes, beside, strict=True)):
        lone = alone(batch, i)
        assert lone.images.shape[2:] != batch.images.shape[2:]
        with torch.no_grad():
            own = read_maps(model.backbone, lone.images, None)
        for x, wanted in zip(maps, own, strict=True):
            part = x[i : i + 1, :, : wanted.shape[2], : wanted.shape[3]]
            near = {"rtol": 0, "atol": 1e-5 * float(wanted.abs().max())}
            torch.testing.assert_close(part, wanted, **near)
        (wanted,) = answers(model, lone)
        assert len(wanted[0]) > 0
        assert torch.equal(found[2], wanted[2])
        for ours, theirs, limit in zip(
            found[:2] + found[3:],
            wanted[:2] + wanted[3:],
            (3e-5 * max(size) if dtype == torch.float32 else 1e-5, 1e-5, 1e-3),
            strict=False,
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=limit)


@pytest.mark.parametrize(("backbone", "sizes"), [("pvt_v2_b0", LARGE), ("pvt_tiny", MEDIUM)])
@pytest.mark.parametrize("head", DETECTORS)
def test_an_image_is_detected_in_a_padded_batch_as_alone(
    head: str, backbone: str, sizes: Sequence[tuple[int, int]]
) -> None:
    # The stages of Sparse R-CNN enlarge rounding, six of them from float32's to whole pixels; in
    # float64 to 2e-6 of a pixel.
    sparse = head == "sparse_rcnn"
    model = light(head, backbone, padding="masked", **({"depth": 6} if sparse else {}))
    check_alone_and_beside(model, sizes, torch.float64 if sparse else torch.float32)


@pytest.mark.parametrize("backbone", list_models())
def test_on_every_backbone_it_is(backbone: str) -> None:
    model = light("retinanet", backbone, padding="masked")
    check_alone_and_beside(model, MEDIUM, torch.float32)


def test_as_published_it_is_not() -> None:
    model, batch = light("retinanet"), padded_batch(96)
    found, (wanted,) = answers(model, batch)[1], answers(model, alone(batch, 1))
    assert found[1][0] != pytest.approx(float(wanted[1][0]), rel=1e-3)


@pytest.mark.parametrize("head", DETECTORS)
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
    for head in DETECTORS:
        options = DetectionOptions(model=head, width=16, padding="masked")
        record = json.loads(json.dumps(describe_model(options, classes)))
        with torch.device("meta"):
            assert rebuild(record).padding == "masked"
        record = describe_model(replace(options, padding="published"), classes)
        assert "padding" not in record["numbers"]  # as it was before there was the option


def test_an_unknown_padding_is_refused() -> None:
    with pytest.raises(ValueError, match=r"padding must be one of .*, got 'maskd'"):
        create_model("retinanet", backbone="pvt_v2_b0", width=16, padding="maskd")
