"""Exports models as ONNX and OpenVINO and compares them with eager execution, at every size.

    python benchmarks/check_exports.py
    python benchmarks/check_exports.py --rows pvt_v2_b2_li semantic_fpn --sizes 480x640 --batches 3

Weights are random, but large enough for every part to matter. Prints a line an output of both
runtimes: the largest difference of all its sizes and batches, as a share of the largest value.
Exits with 1 where one is above 1e-4.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyramidvit import create_model
from pyramidvit.export.formats import FORMATS, Run
from pyramidvit.export.graph import Exportable
from pyramidvit.export.write import TOLERANCE, difference
from pyramidvit.weights.inputs import PUBLISHED

CLASSIFIERS = ("pvt_tiny", "pvt_v2_b0", "pvt_v2_b2_li")
SEGMENTERS = ("semantic_fpn", "trans2seg")  # on pvt_v2_b0
ROWS = (*CLASSIFIERS, *(f"{name}-features" for name in CLASSIFIERS), *SEGMENTERS)
SIZES = ("224x224", "97x131", "96x128", "480x640")


class Compared(NamedTuple):
    row: str
    runtime: str
    share: float  # the largest difference, of the largest value of its output
    where: str  # batch, size and output


def build(row: str) -> Exportable:
    """The network of a row, normalisation inside, in evaluation mode."""
    torch.manual_seed(0)
    name, _, features = row.partition("-")
    if name in SEGMENTERS:
        model = create_model(name, backbone="pvt_v2_b0", num_classes=19)
    else:
        model = create_model(name, features_only=bool(features))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return Exportable(model, PUBLISHED["mean"], PUBLISHED["std"]).eval()


def images_of(sizes: list[str], batches: list[int]) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        height, width = map(int, size.split("x"))
        for batch in batches:
            yield torch.rand(batch, 3, height, width, generator=generator)


def compare(row: str, sizes: list[str], batches: list[int], folder: Path) -> list[Compared]:
    """What both runtimes make of a row: the worst of all sizes and batches."""
    network = build(row)
    runs: dict[str, Run] = {}
    with torch.no_grad():
        names = [f"output {k}" for k in range(len(network(torch.rand(1, 3, 64, 64))))]
    for to in ("onnx", "openvino"):
        path = folder / f"{row}{FORMATS[to].suffixes[0]}"
        FORMATS[to].write(network, path, {"outputs": names})
        runs[to] = FORMATS[to].open(path)
    worst = {to: Compared(row, to, 0.0, "") for to in runs}
    for images in images_of(sizes, batches):
        with torch.no_grad():
            expected = network(images)
        for to, run in runs.items():
            for name, found, right in zip(names, run(images), expected, strict=True):
                share = difference(found, right)
                if not share <= worst[to].share:
                    worst[to] = Compared(row, to, share, f"{list(images.shape)}, {name}")
    return list(worst.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="+", default=ROWS, choices=ROWS)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 3])
    given = parser.parse_args()
    wrong = 0
    print("| model | runtime | largest difference | where |\n|---|---|---:|---|")
    for row in given.rows:
        with tempfile.TemporaryDirectory() as folder:
            for found in compare(row, given.sizes, given.batches, Path(folder)):
                wrong += not found.share <= TOLERANCE
                print(
                    f"| {row} | {found.runtime} | {found.share:.1e} | {found.where} |", flush=True
                )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
