"""Outputs of segmenters that were recorded from the reference code, and what makes them again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dense_golden import DTYPES, TOLERANCES, load_rule
from pyramidvit.structures import UNLABELLED, Batch, Origin, SegmentationTarget


class SegmentationGolden:
    """The recorded outputs of one segmenter, on two images that are as large as the batch."""

    def __init__(self, folder: Path, name: str) -> None:
        self.rule = load_rule(folder / "rule.py")
        self.records: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
        self.arrays = np.load(folder / f"{name}.npz")
        self.made: dict[str, Tensor] = {}  # weights that were made already

    def fill(self, model: nn.Module, dtype: torch.dtype) -> None:
        """Gives a model the weights that follow from its parameters' names; counters stay 0."""
        model.to(dtype)
        with torch.no_grad():
            for key, value in model.state_dict().items():
                if key not in self.made:
                    made = self.rule.tensor(key, value.shape)
                    self.made[key] = torch.zeros(()) if made is None else torch.from_numpy(made)
                value.copy_(self.made[key])

    def batch(self, precision: str) -> Batch[SegmentationTarget]:
        """The images, their labels, and the sizes of their files."""
        (spec,) = self.rule.SINGLE
        height, width = spec["img"]
        images = [self.rule.image(str(i), height, width) for i in range(2)]
        maps = [torch.from_numpy(self.rule.seg_map(str(i), height, width)) for i in range(2)]
        return Batch(
            images=torch.from_numpy(np.stack(images)).to(DTYPES[precision]),
            sizes=((height, width),) * 2,
            targets=tuple(SegmentationTarget(labels=to_labels(m)) for m in maps),
            origins=tuple(Origin(name=str(i), size=spec["ori"]) for i in range(2)),
        )

    def check(self, precision: str, name: str, value: Tensor) -> None:
        """Holds a tensor to the recorded shape, sums and 64 of its values."""
        full = f"{precision}/{name}"
        recorded = self.records[full]
        assert list(value.shape) == recorded["shape"]
        flat = value.detach().double().flatten().numpy()
        share, spread = TOLERANCES[precision]
        near = {"rtol": share, "atol": spread * recorded["std"]}
        places = self.rule.sample_index(full, flat.size)
        np.testing.assert_allclose(flat[places], recorded["sample"], **near)
        for figure, found in (("mean", flat.mean()), ("std", flat.std())):
            np.testing.assert_allclose(found, recorded[figure], **near)
        np.testing.assert_allclose(np.abs(flat).max(), recorded["absmax"], **near)


def to_labels(recorded: Tensor) -> Tensor:
    """A recorded map, in which 255 is to be ignored, in our numbers."""
    return recorded.where(recorded != 255, UNLABELLED).to(torch.int16)
