"""Scenes composed of real handwritten digits: the embedded data set with boxes and masks.

Each scene follows from (seed, part, number) alone: whole numbers from numpy's PCG64 and Pillow's
fixed-point resizing, so that it is the same on every machine. Nothing is stored.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..structures import Classes, DetectionTarget, Masks, Origin, Sample, SegmentationTarget
from .digits import NAMES, load_arrays
from .source import DataSet
from .split import hold_out

SIDE = 128  # pixels of a scene
DIGITS = (2, 5)  # least and most in a scene
HEIGHTS = (24, 60)  # pixels of a scan of 8 rows, enlarged
MOST_COVERED = 0.1  # share of a digit's box that another's may cover
LEAST_CONTRAST = 70  # between a digit's brightness and that of its ground, of 255
INK = (80, 175)  # of an enlarged scan: grey levels that are no ink yet, and all ink
MASK_LEVEL = 96  # how much of a pixel must be ink, of 255, to be in the mask
BRIGHTNESS = np.array((77, 150, 29))  # weights of red, green and blue, of 256

PARTS = ("train", "validation")


class Glyph(NamedTuple):
    """A digit on its place: how much of each pixel is ink, int32 [h, w] from 0 to 255."""

    ink: np.ndarray
    top: int
    left: int

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.ink.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True, slots=True)
class SceneSource:
    """Scenes of 128x128 pixels, composed when they are asked for.

    Attributes:
        part: "train" or "validation".
        digits: Numbers of the digits that may appear.
        count: Scenes.
        seed: Another seed gives other scenes.
    """

    part: str
    digits: tuple[int, ...]
    count: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample[Any]:
        image, glyphs, labels = self.compose(index)
        return Sample(
            image=image,
            target=to_target(visible_masks(glyphs), labels),
            origin=Origin(name=f"scene-{self.part}-{index:05d}", size=(SIDE, SIDE)),
        )

    def compose(self, index: int) -> tuple[Image.Image, list[Glyph], np.ndarray]:
        """A scene, its digits from the lowest to the uppermost, and their classes int [n]."""
        rng = np.random.default_rng((self.seed, PARTS.index(self.part), index))
        scans, labels = load_arrays()
        wanted = rng.integers(DIGITS[0], DIGITS[1] + 1)
        chosen = [self.digits[i] for i in rng.integers(len(self.digits), size=wanted)]
        glyphs = place_glyphs([scans[i] for i in chosen], rng)
        pixels = paint_ground(rng)
        for glyph in glyphs:
            paint(glyph, pixels, rng)
        grain = int(rng.integers(1, 12))
        pixels += rng.integers(-grain, grain + 1, size=pixels.shape, dtype=np.int32)
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), glyphs, labels[chosen]


@dataclass(frozen=True, slots=True)
class SceneMapSource:
    """The same scenes with a class for every pixel: 0 is the ground, digit d is d + 1."""

    scenes: SceneSource

    @property
    def num_classes(self) -> int:
        return 1 + len(NAMES)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample[Any]:
        image, glyphs, labels = self.scenes.compose(index)
        name = f"scene-{self.scenes.part}-{index:05d}"
        return Sample(
            image=image,
            target=to_map(glyphs, labels),
            origin=Origin(name=name, size=(SIDE, SIDE)),
        )

    def read_target(self, index: int) -> SegmentationTarget:
        """The labels of a scene."""
        _, glyphs, labels = self.scenes.compose(index)
        return to_map(glyphs, labels)


def load_scene_data(*, seed: int, train: int = 3000, validation: int = 100) -> DataSet:
    """Scenes to train on, and held-out ones made of digits that are in none of the others."""
    _, labels = load_arrays()
    digits = hold_out([int(x) for x in labels], 0.2, seed)
    counts = (train, validation)
    return DataSet(
        name="scenes",
        summary=f"scenes of scikit-learn's handwritten digits: 10 classes, {train} training and"
        f" {validation} validation images of {SIDE}x{SIDE} pixels with {DIGITS[0]} to {DIGITS[1]}"
        " objects",
        classes=Classes(names=NAMES, ids=tuple(range(10))),
        splits={
            part: SceneSource(part, numbers, count, seed)
            for part, numbers, count in zip(PARTS, digits, counts, strict=True)
        },
        in_memory=True,
    )


def load_scene_maps(*, seed: int, train: int = 3000, validation: int = 100) -> DataSet:
    """The pictures of `load_scene_data` with the class of every pixel: background, or a digit."""
    data = load_scene_data(seed=seed, train=train, validation=validation)
    splits = {p: SceneMapSource(s) for p, s in data.splits.items() if isinstance(s, SceneSource)}
    return replace(
        data,
        summary=f"scenes of scikit-learn's handwritten digits: background and 10 classes of pixels,"
        f" {train} training and {validation} validation images of {SIDE}x{SIDE} pixels",
        classes=Classes(names=("background", *NAMES), ids=tuple(range(11))),
        splits=dict(splits),
    )


def place_glyphs(scans: list[np.ndarray], rng: np.random.Generator) -> list[Glyph]:
    """Digits of random sizes on random places, none of them covered much."""
    for _ in range(100):
        glyphs: list[Glyph] = []
        for scan in scans:
            glyph = find_place(enlarge(scan, rng), glyphs, rng)
            if glyph is not None:
                glyphs.append(glyph)
        if len(glyphs) == len(scans):
            return glyphs
    raise AssertionError("digits that do not fit into a scene")  # five of the largest always fit


def enlarge(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A scan uint8 [8, 8] as ink int32 [h, w], from 0 to 255, cut to where there is any."""
    height = int(rng.integers(HEIGHTS[0], HEIGHTS[1] + 1))
    width = height * int(rng.integers(80, 121)) // 100
    framed = Image.fromarray(np.pad(scan, 1))  # strokes that reach the edge end round
    grey = framed.resize((width * 10 // 8, height * 10 // 8), Image.Resampling.BICUBIC)
    low, high = INK
    ink = ((np.asarray(grey, np.int32) - low) * 255 // (high - low)).clip(0, 255)
    rows, columns = (np.flatnonzero((ink > 0).any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def find_place(ink: np.ndarray, others: list[Glyph], rng: np.random.Generator) -> Glyph | None:
    """A place where the digit neither covers another one much nor is covered; None if unlucky."""
    height, width = ink.shape
    for _ in range(20):
        top = int(rng.integers(SIDE - height + 1))
        left = int(rng.integers(SIDE - width + 1))
        glyph = Glyph(ink, top, left)
        if all(covered(glyph, other) <= MOST_COVERED for other in others):
            return glyph
    return None


def covered(one: Glyph, other: Glyph) -> float:
    """The area that two boxes share, as a share of the smaller one."""
    (h, w), (h2, w2) = one.ink.shape, other.ink.shape
    height = min(one.top + h, other.top + h2) - max(one.top, other.top)
    width = min(one.left + w, other.left + w2) - max(one.left, other.left)
    return float(max(0, height) * max(0, width) / min(h * w, h2 * w2))


def paint_ground(rng: np.random.Generator) -> np.ndarray:
    """A ground int32 [128, 128, 3]: colours that run into each other, clouds, and often stripes."""
    base = rng.integers(40, 216) + rng.integers(-45, 46, size=3)
    corners = (base + rng.integers(-45, 46, size=(2, 2, 3))).clip(0, 255)
    ground = stretch(corners.astype(np.uint8))

    cells = int(rng.integers(4, 33))
    strength = int(rng.integers(10, 50))
    clouds = stretch(rng.integers(0, 256, size=(cells, cells), dtype=np.uint8)) - 128
    ground += (clouds * strength // 128)[:, :, None]
    if rng.integers(2):
        ground += stripes(rng)[:, :, None]
    return ground


def stretch(pixels: np.ndarray) -> np.ndarray:
    """uint8 pixels enlarged smoothly to a scene, int32."""
    enlarged = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.array(enlarged, np.int32)


def stripes(rng: np.random.Generator) -> np.ndarray:
    """Bands in a random direction, int32 [128, 128], that make the ground brighter or darker."""
    across, down = (int(x) for x in rng.integers(-8, 9, size=2))
    period = int(rng.integers(40, 200))
    strength = int(rng.integers(6, 28))
    place = np.arange(SIDE)[None] * across + np.arange(SIDE)[:, None] * down
    return np.where(place // period % 2, strength, -strength).astype(np.int32)


def paint(glyph: Glyph, pixels: np.ndarray, rng: np.random.Generator) -> None:
    """Lays a digit on the pixels int32 [H, W, 3], in a colour that stands out there."""
    ground = pixels[glyph.window]
    below = (ground @ BRIGHTNESS).sum() // (256 * glyph.ink.size)
    colours = rng.integers(0, 256, size=(40, 3))
    contrast = np.abs(colours @ BRIGHTNESS // 256 - below)
    enough = np.flatnonzero(contrast >= LEAST_CONTRAST)
    colour = colours[enough[0] if len(enough) else contrast.argmax()]
    share = glyph.ink[:, :, None]
    ground[:] = (ground * (255 - share) + colour * share) // 255


def visible_masks(glyphs: list[Glyph]) -> np.ndarray:
    """Bool [n, H, W]: the ink of each digit, but for what later digits lie on."""
    masks = np.zeros((len(glyphs), SIDE, SIDE), dtype=bool)
    for number, glyph in enumerate(glyphs):
        ink = glyph.ink >= MASK_LEVEL
        masks[:number, *glyph.window] &= ~ink
        masks[number, *glyph.window] = ink
    return masks


def to_map(glyphs: list[Glyph], labels: np.ndarray) -> SegmentationTarget:
    """0 on the ground, and 1 + the class of the uppermost digit where there is ink."""
    pixels = np.zeros((SIDE, SIDE), np.int16)
    for glyph, label in zip(glyphs, labels.tolist(), strict=True):
        pixels[glyph.window][glyph.ink >= MASK_LEVEL] = label + 1
    return SegmentationTarget(labels=torch.from_numpy(pixels))


def to_target(masks: np.ndarray, labels: np.ndarray) -> DetectionTarget:
    """Masks bool [n, H, W], each with a pixel at least, and their bounds as boxes."""
    boxes = [bounds(mask) for mask in masks]
    runs = [count_runs(mask) for mask in masks]
    return DetectionTarget(
        boxes=torch.tensor(boxes, dtype=torch.float32),
        labels=torch.from_numpy(labels.astype(np.int64)),
        crowd=torch.zeros(len(masks), dtype=torch.bool),
        masks=Masks(
            size=(masks.shape[1], masks.shape[2]),
            counts=torch.from_numpy(np.concatenate(runs)),
            num_runs=torch.tensor([len(r) for r in runs]),
        ),
    )


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) around the pixels of a mask."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def count_runs(mask: np.ndarray) -> np.ndarray:
    """Lengths of the runs of a mask [H, W], int64, in the order of `structures.Masks`."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    return np.diff(edges, prepend=0, append=flat.size)
