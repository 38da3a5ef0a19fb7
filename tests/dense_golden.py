"""Outputs of detectors that were recorded from the reference code, and what makes them again."""

import importlib.util
import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyramidvit.ops.masks import encode_masks
from pyramidvit.structures import Batch, DetectionPrediction, DetectionTarget, Origin

DTYPES = {"f32": torch.float32, "f64": torch.float64}


class Tolerance(NamedTuple):
    """How far values may be off: a share of the value, and a share of the tensor's spread."""

    relative: float
    spread: float


TOLERANCES = {"f32": Tolerance(1e-4, 1e-4), "f64": Tolerance(1e-6, 1e-8)}
# Norms of gradients. Float32's rounding grows on its way back through a network, and by how much
# differs by processor: with AVX-512 ours are within 1e-4 of what was recorded in float32, with
# matrix units (AMX) up to 9.3e-4 off it, and off our own float64 too. In float64, which is the same
# everywhere, ours are held to the same recordings as closely as these are exact.
NORMS = {"f32": 1e-3, "f64": 1.2e-4}


class DenseGolden:
    """The recorded outputs of one detector, and the batches that they were recorded on.

    A tag is "single.f32", "batch.f32" or "batch.f64".
    """

    def __init__(self, folder: Path, name: str, *, independent: bool) -> None:
        self.rule = load_rule(folder / "rule.py")
        self.records: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
        self.arrays = np.load(folder / f"{name}.npz")
        self.independent = independent  # classes are asked one by one, not against each other
        self.large = name.endswith("224x288")

    def fill(self, model: nn.Module, dtype: torch.dtype) -> None:
        """Gives a model the weights that follow from its parameters' names; others stay."""
        model.to(dtype)
        with torch.no_grad():
            for key, value in model.state_dict().items():
                made = self.rule.tensor(key, value.shape, self.independent)
                if made is not None:
                    value.copy_(torch.from_numpy(made))

    def spec(self, tag: str) -> list[dict[str, tuple[int, int]]]:
        """The images of a tag: their sizes "img", "pad" and "ori" as (H, W)."""
        name = "SINGLE" if tag.startswith("single") else "BATCH"
        spec: list[dict[str, tuple[int, int]]] = getattr(self.rule, name + "_224" * self.large)
        return spec

    def batch(self, tag: str, *, frame: str = "ori") -> Batch[DetectionTarget]:
        """The batch of a tag; "net" as the frame pretends that files have the network's size."""
        spec = self.spec(tag)
        dtype = DTYPES[tag.split(".")[1]]
        sizes = tuple(s["img"] for s in spec)
        files = sizes if frame == "net" else tuple(s["ori"] for s in spec)
        return Batch(
            images=torch.from_numpy(self.rule.batch(spec)).to(dtype),
            sizes=sizes,
            targets=tuple(self.target(i, s, dtype) for i, s in enumerate(spec)),
            origins=tuple(Origin(name=str(i), size=size) for i, size in enumerate(files)),
        )

    def target(
        self, index: int, image: dict[str, tuple[int, int]], dtype: torch.dtype
    ) -> DetectionTarget:
        """Objects of an image. Boxes were recorded in the precision of the network."""
        boxes, labels, masks = self.rule.ground_truth(index, image)
        return DetectionTarget(
            boxes=torch.from_numpy(boxes).to(dtype),
            labels=torch.from_numpy(labels),
            crowd=torch.zeros(len(boxes), dtype=torch.bool),
            masks=encode_masks(torch.from_numpy(masks).bool()),
        )

    def check(self, tag: str, name: str, value: Tensor) -> None:
        """Holds a tensor to the recorded shape, sums and 64 of its values."""
        recorded = self.records[f"{tag}/{name}"]
        assert list(value.shape) == recorded["shape"]
        flat = value.detach().double().flatten().numpy()
        places = self.rule.sample_index(f"{tag}/{name}", flat.size)
        share, spread = TOLERANCES[tag.split(".")[1]]
        near = {"rtol": share, "atol": spread * recorded["std"]}
        np.testing.assert_allclose(flat[places], recorded["sample"], **near)
        for figure, found in (("mean", flat.mean()), ("std", flat.std())):
            np.testing.assert_allclose(found, recorded[figure], **near)
        np.testing.assert_allclose(np.abs(flat).max(), recorded["absmax"], **near)

    def check_gradients(self, model: nn.Module, total: Tensor, precision: str) -> None:
        """Holds the norm of each parameter's gradient, and of all, to the recorded ones."""
        if f"loss_total.{precision}" in self.records:
            self.check_total(total, precision)
        self.check_norms(gradient_norms(model, total), precision)

    def check_total(self, total: Tensor, precision: str) -> None:
        assert total.item() == pytest.approx(self.records[f"loss_total.{precision}"], rel=1e-5)

    def check_norms(
        self,
        found: Mapping[str, float],
        precision: str,
        *,
        share: float | None = None,
        wider: Mapping[str, float] = MappingProxyType({}),
        most: int = 0,
    ) -> None:
        """Holds norms of gradients, and that of all, to what was recorded in a precision, or in
        float32 where that is all there is.

        Args:
            share, wider, most: As `hold_norms` takes them; by default a share of `NORMS`, and that
                of all values in float64 where norms were recorded in it.
        """
        key = precision if f"grad_norm.{precision}" in self.records else "f32"
        if share is None:
            share = TOLERANCES["f64"].relative if key == "f64" else NORMS[precision]
        hold_norms(found, self.records[f"grad_norm.{key}"], share, wider=wider, most=most)
        total = sum(norm**2 for norm in found.values()) ** 0.5
        assert total == pytest.approx(self.records[f"grad_norm_total.{key}"], rel=share)

    def pair(self, tag: str, frame: str, image: int, found: DetectionPrediction) -> list[int]:
        """Which detection of ours each recorded one is: same label, box and score; no two the same.

        Ties may have changed places, so the order is not compared.
        """
        boxes = torch.from_numpy(self.arrays[f"{tag}/det{image}.{frame}"]).double()
        labels = torch.from_numpy(self.arrays[f"{tag}/label{image}.{frame}"])
        assert len(found.boxes) == len(boxes)
        ours = torch.cat((found.boxes, found.scores[:, None]), dim=1).double()
        off = (ours[None] - boxes[:, None]).abs()  # [theirs, ours, 5]
        same = (off[..., :4] < 0.01).all(-1) & (off[..., 4] < 1e-4)
        same &= found.labels[None] == labels[:, None]
        assert same.any(dim=1).all()
        pairs = off.sum(-1).masked_fill(~same, torch.inf).argmin(dim=1).tolist()
        assert len(set(pairs)) == len(pairs)
        return pairs

    def check_masks(self, start: str, end: str, masks: Tensor, sure: Tensor) -> None:
        """Holds masks [n, H, W] to recorded areas, centres and pixels, where they are sure."""
        unsure = ~sure
        assert float(unsure.float().mean()) < 1e-5
        rows, columns = (torch.arange(side) for side in masks.shape[1:])

        def near(name: str, weights: Tensor) -> None:
            array = self.arrays[f"{start}{name}{end}"].T.reshape(-1, len(masks))
            recorded = torch.from_numpy(array)
            found = (masks * weights).sum((-2, -1)).reshape(-1, len(masks))
            play = (unsure * weights).sum((-2, -1)).reshape(-1, len(masks))
            assert bool(((found - recorded).abs() <= play).all())

        near("area", torch.ones_like(masks, dtype=torch.int64))
        centres = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))  # [2, H, W]
        near("moment", centres[:, None])
        if f"{start}bits{end}" in self.arrays:
            packed = self.arrays[f"{start}bits{end}"]
            bits = np.unpackbits(packed, axis=-1, count=masks.shape[2]).astype(bool)
            assert torch.equal(masks[:8][sure[:8]], torch.from_numpy(bits)[sure[:8]])


def gradient_norms(model: nn.Module, total: Tensor) -> dict[str, float]:
    """The norm of the gradient of each parameter that a loss depends on."""
    model.zero_grad()
    total.backward()
    norms = {
        name: p.grad.double().norm().item()
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    model.zero_grad()
    return norms


def hold_norms(
    found: Mapping[str, float],
    wanted: Mapping[str, float],
    share: float,
    *,
    wider: Mapping[str, float] = MappingProxyType({}),
    most: int = 0,
) -> None:
    """Holds norms to others, within a share of these.

    Args:
        wider: Names, or patterns of names, of parameters that may be off by more, and by how much.
        most: How many of those may be.
    """
    assert found.keys() == wanted.keys()
    beyond = []
    for name, norm in wanted.items():
        limit = max([wider[key] for key in wider if fnmatchcase(name, key)], default=share)
        assert found[name] == pytest.approx(norm, rel=limit, abs=1e-9), name
        if found[name] != pytest.approx(norm, rel=share, abs=1e-9):
            beyond.append(name)
    assert len(beyond) <= most, beyond


def load_rule(path: Path) -> ModuleType:
    """The module that says which weights, images and objects follow from a name."""
    spec = importlib.util.spec_from_file_location("dense_rule", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def to_map(rows: Tensor, like: Tensor) -> Tensor:
    """Rows [B, H * W * A, dim] as a head's map [B, A * dim, H, W], the size of another map."""
    height, width = like.shape[2:]
    return rows.reshape(len(rows), height, width, -1).permute(0, 3, 1, 2)


def paste(cells: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """Cells [S, S] stretched over a box in an image of size (H, W), all pixels at once."""
    (height, width), (x0, y0, x1, y1) = size, box.tolist()
    y = ((torch.arange(height) + 0.5 - y0) / (y1 - y0) * 2 - 1)[:, None].expand(size)
    x = ((torch.arange(width) + 0.5 - x0) / (x1 - x0) * 2 - 1)[None].expand(size)
    grid = torch.stack((x, y), dim=-1)[None]
    return F.grid_sample(cells[None, None], grid, align_corners=False)[0, 0]
