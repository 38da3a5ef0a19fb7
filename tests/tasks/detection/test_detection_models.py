"""What holds for every detector: sizes, empty cases, training, and what steers the network."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from pyramidvit.errors import UserError
from pyramidvit.ops.masks import decode_masks, encode_masks
from pyramidvit.structures import Batch, DetectionTarget, Origin, Sample, collate
from pyramidvit.tasks.detection.loss import loss
from pyramidvit.tasks.detection.model import build_detector
from pyramidvit.tasks.detection.outputs import (
    Decoding,
    RegionDetections,
    RegionOutputs,
    network_inputs,
)
from pyramidvit.tasks.detection.postprocess import postprocess
from pyramidvit.tasks.detection.table import DETECTORS

HEADS = ("retinanet", "faster_rcnn", "mask_rcnn")  # the others have tests of their own
LIGHT: dict[str, dict[str, Any]] = {  # quick ones
    "retinanet": {"width": 32},
    "faster_rcnn": {"width": 32, "hidden": 64},
    "mask_rcnn": {"width": 32, "hidden": 64},
}

Boxes = Sequence[tuple[float, float, float, float]]


def light(head: str, **numbers: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_detector(head, "pvt_v2_b0", 3, **{**LIGHT[head], **numbers})


def target(boxes: Boxes, height: int, width: int) -> DetectionTarget:
    """Objects that fill their boxes, with whole numbers as corners."""
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    return DetectionTarget(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(len(boxes)) % 3,
        crowd=torch.zeros(len(boxes), dtype=torch.bool),
        masks=encode_masks(masks),
    )


def batch_of(*objects: Boxes) -> Batch[DetectionTarget]:
    """One image for each list of boxes, of different sizes, made from files twice as large."""
    torch.manual_seed(1)
    samples = []
    for i, boxes in enumerate(objects):
        height, width = 64 - 7 * i, 90 + 5 * i
        samples.append(
            Sample(
                image=torch.randn(3, height, width),
                target=target(boxes, height, width),
                origin=Origin(name=str(i), size=(2 * height, 2 * width)),
            )
        )
    return collate(samples, divisor=32)


TWO = ((8, 8, 40, 40), (30, 4, 80, 50))
BATCHES = {
    "objects in both images": (TWO, TWO[:1]),
    "objects in one image": (TWO, ()),
    "no objects": ((), ()),
    "an object of one pixel": (((20, 20, 21, 21),), TWO),
    "an object as large as the image": (((0, 0, 90, 64),),),
}


def train(model: torch.nn.Module, batch: Batch[DetectionTarget]) -> dict[str, torch.Tensor]:
    model.train()
    return loss(model(batch.images, **network_inputs(batch, learn=True)), batch)


def test_a_batch_carries_true_sizes_and_moves_with_its_masks() -> None:
    batch = batch_of(TWO, ())
    assert batch.images.shape == (2, 3, 64, 96)
    assert batch.sizes == ((64, 90), (57, 95))
    assert [origin.size for origin in batch.origins] == [(128, 180), (114, 190)]
    again = pickle.loads(pickle.dumps(batch.targets[0]))  # on the way out of a reading process
    assert torch.equal(decode_masks(again.masks), decode_masks(batch.targets[0].masks))
    for moved in batch.to("meta").targets:
        assert moved.masks is not None
        assert {t.device.type for t in (moved.boxes, moved.crowd, moved.masks.counts)} == {"meta"}


def test_parameter_counts_are_the_published_ones(golden_dir: Path) -> None:
    rows = json.loads((golden_dir / "dense" / "params_flops_det.json").read_text())
    short = {"t": "tiny", "s": "small", "m": "medium", "l": "large"}
    counted = 0
    for name, row in rows.items():
        head, _, size = name.partition("_pvt_")
        if head not in DETECTORS:
            continue
        with torch.device("meta"):
            model = build_detector(head, f"pvt_{short.get(size, size)}", 80)
        total = sum(p.numel() for p in model.parameters())
        assert total == row["params"], name
        assert sum(p.numel() for p in model.backbone.parameters()) == row["backbone"], name
        counted += 1
    assert counted == 31


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("case", BATCHES)
def test_training_and_detecting_work_with_any_number_of_objects(head: str, case: str) -> None:
    model, batch = light(head), batch_of(*BATCHES[case])
    terms = train(model, batch)
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert all(term.ndim == 0 for term in terms.values())
    assert bool(total.isfinite())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name  # or processes would wait for it
        assert bool(parameter.grad.isfinite().all()), name

    model.eval()
    with torch.no_grad():
        outputs = model(batch.images, **network_inputs(batch, learn=False))
    assert len(postprocess(outputs, batch)) == len(batch.sizes)


@pytest.mark.parametrize("head", HEADS)
def test_a_thousand_objects_and_an_image_of_one_pixel_are_possible(head: str) -> None:
    torch.manual_seed(0)
    corners = torch.rand(1000, 2) * torch.tensor([80.0, 54.0])
    many = torch.cat((corners, corners + 1 + torch.rand(1000, 2) * 9), dim=1)
    model = light(head)
    samples = [
        Sample(
            image=torch.randn(3, height, width),
            target=target(boxes, height, width),
            origin=Origin(name="", size=(height, width)),
        )
        for boxes, height, width in ((many.tolist(), 64, 90), (((0, 0, 1, 1),), 1, 1))
    ]
    for sample in samples:
        batch = collate([sample], divisor=32)
        assert all(bool(term.isfinite()) for term in train(model, batch).values())
        model.eval()
        with torch.no_grad():
            outputs = model(batch.images, **network_inputs(batch, learn=False))
        assert len(postprocess(outputs, batch)) == 1


@pytest.mark.parametrize("head", HEADS)
def test_predictions_lie_in_the_frame_of_the_file(head: str) -> None:
    decoding = Decoding(score_threshold=0.0, max_detections=7)
    model = light(head, **({} if head == "retinanet" else {"decoding": decoding})).eval()
    batch = batch_of(TWO, TWO)
    with torch.no_grad():
        outputs = model(batch.images, **network_inputs(batch, learn=False))
    for found, origin in zip(postprocess(outputs, batch, decoding), batch.origins, strict=True):
        assert len(found.boxes) == len(found.labels) == len(found.scores) == 7
        height, width = origin.size
        assert float(found.boxes.min()) >= 0
        assert float(found.boxes[:, 0::2].max()) <= width + 1e-3
        assert width / 2 < float(found.boxes[:, 0::2].max())  # not in that of the network
        assert float(found.boxes[:, 1::2].max()) <= height + 1e-3
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        if head == "mask_rcnn":
            assert found.masks is not None
            assert decode_masks(found.masks).shape == (7, height, width)
        else:
            assert found.masks is None


@pytest.mark.parametrize("head", HEADS)
def test_nothing_above_the_threshold_is_no_detection(head: str) -> None:
    decoding = Decoding(score_threshold=0.9999)
    model = light(head, **({} if head == "retinanet" else {"decoding": decoding})).eval()
    batch = batch_of(TWO)
    with torch.no_grad():
        outputs = model(batch.images, sizes=batch.sizes)
    (found,) = postprocess(outputs, batch, decoding)
    assert found.boxes.shape == (0, 4)
    assert found.masks is None or len(found.masks) == 0


@pytest.mark.parametrize("head", HEADS)
def test_an_image_is_detected_in_a_batch_as_alone(head: str) -> None:
    decoding = Decoding(score_threshold=0.0, max_detections=20)
    numbers = {} if head == "retinanet" else {"decoding": decoding}
    model = light(head, **numbers).double().eval()
    both = batch_of(TWO, ())  # both are padded to 64 x 96
    found = []
    for rows in (slice(0, 2), slice(1, 2)):
        batch = Batch(
            images=both.images[rows].double(),
            sizes=both.sizes[rows],
            targets=both.targets[rows],
            origins=both.origins[rows],
        )
        with torch.no_grad():
            outputs = model(batch.images, sizes=batch.sizes)
        found.append(postprocess(outputs, batch, decoding)[-1])
    torch.testing.assert_close(found[0].boxes, found[1].boxes)
    assert torch.equal(found[0].labels, found[1].labels)


@pytest.mark.parametrize("head", HEADS)
def test_a_crowd_is_passed_over(head: str) -> None:
    # All proposals are learnt from, so that nothing is left to chance.
    model = light(head, **({} if head == "retinanet" else {"region_samples": 10**6}))
    model.eval()
    plain, crowded = batch_of(TWO[1:]), batch_of(TWO)
    with_crowd = DetectionTarget(
        boxes=crowded.targets[0].boxes,
        labels=torch.tensor([2, 0]),
        crowd=torch.tensor([True, False]),
        masks=crowded.targets[0].masks,
    )
    crowded = Batch(
        images=crowded.images,
        sizes=crowded.sizes,
        targets=(with_crowd,),
        origins=crowded.origins,
    )
    terms = []
    for batch in (plain, crowded):
        torch.manual_seed(2)
        found = loss(model(batch.images, **network_inputs(batch, learn=True)), batch)
        terms.append({name: float(term.detach()) for name, term in found.items()})
    assert terms[0] == pytest.approx(terms[1])


def test_the_two_stage_network_is_a_function_of_images_but_for_what_steers_it() -> None:
    model, batch = light("mask_rcnn"), batch_of(TWO)
    model.eval()
    with torch.no_grad():
        assert isinstance(model(batch.images), RegionDetections)
        assert isinstance(model(batch.images, **network_inputs(batch, learn=True)), RegionOutputs)
        clipped = model(batch.images, sizes=batch.sizes)
    assert float(clipped.detections.boxes[:, 2].max()) <= batch.sizes[0][1]


def test_boxes_without_masks_are_refused_by_mask_rcnn_alone() -> None:
    batch = batch_of(TWO)
    bare = DetectionTarget(
        boxes=batch.targets[0].boxes,
        labels=batch.targets[0].labels,
        crowd=batch.targets[0].crowd,
    )
    batch = Batch(images=batch.images, sizes=batch.sizes, targets=(bare,), origins=batch.origins)
    assert set(train(light("faster_rcnn"), batch)) == {
        *("proposal_classes", "proposal_boxes", "classes", "boxes")
    }
    with pytest.raises(UserError, match="without masks: train retinanet or faster_rcnn"):
        train(light("mask_rcnn"), batch)


def test_the_sample_follows_from_the_seed() -> None:
    model, batch = light("mask_rcnn", region_samples=8), batch_of(TWO, TWO)
    model.eval()
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs = model(batch.images, **network_inputs(batch, learn=True))
        assert all(int((outputs.regions.images == i).sum()) == 8 for i in range(2))
        found.append(outputs.regions.boxes)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("head", HEADS)
def test_mixed_precision_gives_outputs_in_float32(head: str) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    model, batch = fabric.setup_module(light(head)), batch_of(TWO, ())
    terms = train(model, batch)
    assert all(bool(term.isfinite()) for term in terms.values())
    fabric.backward(torch.stack(list(terms.values())).sum())
    model.eval()
    with torch.no_grad():
        found = postprocess(model(batch.images, sizes=batch.sizes), batch)
    assert all(one.boxes.dtype == one.scores.dtype == torch.float32 for one in found)


def test_wrong_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown detector mask_rnn; nearest: mask_rcnn"):
        build_detector("mask_rnn", "pvt_tiny", 3)
    with pytest.raises(UserError, match="unknown backbone pvt_tony; nearest: pvt_tiny"):
        build_detector("retinanet", "pvt_tony", 3)
    with pytest.raises(ValueError, match="num_classes must be 1 or more"):
        build_detector("retinanet", "pvt_tiny", 0)


def test_one_class_and_other_widths_are_possible() -> None:
    model = build_detector("retinanet", "pvt_v2_b0", 1, width=64, in_chans=1, anchor_scale=2.0)
    outputs = model(torch.zeros(1, 1, 64, 64))
    assert [x.shape[1] for x in outputs.logits] == [9 * n for n in (64, 16, 4, 1, 1)]
    sides = outputs.anchors[0][:9, 2:] - outputs.anchors[0][:9, :2]
    assert float(sides.prod(dim=1).min()) == pytest.approx(16**2)
