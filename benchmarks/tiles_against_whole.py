"""How far a segmenter's labels from windows are from those of the whole picture.

    python benchmarks/tiles_against_whole.py --checkpoint best.safetensors --picture large.jpg

Both look at the picture's own pixels. Attention sees no more than its window, so the labels may
differ anywhere; near the edge of a window, what lies beyond is missing to the convolutions too.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from pyramidvit.cli.tasks import open_checkpoint
from pyramidvit.data.images import read_image
from pyramidvit.structures import Origin, Sample
from pyramidvit.task import Tiling
from pyramidvit.tasks.segmentation.tiles import Grid, plan, predict_tiled

FAR = 32  # pixels from a window's edge


def distances(starts: Sequence[int], side: int, length: int) -> np.ndarray:
    """[length]: pixels from each to the nearest end, inside the picture, of a window over it."""
    nearest = np.full(length, np.inf)
    for start in starts:
        pixels = np.arange(start, min(start + side, length))
        for end in {start, start + side}:
            if 0 < end < length:
                nearest[pixels] = np.minimum(nearest[pixels], np.abs(pixels + 0.5 - end))
    return nearest


def far_from_edges(grid: Grid) -> np.ndarray:
    """bool [H, W]."""
    down = distances(grid.tops, grid.side, grid.size[0])
    across = distances(grid.lefts, grid.side, grid.size[1])
    far: np.ndarray = np.minimum(down[:, None], across) >= FAR
    return far


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--picture", required=True)
    parser.add_argument("--tile", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--overlap", type=float, default=0.25)
    options = parser.parse_args()

    opened = open_checkpoint(options.checkpoint, None)
    picture = read_image(options.picture)
    size = (picture.height, picture.width)
    sample = Sample(image=picture, target=None, origin=Origin(name=options.picture, size=size))
    record = opened.input_record
    whole = predict_tiled(opened.model, sample, record, Tiling(side=max(size))).labels.numpy()
    print(f"tile   same labels   {FAR} pixels or more from edges   (that many pixels)   nearer")
    for side in options.tile:
        tiling = Tiling(side=side, overlap=options.overlap)
        same = predict_tiled(opened.model, sample, record, tiling).labels.numpy() == whole
        far = far_from_edges(plan(size, tiling, int(record["divisor"])))
        figures = (same.mean(), same[far].mean(), far.mean(), same[~far].mean())
        print(f"{side:<6}", "   ".join(f"{100 * figure:.2f} %" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
