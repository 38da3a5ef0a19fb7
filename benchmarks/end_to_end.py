"""From picture files to drawn pictures and a result file: pictures a second, in turn in one run.

    python benchmarks/end_to_end.py --pictures coco_mini retinanet mask_rcnn
    python benchmarks/end_to_end.py --pictures bccd retinanet-of-bccd.safetensors

For each checkpoint of RetinaNet or Mask R-CNN, at its own input size, or for one of three classes
with random weights and the published width at `--short_side`:

- `torchvision`: torchvision's detector of that kind on timm's backbone, of the same width, in a
  plain loop, and the same under autocast to bf16. Its weights are random, so that it finds next to
  nothing and has little to draw.
- `plain loop`: the same loop around our model as written, by way of `TorchvisionDetector`.
- `pvt predict`, as it is, and with `--precision bf16`.

The loop is what one writes by hand: open, to a tensor, the model, torchvision's drawing functions,
a JPEG file, and at the end one JSON file of all objects. Each way has a process of its own with all
cores; imports and building a model are not counted, but what `pvt predict` prepares is.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from pycocotools import mask as coco_masks
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.transforms.v2 import functional as tv
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from pyramidvit.cli.predict import PredictOptions, predict
from pyramidvit.cli.tasks import open_checkpoint
from pyramidvit.costs.turns import one_process, settings
from pyramidvit.data.images import SUFFIXES
from pyramidvit.structures import Classes
from pyramidvit.tasks.detection.config import DetectionOptions
from pyramidvit.tasks.detection.task import DETECTION
from pyramidvit.tasks.detection.torchvision_style import TorchvisionDetector
from pyramidvit.weights.checkpoint import read_checkpoint, save_checkpoint

SHOWN = 0.3  # score from which objects are drawn, by all
SIDES = (32, 64, 128, 256, 512)  # of anchors, a level each
RATIOS = ((0.5, 1.0, 2.0),) * len(SIDES)
WAYS = ("torchvision", "torchvision, bf16", "plain loop", "pvt predict", "pvt predict, bf16")
Way = Callable[[Sequence[str], Path], None]  # from pictures to a folder of results
READY: dict[str, Way] = {}  # in the process of a way, by checkpoint


class Maps(nn.Module):
    """timm's backbone and torchvision's pyramid, as torchvision's detectors want them."""

    def __init__(
        self,
        backbone: str,
        width: int,
        levels: Sequence[int],
        extra: LastLevelP6P7 | LastLevelMaxPool,
    ) -> None:
        super().__init__()
        self.body = timm.create_model(backbone, features_only=True, out_indices=levels)
        channels = self.body.feature_info.channels()
        self.fpn = FeaturePyramidNetwork(channels, width, extra_blocks=extra)
        self.out_channels = width

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.fpn({str(i): m for i, m in enumerate(self.body(x))})
        return maps


def torchvision_detector(record: dict[str, Any]) -> nn.Module:
    """What a checkpoint's record describes, by torchvision and timm, with random weights."""
    described, size = record["model"], record["input"]
    name, backbone, width = described["name"], described["backbone"], described["numbers"]["width"]
    sizes = {"min_size": size["short_side"], "max_size": size["long_side"]}
    count = len(record["classes"]) + 1
    if name == "retinanet":
        scales = tuple(tuple(round(x * 2 ** (i / 3)) for i in range(3)) for x in SIDES)
        maps = Maps(backbone, width, (1, 2, 3), LastLevelP6P7(width, width))
        return RetinaNet(maps, count, anchor_generator=AnchorGenerator(scales, RATIOS), **sizes)
    if name == "mask_rcnn":
        scales = tuple((x,) for x in SIDES)
        maps = Maps(backbone, width, (0, 1, 2, 3), LastLevelMaxPool())
        anchors = AnchorGenerator(scales, RATIOS)
        return MaskRCNN(maps, count, rpn_anchor_generator=anchors, **sizes)
    raise SystemExit(f"torchvision has no {name}: take retinanet or mask_rcnn")


def loop(model: nn.Module, *, half: bool = False) -> Way:
    """The loop that one writes by hand, in bf16 where asked."""
    model.eval()

    @torch.inference_mode()
    def run(pictures: Sequence[str], folder: Path) -> None:
        folder.mkdir(parents=True)
        objects = []
        for path in pictures:
            image = tv.pil_to_tensor(Image.open(path).convert("RGB"))
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                found = model([image.float() / 255])[0]
            objects += describe(path, found)
            drawn = tv.to_pil_image(draw(image, found))
            drawn.save(folder / f"{Path(path).stem}.jpg", quality=90)
        (folder / "predictions.json").write_text(json.dumps(objects))

    return run


def draw(image: Tensor, found: dict[str, Tensor]) -> Tensor:
    kept = found["scores"] >= SHOWN
    names = [
        f"{label} {score:.2f}"
        for label, score in zip(found["labels"][kept], found["scores"][kept], strict=True)
    ]
    if "masks" in found:
        image = draw_segmentation_masks(image, found["masks"][kept, 0] >= 0.5, alpha=0.5)
    return draw_bounding_boxes(image, found["boxes"][kept], names)


def describe(path: str, found: dict[str, Tensor]) -> list[dict[str, Any]]:
    """A record an object, with COCO's runs where there are masks."""
    runs: list[dict[str, Any]] = [{} for _ in found["scores"]]
    if "masks" in found and len(found["masks"]):
        bits = (found["masks"][:, 0] >= 0.5).permute(1, 2, 0).byte().numpy()
        encoded = coco_masks.encode(bits.copy(order="F"))
        runs = [{"segmentation": {**x, "counts": x["counts"].decode()}} for x in encoded]
    columns = (found[name].tolist() for name in ("boxes", "scores", "labels"))
    return [
        {"file": path, "box": box, "score": score, "label": label, **run}
        for box, score, label, run in zip(*columns, runs, strict=True)
    ]


def prepare(way: str, checkpoint: str) -> None:
    """In the process of a way: makes it ready."""
    torch.manual_seed(0)
    half = way.endswith("bf16")
    if way.startswith("torchvision"):
        detector = torchvision_detector(read_checkpoint(Path(checkpoint)).record)
        READY[checkpoint] = loop(detector, half=half)
    elif way == "plain loop":
        opened = open_checkpoint(checkpoint)
        sides = {name: opened.input_record[name] for name in ("short_side", "long_side")}
        READY[checkpoint] = loop(TorchvisionDetector(opened.model, **sides))
    else:
        precision = "bf16" if half else "float32"

        def run(pictures: Sequence[str], folder: Path) -> None:
            predict(
                checkpoint, list(pictures), PredictOptions(output=str(folder), precision=precision)
            )

        READY[checkpoint] = run


def take_turn(checkpoint: str, pictures: Sequence[str], folder: Path) -> float:
    """In the process of a way: seconds for all pictures."""
    quiet = io.StringIO()
    with redirect_stdout(quiet), redirect_stderr(quiet):
        start = time.perf_counter()
        READY[checkpoint](pictures, folder)
        return time.perf_counter() - start


def measure(checkpoint: str, pictures: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round, after one with two pictures that does not count."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as place, settings(0), ExitStack() as stack:
        pools = {way: stack.enter_context(one_process()) for way in WAYS}
        for way, pool in pools.items():
            pool.submit(prepare, way, checkpoint).result()
            pool.submit(take_turn, checkpoint, pictures[:2], Path(place) / f"{way} first").result()
        for number in range(rounds):
            for way, pool in pools.items():
                folder = Path(place) / f"{way} {number}"
                seconds[way].append(pool.submit(take_turn, checkpoint, pictures, folder).result())
    return seconds


def write_random(name: str, short_side: int, folder: Path) -> Path:
    """A checkpoint of a detector on `pvt_v2_b0`, of the published width, with random weights."""
    torch.manual_seed(0)
    numbers = {"width": 256, "hidden": 1024, "short_side": short_side, "long_side": 2 * short_side}
    options = DetectionOptions(model=name, **numbers)
    classes = Classes(names=("a", "b", "c"), ids=(1, 2, 3))
    record = {
        "task": "detection",
        "model": DETECTION.describe_model(options, classes),
        "classes": classes.to_records(),
        "input": DETECTION.describe_input(options),
    }
    path = folder / f"{name}.safetensors"
    save_checkpoint(path, DETECTION.rebuild(record["model"]).state_dict(), record)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="Checkpoints, or retinanet and mask_rcnn.")
    parser.add_argument("--short_side", type=int, default=480, help="Of detectors by name.")
    parser.add_argument("--pictures", type=Path, required=True, help="A folder.")
    parser.add_argument("--count", type=int, default=40, help="How many of them, at most.")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()

    files = (path for path in given.pictures.rglob("*") if path.suffix.lower() in SUFFIXES)
    pictures = sorted(map(str, files))[: given.count]
    if len(pictures) < 2:
        raise SystemExit(f"{given.pictures} holds fewer than two pictures")
    print("| model | way | pictures a second | times the loop | times torchvision |")
    print("|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for model in given.models:
            path = model
            if model in ("retinanet", "mask_rcnn"):
                path = str(write_random(model, given.short_side, Path(folder)))
            show(model, measure(path, pictures, given.rounds), len(pictures))


def show(model: str, seconds: dict[str, list[float]], count: int) -> None:
    """Prints the rows of a model."""
    for way, taken in seconds.items():
        ratios = (
            statistics.median(a / b for a, b in zip(seconds[base], taken, strict=True))
            for base in ("plain loop", "torchvision")
        )
        cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
        rate = count / statistics.median(taken)
        print(f"| {model} | {way} | {rate:.2f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
