"""What holds for every segmenter: sizes, odd images, training, and its record."""

import json
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from pyramidvit.errors import UserError
from pyramidvit.models import list_models
from pyramidvit.structures import (
    UNLABELLED,
    Batch,
    Classes,
    Origin,
    Sample,
    SegmentationTarget,
    collate,
)
from pyramidvit.tasks.segmentation.config import SegmentationOptions
from pyramidvit.tasks.segmentation.loss import build_loss
from pyramidvit.tasks.segmentation.model import BUILDERS, Segmenter, build_segmenter
from pyramidvit.tasks.segmentation.network import (
    build_model,
    describe_model,
    forward,
    frozen,
    rebuild,
)
from segmenters import named

HEADS = tuple(BUILDERS)
LIGHT: dict[str, dict[str, Any]] = {  # quick ones
    "semantic_fpn": {"width": 32},
    "trans2seg": {"width": 32, "depth": 2, "image_size": 96},
}
THREE = Classes(names=("a", "b", "c"), ids=(0, 1, 2))


def light(head: str, **numbers: Any) -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(head, "pvt_v2_b0", 3, **{**LIGHT[head], **numbers})


def batch_of(*sizes: tuple[int, int]) -> Batch[SegmentationTarget]:
    torch.manual_seed(1)
    samples = [
        Sample(
            image=torch.randn(3, *size),
            target=SegmentationTarget(labels=torch.randint(-1, 3, size, dtype=torch.int16)),
            origin=Origin(name=str(i), size=size),
        )
        for i, size in enumerate(sizes)
    ]
    return collate(samples, divisor=32)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", list_models())
def test_every_backbone_carries_every_head(head: str, backbone: str) -> None:
    with torch.device("meta"):
        model = build_segmenter(head, backbone, 7, width=64)
        rows = model.backbone.feature_info
        maps = [
            torch.zeros(2, r["num_chs"], 64 // r["reduction"], 96 // r["reduction"]) for r in rows
        ]
        logits = model.decode_head(model.neck(maps), (64, 96))
    stride = 4 if head == "semantic_fpn" else 1
    assert logits.shape == (2, 7, 64 // stride, 96 // stride)
    parts = {name.split(".")[0] for name in model.state_dict()}
    assert parts == {"backbone", "decode_head"} | ({"neck"} if head == "semantic_fpn" else set())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", ["pvt_v2_b0", "pvt_tiny"])
def test_sides_need_be_no_multiple_of_anything(head: str, backbone: str) -> None:
    model = build_segmenter(head, backbone, 3, **LIGHT[head]).eval()
    for size in ((32, 32), (37, 95), (33, 130)):
        with torch.no_grad():
            logits = model(torch.randn(1, 3, *size)).logits
            first = model.backbone(torch.zeros(1, 3, *size))[0]
        whole = size if head == "trans2seg" else tuple(first.shape[2:])
        assert logits.shape == (1, 3, *whole)
        assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("sizes", [((60, 90), (64, 33)), ((1, 1), (40, 70)), ((1, 64),)])
def test_images_of_any_sizes_are_learnt_from(head: str, sizes: tuple[tuple[int, int], ...]) -> None:
    model, batch = light(head).train(), batch_of(*sizes)
    loss = build_loss(SegmentationOptions(loss="cross_entropy+dice"), (), named(3))
    total = torch.stack(list(loss(forward(model, batch, True), batch).values())).sum()
    total.backward()
    assert bool(total.isfinite())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name  # or processes would wait for it
            assert bool(parameter.grad.isfinite().all()), name


@pytest.mark.parametrize("head", HEADS)
def test_a_batch_without_labels_teaches_nothing(head: str) -> None:
    model, batch = light(head).train(), batch_of((64, 64), (50, 60))
    blank = tuple(
        SegmentationTarget(labels=torch.full_like(t.labels, UNLABELLED)) for t in batch.targets
    )
    batch = Batch(images=batch.images, sizes=batch.sizes, targets=blank, origins=batch.origins)
    loss = build_loss(SegmentationOptions(), (), named(3))
    (term,) = loss(forward(model, batch, True), batch).values()
    term.backward()
    assert term.item() == 0
    assert all(bool((p.grad == 0).all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("head", HEADS)
def test_an_image_is_segmented_in_a_batch_as_alone(head: str) -> None:
    model, images = light(head).double().eval(), torch.randn(3, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(images).logits[1:2], model(images[1:2]).logits)


@pytest.mark.parametrize("head", HEADS)
def test_mixed_precision_gives_logits_in_float32(head: str) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    model, batch = fabric.setup_module(light(head)), batch_of((64, 64), (40, 50))
    outputs = forward(model, batch, True)
    assert outputs.logits.dtype == torch.float32
    terms = build_loss(SegmentationOptions(), (), named(3))(outputs, batch)
    fabric.backward(terms["cross_entropy"])


def test_wrong_names_and_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="unknown segmenter semantic_fpm; nearest: semantic_fpn"):
        build_segmenter("semantic_fpm", "pvt_tiny", 3)
    with pytest.raises(UserError, match="unknown backbone pvt_tony; nearest: pvt_tiny"):
        build_segmenter("trans2seg", "pvt_tony", 3)
    with pytest.raises(ValueError, match="num_classes must be 1 or more"):
        build_segmenter("semantic_fpn", "pvt_tiny", 0)
    with pytest.raises(ValueError, match="width must be a multiple of 4 and of 8 heads, got 36"):
        build_segmenter("trans2seg", "pvt_tiny", 3, width=36)
    with pytest.raises(ValueError, match="image_size must be 32 or more"):
        build_segmenter("trans2seg", "pvt_tiny", 3, image_size=16)


@pytest.mark.parametrize("head", HEADS)
def test_a_network_is_built_again_from_its_record(head: str) -> None:
    options = SegmentationOptions(model=head, width=32, drop_path_rate=0.0, freeze=2)
    model = build_model(options, THREE)
    record = json.loads(json.dumps(describe_model(options, THREE)))
    again = rebuild(record)
    again.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(images).logits, again.eval()(images).logits)

    still = frozen(options, model)
    stages = ("backbone.patch_embed1.", "backbone.block2.", "backbone.norm2.")
    assert all(any(name.startswith(stage) for name in still) for stage in stages)
    assert not any(name.startswith(("backbone.block3", "neck")) for name in still)
    assert any(name.startswith("decode_head") for name in still) == (head == "trans2seg")
