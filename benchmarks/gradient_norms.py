"""Whose rounding it is: gradient norms of ours in float32 and float64, and as they were recorded.

    PYRAMIDVIT_GOLDEN=golden PYTHONPATH=tests python benchmarks/gradient_norms.py detr

Norms were recorded in float32. For each pair of the three sets the largest distances are printed,
as shares of the second one's norms, and how many are above 1e-4.

Cascade Mask R-CNN chooses what it learns from by what it has found, and with other rounding other
anchors tie, so that float64 would learn something else. There the float64 run is handed what the
float32 run chose: proposals, sampled and moved regions, matches of anchors, cut out masks.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dense_golden import DTYPES, DenseGolden, gradient_norms
from pyramidvit.tasks.detection import baseline_losses
from pyramidvit.tasks.detection.heads import cascade
from pyramidvit.tasks.detection.loss import loss
from pyramidvit.tasks.detection.model import build_detector
from pyramidvit.tasks.detection.outputs import network_inputs, truths_of

ALL = 10**7  # the recordings draw no sample: all regions are learnt from
RECORDED: dict[str, tuple[str, str, dict[str, Any]]] = {  # recording, backbone, numbers
    "cascade_mask_rcnn": ("mm2_cascade_pvt_v2_b0", "pvt_v2_b0", {"region_samples": ALL}),
    "sparse_rcnn": ("mm2_sparse_rcnn_pvt_v2_b0", "pvt_v2_b0", {}),
    "detr": ("mm2_detr_pvt_small", "pvt_small", {"drop_rate": 0.0}),
}
CHOICES = (  # of a cascade: where they are made
    (cascade, "propose"),
    (cascade, "sample_regions"),
    (cascade, "move_regions"),
    (baseline_losses, "crop_masks"),
    (baseline_losses, "match_anchors"),
)
Norms = dict[str, float]


def keep_choices() -> list[list[Any]]:
    """What is chosen from here on, one list for each of `CHOICES`."""
    kept: list[list[Any]] = []
    for module, name in CHOICES:
        kept.append([])
        setattr(module, name, keeping(getattr(module, name), kept[-1]))
    return kept


def keeping(choose: Callable[..., Any], kept: list[Any]) -> Callable[..., Any]:
    def choice(*args: Any, **numbers: Any) -> Any:
        kept.append(choose(*args, **numbers))
        return kept[-1]

    return choice


def give_choices(kept: list[list[Any]]) -> None:
    """From here on what was kept is chosen, in the same order, in float64."""
    for (module, name), choices in zip(CHOICES, kept, strict=True):
        setattr(module, name, giving(iter(choices)))


def giving(choices: Iterator[Any]) -> Callable[..., Any]:
    return lambda *args, **numbers: doubled(next(choices))


def doubled(value: Any) -> Any:
    """A tensor, or a named tuple of some, in float64 as far as it is in float32."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    return type(value)(*map(doubled, value))


def terms_of(head: str, model: Any, batch: Any) -> list[Tensor]:
    """The losses that were recorded."""
    if head != "cascade_mask_rcnn":
        outputs = model(batch.images, **network_inputs(batch, learn=True))
        return list(loss(outputs, batch).values())
    model.proposals = 150  # half of what was recorded, as training takes twice as many
    outputs = model(batch.images, **network_inputs(batch, learn=True))
    truths = truths_of(batch.targets)
    levels = cascade.inner_proposal_losses(
        outputs.stages[0].proposals, truths, batch.sizes, samples=ALL
    )
    terms = [term for level in levels for term in level]
    for stage, said in zip(cascade.STAGES, outputs.stages, strict=True):
        box_loss = partial(cascade.overlap_loss, stage=stage)
        own = [
            *baseline_losses.region_losses(said, truths, box_loss).values(),
            *baseline_losses.mask_losses(said, batch.targets).values(),
        ]
        terms += [stage.weight * term for term in own]
    return terms


def measure(head: str, folder: Path) -> dict[str, Norms]:
    name, backbone, numbers = RECORDED[head]
    golden = DenseGolden(folder / "dense", name, independent=head == "sparse_rcnn")
    model = build_detector(head, backbone, 80, drop_path_rate=0.0, **numbers)
    kept = keep_choices() if head == "cascade_mask_rcnn" else []
    norms: dict[str, Norms] = {"recorded": golden.records["grad_norm.f32"]}
    for precision, dtype in DTYPES.items():
        golden.fill(model, dtype)
        batch = golden.batch("batch.f32")
        batch = replace(batch, images=batch.images.to(dtype))
        if kept and dtype == torch.float64:
            give_choices(kept)
        total = torch.stack(terms_of(head, model.train(), batch)).sum()
        print(f"{precision}: loss {total.item():.7f}", end=", ")
        print(f"recorded {golden.records['loss_total.f32']:.7f}")
        norms[precision] = gradient_norms(model, total)
    return norms


def compare(found: Norms, wanted: Norms, shown: int) -> str:
    off = {name: abs(found[name] / norm - 1) for name, norm in wanted.items() if norm > 1e-5}
    worst = sorted(off, key=off.__getitem__, reverse=True)
    beyond = sum(share > 1e-4 for share in off.values())
    rows = [f"  {off[name]:.2e}  {name}" for name in worst[:shown]]
    return "\n".join([f"{beyond} of {len(off)} above 1e-4, the largest:", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detector", choices=RECORDED)
    parser.add_argument("--shown", type=int, default=5, help="Parameters of each comparison.")
    given = parser.parse_args()
    norms = measure(given.detector, Path(os.environ["PYRAMIDVIT_GOLDEN"]))
    for found, wanted in (("recorded", "f64"), ("f32", "f64"), ("f32", "recorded")):
        print(f"{found} from {wanted}: {compare(norms[found], norms[wanted], given.shown)}")


if __name__ == "__main__":
    main()
