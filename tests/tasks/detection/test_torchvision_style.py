"""Our detectors where torchvision's would stand: inputs, outputs, mistakes, a training loop."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from pyramidvit import TorchvisionDetector, create_model
from pyramidvit.errors import UserError
from pyramidvit.ops.masks import decode_masks, encode_masks
from pyramidvit.tasks.detection.network import forward
from pyramidvit.tasks.detection.outputs import Decoding
from pyramidvit.tasks.detection.postprocess import postprocess

HEADS = ("retinanet", "faster_rcnn", "mask_rcnn")
OWN_TERMS = {  # detectors that torchvision has not, and the names of their losses
    "atss": {"classification", "bbox_regression", "centerness"},
    "gfl": {"classification", "bbox_regression", "sides"},
    "sparse_rcnn": {"classification", "bbox_regression", "overlaps"},
    "detr": {"classification", "bbox_regression", "overlaps"},
    "cascade_mask_rcnn": {"loss_objectness", "loss_rpn_box_reg"}
    | {f"stage{i}_{name}" for i in (1, 2, 3) for name in ("classes", "boxes", "masks")},
}
SMALL = {
    "sparse_rcnn": {"hidden": 16, "proposals": 4, "depth": 2},
    "detr": {"hidden": 16, "queries": 4, "depth": 2},
    "cascade_mask_rcnn": {"hidden": 16, "proposals": 20},
}
SIZES = ((50, 70), (40, 33))  # (H, W)

Record = dict[str, Tensor]


def light(head: str, classes: int = 3, **options: Any) -> TorchvisionDetector:
    torch.manual_seed(0)
    numbers: dict[str, Any] = {"width": 32, "drop_path_rate": 0.0}
    if head != "retinanet":
        numbers |= {"hidden": 64, "proposals": 100}
    decoding = options.pop("decoding", Decoding())
    model = create_model(
        head, backbone="pvt_v2_b0", num_classes=classes, decoding=decoding, **numbers
    )
    return TorchvisionDetector(model, **{"short_side": 64, "long_side": 96, **options})


def images_of(*sizes: tuple[int, int]) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.rand(3, *size) for size in sizes]


def target(boxes: Sequence[Sequence[int]], size: tuple[int, int], labels: Sequence[int]) -> Record:
    """Objects that fill their boxes."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = 1
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": masks,
        "image_id": torch.tensor([7]),  # the reference's loop has more keys, which are not read
        "area": torch.ones(len(boxes)),
    }


TWO = target(((5, 5, 30, 30), (40, 10, 60, 20)), SIZES[0], (1, 3))
NONE = target((), SIZES[1], ())


@pytest.mark.parametrize("head", HEADS)
def test_images_of_many_sizes_some_without_objects_give_finite_losses(head: str) -> None:
    model = light(head).train()
    images = images_of(*SIZES)
    for targets in ([TWO, NONE], [target((), SIZES[0], ()), NONE]):
        terms = model(images, targets)
        total = sum(terms.values())
        total.backward()
        assert all(term.ndim == 0 and bool(term.isfinite()) for term in terms.values())
        gradients = [p.grad for p in model.parameters()]
        assert all(g is not None and bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("head", OWN_TERMS)
def test_detectors_that_torchvision_has_not_are_wrapped_too(head: str) -> None:
    torch.manual_seed(0)
    numbers = {"width": 16, "num_classes": 3, "drop_path_rate": 0.0} | SMALL.get(head, {})
    model = TorchvisionDetector(
        create_model(head, backbone="pvt_v2_b0", **numbers), short_side=64, long_side=96
    )
    assert model.num_classes == 3
    images = images_of(*SIZES)
    terms = model.train()(images, [TWO, NONE])
    assert isinstance(terms, dict)
    assert set(terms) == OWN_TERMS[head]
    assert all(bool(term.isfinite()) for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()

    found = model.eval()(images)
    assert len(found) == len(images)
    for record, (height, width) in zip(found, SIZES, strict=True):
        assert set(record) - {"masks"} == {"boxes", "labels", "scores"}
        assert ("masks" in record) is (head == "cascade_mask_rcnn")
        assert bool(((record["labels"] >= 1) & (record["labels"] <= 3)).all())
        if head == "detr":
            assert len(record["boxes"]) == 4
            limits = torch.tensor((width, height, width, height)) + 1e-3
            assert bool((record["boxes"] <= limits).all())


def test_what_is_no_detector_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^Linear is no detector that pyramidvit"):
        TorchvisionDetector(nn.Linear(2, 2))


def theirs(head: str) -> nn.Module:
    """The smallest detector of torchvision of this kind."""
    backbone = nn.Conv2d(3, 8, 16, stride=16)
    backbone.out_channels = 8  # type: ignore[assignment]
    options: dict[str, Any] = {"num_classes": 4, "min_size": 64, "max_size": 96}
    anchors = AnchorGenerator(((16, 32),), ((1.0,),))
    if head == "retinanet":
        return RetinaNet(backbone, anchor_generator=anchors, score_thresh=0.0, **options)
    options |= {"rpn_anchor_generator": anchors, "box_score_thresh": 0.0}
    options |= {"box_roi_pool": MultiScaleRoIAlign(["0"], 7, 2)}
    if head == "faster_rcnn":
        return FasterRCNN(backbone, **options)
    return MaskRCNN(backbone, mask_roi_pool=MultiScaleRoIAlign(["0"], 14, 2), **options)


@pytest.mark.parametrize("head", HEADS)
def test_losses_and_detections_have_torchvision_s_names_shapes_and_types(head: str) -> None:
    ours = light(head, decoding=Decoding(score_threshold=0.0)).train()
    images, targets = images_of(*SIZES), [TWO, NONE]
    torch.manual_seed(0)
    other = theirs(head).train()
    assert set(ours(images, targets)) == set(other(images, targets))
    with torch.no_grad():
        found, wanted = ours.eval()(images), other.eval()(images)
    for record, reference in zip(found, wanted, strict=True):
        assert record.keys() == reference.keys()
        for name, value in reference.items():
            assert record[name].dtype == value.dtype
            assert record[name].shape[1:] == value.shape[1:]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("short_side", [64, None])
def test_detections_lie_in_the_given_images(head: str, short_side: int | None) -> None:
    decoding = Decoding(score_threshold=0.0, max_detections=9)
    model = light(head, decoding=decoding, short_side=short_side).eval()
    sizes = (*SIZES, (1, 1))
    with torch.no_grad():
        found = model(images_of(*sizes))
    for record, (height, width) in zip(found, sizes, strict=True):
        boxes, labels, scores = (record[name] for name in ("boxes", "labels", "scores"))
        assert boxes.shape == (9, 4)
        assert float(boxes.min()) >= 0
        assert float(boxes[:, 2].max()) <= width + 1e-3
        assert float(boxes[:, 3].max()) <= height + 1e-3
        assert set(labels.tolist()) <= {1, 2, 3}
        assert scores.tolist() == sorted(scores.tolist(), reverse=True)
        assert ("masks" in record) == (head == "mask_rcnn")
        if head == "mask_rcnn":
            assert record["masks"].shape == (9, 1, height, width)
            assert 0 <= float(record["masks"].min()) <= float(record["masks"].max()) <= 1


def test_nothing_found_is_empty_tensors() -> None:
    model = light("mask_rcnn", decoding=Decoding(score_threshold=0.9999)).eval()
    with torch.no_grad():
        (found,) = model(images_of(SIZES[0]))
    shapes = {name: list(value.shape) for name, value in found.items()}
    assert shapes == {"boxes": [0, 4], "labels": [0], "scores": [0], "masks": [0, 1, 50, 70]}


def test_what_is_found_is_what_the_wrapped_detector_finds() -> None:
    model = light("mask_rcnn", decoding=Decoding(score_threshold=0.0, max_detections=9)).eval()
    images = images_of(*SIZES)
    with torch.no_grad():
        batch = model.prepare(images, None)
        plain = postprocess(forward(model.model, batch, learn=False), batch)
        found = model(images)
    mean, std = (torch.tensor(x)[:, None, None] for x in (model.mean, model.std))
    assert batch.sizes[0] == (64, 90)
    low, high = (0 - mean) / std, (1 - mean) / std
    seen = batch.images[0, :, :64, :90]
    assert bool(((seen >= low - 1e-6) & (seen <= high + 1e-6)).all())
    assert not batch.images[0, :, :, 90:].any()
    for ours, theirs in zip(plain, found, strict=True):
        assert torch.equal(ours.boxes, theirs["boxes"])
        assert torch.equal(ours.labels + 1, theirs["labels"])
        assert ours.masks is not None
        assert torch.equal(decode_masks(ours.masks), theirs["masks"][:, 0] >= 0.5)


def test_targets_reach_the_loss_in_the_frame_of_the_resized_image() -> None:
    model = light("mask_rcnn", short_side=100, long_side=200)
    batch = model.prepare(images_of(SIZES[0]), [TWO])
    (found,) = batch.targets
    assert batch.sizes == ((100, 140),)
    assert found.boxes.tolist() == [[10, 10, 60, 60], [80, 20, 120, 40]]
    assert found.labels.tolist() == [0, 2]
    assert found.masks is not None
    twice = TWO["masks"].repeat_interleave(2, dim=1).repeat_interleave(2, dim=2).bool()
    assert torch.equal(found.masks.counts, encode_masks(twice).counts)
    crowd = model.prepare(images_of(SIZES[0]), [TWO | {"iscrowd": torch.tensor([1, 0])}]).targets[0]
    assert crowd.crowd.tolist() == [True, False]


def without(name: str) -> Callable[[Record], Record]:
    return lambda given: {key: value for key, value in given.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"boxes": torch.tensor([[5.0, 5, 5, 9], [0, 0, 1, 1]])},
            r"box \[5.0, 5.0, 5.0, 9.0",
        ),
        ({"boxes": torch.tensor([[0.0, 0, 1, 1], [9, 9, 5, 9]])}, "target 0: box .* has no area"),
        ({"boxes": torch.full((2, 4), float("nan"))}, "has no area"),
        ({"boxes": torch.zeros(2, 5)}, r"must be \[n, 4\] and labels \[n\], got \[2, 5\]"),
        ({"labels": torch.tensor([1])}, r"got \[2, 4\] and \[1\]"),
        ({"labels": torch.tensor([0, 1])}, "from 1 to 3 .0 is the background., got 0"),
        ({"labels": torch.tensor([1, 4])}, "from 1 to 3 .* got 4"),
        ({"labels": torch.tensor([1.0, 2.0])}, "labels must be whole numbers, got torch.float32"),
        ({"labels": torch.tensor([True, True])}, "labels must be whole numbers, got torch.bool"),
        ({"boxes": torch.ones(2, 4, dtype=torch.bool)}, "boxes must be numbers, got torch.bool"),
        (
            {"boxes": torch.tensor([[0, 0, 9, 9], [80, 5, 90, 9]])},
            r"box \[80.0, 5.0, 90.0, 9.0\] lies outside its image of 70x50",
        ),
        ({"iscrowd": torch.zeros(3)}, r"iscrowd must be a tensor \[2\], got \[3\]"),
        ({"iscrowd": [0, 0]}, r"iscrowd must be a tensor \[2\], got list"),
        ({"masks": [1, 2]}, r"masks must be a tensor \[2, 50, 70\], got list"),
        ({"masks": torch.zeros(2, 9, 9)}, r"masks must be a tensor \[2, 50, 70\], got \[2, 9, 9\]"),
        ({"boxes": None}, "target 0 has no tensor 'boxes'"),
    ],
)
def test_a_wrong_target_is_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    model = light("mask_rcnn").train()
    with pytest.raises(UserError, match=message) as error:
        model(images_of(SIZES[0]), [TWO | change])
    assert "\n" not in str(error.value)


def test_boxes_are_clipped_to_their_image_and_labels_may_be_short() -> None:
    model = light("retinanet", short_side=None)
    boxes = torch.tensor([[-9, 5, 30, 99], [40, 10, 60, 20]])
    changed = TWO | {"boxes": boxes, "labels": torch.tensor([1, 3], dtype=torch.int8)}
    (found,) = model.prepare(images_of(SIZES[0]), [without("masks")(changed)]).targets
    assert found.boxes.tolist() == [[0, 5, 30, 50], [40, 10, 60, 20]]
    assert (found.labels.dtype, found.labels.tolist()) == (torch.int64, [0, 2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_of_any_float_type_are_computed_in_the_model_s(dtype: torch.dtype) -> None:
    model = light("retinanet").eval()
    images = [image.to(dtype) for image in images_of(SIZES[0])]
    with torch.no_grad():
        assert model(images)[0]["boxes"].dtype == torch.float32
        assert model.prepare(images, None).images.dtype == torch.float32


def test_wrong_images_and_missing_targets_are_refused() -> None:
    model = light("retinanet").train()
    for images, targets, message in (
        (images_of(SIZES[0]), None, "there must be targets, one for each image"),
        (images_of(SIZES[0]), [], "there must be targets, one for each image"),
        ([], [], "there must be an image"),
        ([torch.zeros(1, 50, 70)], [TWO], r"image 0 must be a tensor \[3, H, W\], got \[1, 50"),
        ([torch.zeros(3, 50, 70, dtype=torch.uint8)], [TWO], "floats from 0 to 1, got torch.uint8"),
        ([torch.zeros(3, 0, 70)], [TWO], r"got torch.float32 \[3, 0, 70\]"),
        (["a.jpg"], [TWO], "got str"),
    ):
        with pytest.raises(UserError, match=message):
            model(images, targets)
    with pytest.raises(UserError, match="without masks: train retinanet or faster_rcnn"):
        light("mask_rcnn").train()(images_of(SIZES[0]), [without("masks")(TWO)])
    with pytest.raises(ValueError, match="short_side must be from 1 to 96, got 100"):
        light("retinanet", short_side=100)


@pytest.mark.parametrize("head", HEADS)
def test_a_training_loop_written_for_torchvision_lowers_the_loss(head: str) -> None:
    # As its reference's train_one_epoch does.
    model = light(head, classes=1, short_side=None).train()
    size = (64, 64)
    boxes = ((8, 8, 40, 40),)
    image = torch.zeros(3, *size)
    image[:, 8:40, 8:40] = 1
    loader = [([image], [target(boxes, size, (1,))])] * 12
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    history = []
    for images, targets in loader:
        loss_dict = model(images, targets)
        losses = sum(loss for loss in loss_dict.values())
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        history.append(float(losses.detach()))
    assert sum(history[-3:]) < 0.6 * sum(history[:3])


def test_weights_saved_from_the_wrapper_fill_a_plain_detector(tmp_path: Path) -> None:
    model = light("mask_rcnn")
    torch.save({"model": model.state_dict()}, tmp_path / "model_0.pth")
    again = create_model(
        "mask_rcnn",
        backbone="pvt_v2_b0",
        num_classes=3,
        width=32,
        hidden=64,
        pretrained=tmp_path / "model_0.pth",
    )
    state = model.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
