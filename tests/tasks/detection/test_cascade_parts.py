"""The parts of a cascade one by one, and what it learns from nothing, from little and from much."""

import pytest
import torch
from torch import Tensor, nn

from pyramidvit.errors import UserError
from pyramidvit.ops.masks import encode_masks
from pyramidvit.structures import Batch, DetectionTarget, Origin, Sample, collate
from pyramidvit.tasks.detection.heads.cascade import (
    STAGES,
    CascadeDetector,
    CascadeOutputs,
    ConvBoxHead,
    build_cascade_mask_rcnn,
    inner_proposal_losses,
    mean_logits,
    move_regions,
)
from pyramidvit.tasks.detection.heads.roi import sample_regions
from pyramidvit.tasks.detection.loss import loss
from pyramidvit.tasks.detection.outputs import (
    Decoding,
    DenseOutputs,
    RegionDetections,
    Truth,
    network_inputs,
)
from pyramidvit.tasks.detection.postprocess import postprocess

PLAIN, PIXEL = (64, 80), (1, 1)
BOX = torch.tensor([[4.0, 4, 20, 20]])
NONE = torch.zeros(0, 4)


def light(**numbers: int | Decoding) -> CascadeDetector:
    torch.manual_seed(0)
    built = build_cascade_mask_rcnn(
        "pvt_v2_b0", 3, width=16, hidden=16, candidates=50, proposals=50, **numbers
    )
    return built


def batch_of(*images: tuple[Tensor, tuple[int, int]]) -> Batch[DetectionTarget]:
    """One image for each (boxes, size), whose objects fill their boxes."""
    torch.manual_seed(1)
    samples = []
    for boxes, size in images:
        masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.round().int().tolist(), strict=True):
            mask[y0 : y1 + 1, x0 : x1 + 1] = True
        target = DetectionTarget(
            boxes=boxes,
            labels=torch.arange(len(boxes)) % 3,
            crowd=torch.zeros(len(boxes), dtype=torch.bool),
            masks=encode_masks(masks),
        )
        origin = Origin(name="", size=size)
        samples.append(Sample(image=torch.randn(3, *size), target=target, origin=origin))
    return collate(samples, divisor=32)


def thousand() -> Tensor:
    corners = torch.rand(1000, 2) * 60
    return torch.cat((corners, corners + 1 + torch.rand(1000, 2) * 2), dim=1)


CASES = {
    "objects in one image of two": lambda: batch_of((BOX, PLAIN), (NONE, PLAIN)),
    "no image has an object": lambda: batch_of((NONE, PLAIN), (NONE, PLAIN)),
    "one pixel": lambda: batch_of((torch.tensor([[0.0, 0, 1, 1]]), PIXEL)),
    "one pixel without objects beside a picture": lambda: batch_of((NONE, PIXEL), (BOX, PLAIN)),
    "a thousand objects beside none": lambda: batch_of((thousand(), PLAIN), (NONE, PLAIN)),
}


@pytest.mark.parametrize("case", CASES)
def test_learning_and_detecting_stay_finite(case: str) -> None:
    model, batch = light().train(), CASES[case]()
    terms = loss(model(batch.images, **network_inputs(batch, learn=True)), batch)
    torch.stack(list(terms.values())).sum().backward()
    assert all(bool(term.isfinite()) for term in terms.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name  # or processes would wait for it
        assert bool(parameter.grad.isfinite().all()), name
    assert all(bool(value.isfinite().all()) for value in model.buffers())
    if all(not len(target.boxes) for target in batch.targets):
        empty = {name for name, term in terms.items() if not term.item()}
        assert empty == {
            "proposal_boxes",
            *(f"stage{i}_{name}" for i in (1, 2, 3) for name in ("boxes", "masks")),
        }

    model.eval()
    model.decoding = Decoding(score_threshold=0.0, max_detections=5)
    with torch.no_grad():
        found = model(batch.images, **network_inputs(batch, learn=False))
    assert isinstance(found, RegionDetections)
    assert bool(found.mask_logits.isfinite().all())
    for prediction, size in zip(postprocess(found, batch), batch.sizes, strict=True):
        assert prediction.masks is not None
        assert prediction.masks.size == size
        assert len(prediction.masks) == len(prediction.boxes)


@pytest.mark.parametrize("training", [True, False])
def test_no_region_at_all_leaves_the_statistics_as_they_are(training: bool) -> None:
    head = ConvBoxHead(3, dim=8, hidden=8).train(training)
    before = {name: value.clone() for name, value in head.named_buffers()}
    logits, deltas = head(torch.zeros(0, 8, 7, 7))
    assert (logits.shape, deltas.shape) == ((0, 4), (0, 3, 4))
    for name, value in head.named_buffers():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, before[name]), name


def test_batch_normalisation_learns_from_regions_in_training_alone() -> None:
    x = torch.randn(6, 8, 7, 7) * 3 + 1
    head = ConvBoxHead(3, dim=8, hidden=8).eval()
    norm = head.shared_convs[0].bn
    alone, together = head(x[:1])[0], head(x)[0]
    torch.testing.assert_close(alone[0], together[0])
    assert not norm.running_mean.any()

    head.train()
    assert not torch.allclose(head(x[:1])[0][0], head(x)[0][0])
    assert norm.running_mean.any()


def test_the_mean_of_masks_is_that_of_their_shares() -> None:
    logits = torch.randn(3, 4, 5, 5, dtype=torch.float64) * 3
    torch.testing.assert_close(mean_logits(logits).sigmoid(), logits.sigmoid().mean(dim=0))
    extreme = torch.tensor([[-200.0, 200, 200], [-200, 200, -200], [-200, 200, 0]])
    found = mean_logits(extreme)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found.sigmoid(), torch.tensor([0.0, 1, 0.5]))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_takes_objects_by_its_own_overlap_and_knows_their_own_boxes(
    stage: tuple[float, ...],
) -> None:
    overlap = stage[0]
    truth = Truth(torch.tensor([[0.0, 0, 100, 10], [0, 50, 100, 60]]), torch.tensor([2, 1]))
    shares = torch.tensor([0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75])
    boxes = torch.tensor([[0.0, 50, 100, 60]]).repeat(len(shares), 1)
    boxes[:, 2] *= shares  # overlaps the second object by its share
    images = torch.ones(len(shares), dtype=torch.int64)
    nothing = Truth(NONE, torch.zeros(0, dtype=torch.int64))

    regions = sample_regions(boxes, images, (nothing, truth), count=10**6, overlap=overlap)
    own = regions.own
    assert set(regions.images.tolist()) == {1}
    assert regions.boxes[own].tolist() == truth.boxes.tolist()
    assert regions.matches[own].tolist() == [0, 1]
    for box, match in zip(regions.boxes[~own], regions.matches[~own].tolist(), strict=True):
        assert match == (1 if float(box[2]) / 100 >= overlap else -1)


def test_a_quarter_of_a_sample_are_objects_at_most() -> None:
    truth = Truth(BOX.repeat(30, 1), torch.zeros(30, dtype=torch.int64))
    boxes = torch.tensor([[25.0, 25, 30, 30]]).repeat(100, 1)
    images = torch.zeros(100, dtype=torch.int64)
    regions = sample_regions(boxes, images, (truth,), count=20)
    assert int((regions.matches >= 0).sum()) == 5
    assert int(regions.own.sum()) == 5
    assert len(regions.boxes) == 20


def test_regions_move_as_for_their_label_and_stay_in_their_image() -> None:
    boxes = torch.tensor([[10.0, 10, 20, 30], [10, 10, 20, 30], [0, 0, 50, 40]])
    deltas = torch.zeros(3, 2, 4)
    deltas[0, 1, 0] = 2.0  # by 2 * 0.1 of its width to the right
    deltas[1, 0, 0] = 2.0  # of a class that it is not taken for
    images, labels = torch.tensor([0, 0, 1]), torch.tensor([1, 1, 0])
    stds = (0.1, 0.1, 0.2, 0.2)
    found = move_regions(boxes, images, deltas, labels, stds, [(64, 64), (20, 30)])
    wanted = torch.tensor([[12.0, 10, 22, 30], [10, 10, 20, 30], [0, 0, 30, 20]])
    torch.testing.assert_close(found, wanted)


def test_later_stages_learn_from_regions_that_were_moved() -> None:
    model, batch = light(region_samples=10**6).eval(), batch_of((BOX, PLAIN))
    nn.init.constant_(model.roi_head.bbox_head[0].fc_reg.bias, 1.0)
    outputs = model(batch.images, **network_inputs(batch, learn=True))
    assert isinstance(outputs, CascadeOutputs)
    first, second, _ = (stage.regions for stage in outputs.stages)
    assert len(first.boxes) == len(second.boxes)  # the object's own box, and all others moved
    for regions in (first, second):
        assert int((regions.boxes == BOX).all(dim=1).sum()) == 1
    assert not second.boxes.requires_grad
    kept = (first.boxes[:, None] == second.boxes).all(dim=2).any(dim=0)
    assert int(kept.sum()) < len(kept) / 2


def test_anchors_across_the_border_are_not_learnt() -> None:
    anchors = torch.tensor([[-1.0, 0, 15, 16], [0, 0, 16, 16], [20, 20, 40, 30], [1, 1, 39, 31]])
    deltas = torch.zeros(1, 4, 4)
    outputs = DenseOutputs((torch.zeros(1, 4, 1),), (deltas,), (anchors,))
    truth = Truth(torch.tensor([[0.0, 0, 16, 17]]), torch.tensor([2]))
    ((classes, boxes),) = inner_proposal_losses(outputs, [truth], [(32, 40)])
    # Two anchors lie within: the second is the object's, the last is background.
    assert float(classes) == pytest.approx(torch.tensor(2.0).log().item())
    shift, scale = 0.5 / 16, torch.tensor(17 / 16).log().item()
    assert float(boxes) == pytest.approx((shift**2 + scale**2) * 9 / 2 / 2)


def test_boxes_without_masks_are_refused() -> None:
    batch = batch_of((BOX, PLAIN))
    bare = DetectionTarget(boxes=BOX, labels=batch.targets[0].labels, crowd=batch.targets[0].crowd)
    bare_batch = Batch(
        images=batch.images, sizes=batch.sizes, targets=(bare,), origins=batch.origins
    )
    outputs = light()(batch.images, **network_inputs(batch, learn=True))
    with pytest.raises(UserError, match="boxes without masks"):
        loss(outputs, bare_batch)
