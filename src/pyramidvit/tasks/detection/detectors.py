"""How the parts of a detector work together.

Parameters carry the names of released mmdetection checkpoints: backbone, neck, and bbox_head, or
rpn_head and roi_head.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ...ops.regions import Level
from .heads.roi import RoIHead, detect_regions, labels_of, sample_regions
from .heads.rpn import RPNHead, propose
from .outputs import (
    Decoding,
    DenseOutputs,
    RegionDetections,
    RegionOutputs,
    Sizes,
    Truth,
)
from .trunk import Padding, bounds_of, check_padding, own_parts, read_maps


class SingleStageDetector(nn.Module):
    """A detector that answers at every anchor.

    Args:
        backbone: Images to a list of maps.
        neck: Those, and `Bounds` or None, to maps of one width.
        bbox_head: Those, and the same, to outputs.
        decoding: How detections are chosen from the outputs.
        padding: See `trunk.bounds_of`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        bbox_head: nn.Module,
        *,
        decoding: Decoding,
        padding: Padding = "published",
    ) -> None:
        super().__init__()
        self.decoding = decoding
        self.padding = check_padding(padding)
        self.backbone = backbone
        self.neck = neck
        self.bbox_head = bbox_head

    def forward(
        self,
        images: Tensor,
        *,
        sizes: Sizes | None = None,
        targets: Sequence[Truth] | None = None,
    ) -> DenseOutputs:
        """Maps images [B, C, H, W] to raw outputs; targets steer other detectors.

        Sizes, (H, W) of each image before padding, are looked at where padding is masked.
        """
        bounds = bounds_of(images, sizes, self.padding)
        maps = self.neck(read_maps(self.backbone, images, bounds), bounds)
        outputs: DenseOutputs = self.bbox_head(maps, bounds)
        return outputs


class TwoStageDetector(nn.Module):
    """A detector that proposes regions and looks at them again.

    Args:
        backbone: Images to a list of maps.
        neck: Those, and `Bounds` or None, to maps of one width.
        rpn_head: Those, and the same, to objectness.
        roi_head: Regions of the maps, but for the last one, to classes, boxes and masks.
        candidates: Anchors of a level that proposals are chosen from; twice as many in training.
        proposals: Regions an image.
        region_samples: How many of them an image are learnt from at a time.
        low_quality: Least overlap for which an object also takes the best region that it has.
        decoding: How detections are chosen, whose masks are then drawn.
        padding: See `trunk.bounds_of`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn_head: RPNHead,
        roi_head: RoIHead,
        *,
        candidates: int,
        proposals: int,
        region_samples: int,
        low_quality: float | None,
        decoding: Decoding,
        padding: Padding = "published",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.rpn_head = rpn_head
        self.roi_head = roi_head
        self.candidates = candidates
        self.proposals = proposals
        self.region_samples = region_samples
        self.padding = check_padding(padding)
        self.low_quality = low_quality
        self.decoding = decoding

    def forward(
        self,
        images: Tensor,
        *,
        sizes: Sizes | None = None,
        targets: Sequence[Truth] | None = None,
    ) -> RegionOutputs | RegionDetections:
        """Maps images [B, C, H, W] to detections, or with targets to what can be learnt from.

        Args:
            images: Padded at the right and the bottom.
            sizes: (H, W) of each image before padding, at whose borders boxes are cut off; None
                where nothing was padded.
            targets: One an image; they decide which regions are looked at.
        """
        sizes = [(images.shape[2], images.shape[3])] * len(images) if sizes is None else sizes
        bounds = bounds_of(images, sizes, self.padding)
        maps = self.neck(read_maps(self.backbone, images, bounds), bounds)
        dense = self.rpn_head(maps, bounds)
        levels = own_parts(maps[:-1], bounds)
        if targets is None:
            return self.detect(levels, dense, sizes)
        return self.learn(levels, dense, sizes, targets)

    def detect(self, maps: Sequence[Level], dense: DenseOutputs, sizes: Sizes) -> RegionDetections:
        proposals = propose(dense, sizes, candidates=self.candidates, most=self.proposals)
        logits, deltas = self.roi_head(maps, proposals.boxes, proposals.images)
        found = detect_regions(logits, deltas, proposals, sizes, self.decoding)
        masks = self.roi_head.forward_masks(maps, found.boxes, found.images, found.labels)
        return RegionDetections(found, masks)

    def learn(
        self,
        maps: Sequence[Level],
        dense: DenseOutputs,
        sizes: Sizes,
        targets: Sequence[Truth],
    ) -> RegionOutputs:
        found = propose(dense, sizes, candidates=2 * self.candidates, most=self.proposals)
        regions = sample_regions(
            found.boxes,
            found.images,
            targets,
            count=self.region_samples,
            low_quality=self.low_quality,
        )
        logits, deltas = self.roi_head(maps, regions.boxes, regions.images)
        labels, _ = labels_of(regions, targets)
        objects = regions.matches >= 0
        masks = self.roi_head.forward_masks(
            maps, regions.boxes[objects], regions.images[objects], labels
        )
        return RegionOutputs(dense, regions, logits, deltas, masks)
