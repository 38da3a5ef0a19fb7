"""Trains a detector on a few images until it knows them by heart: what can learn, does.

    python benchmarks/overfit_detector.py --data coco_mini --model mask_rcnn --output /tmp/overfit

The images are the first ones in the folder's training part with 2 to 6 objects, none a crowd or
smaller than a fifth of the image's short side. They are shown without augmentation, and scored on
themselves; the detector has the published width and starts from nothing.

They are learnt as one batch, where they are padded to the same size, and scored each alone. What a
detector with `--padding published` knows by heart is the padded images: DETR, which looks at all of
an image at once, does not find the objects again without it. There is no dropout either: with it,
DETR's queries differ by its noise alone, and the best of a hundred such is trained on.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyramidvit.cli.evaluate import EvaluateOptions, evaluate
from pyramidvit.cli.train import train
from pyramidvit.data.coco_files import find_coco
from pyramidvit.tasks.detection.config import NUMBERS, DetectionOptions

REPEATS = 25  # updates between two evaluations


def choose_images(record: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The first images with few and large objects."""
    objects: dict[int, list[dict[str, Any]]] = {}
    for entry in record["annotations"]:
        objects.setdefault(entry["image_id"], []).append(entry)
    chosen = [image for image in record["images"] if is_plain(image, objects.get(image["id"], []))]
    return chosen[:count]


def is_plain(image: dict[str, Any], objects: list[dict[str, Any]]) -> bool:
    least = (min(image["height"], image["width"]) / 5) ** 2
    large = all(entry["area"] >= least and not entry["iscrowd"] for entry in objects)
    return 2 <= len(objects) <= 6 and large


def write_data(source: Path, folder: Path, count: int) -> Path:
    """Writes a COCO set: the images `REPEATS` times for training, once for validation."""
    file = find_coco(source)["train"]
    record = json.loads(file.read_text())
    chosen = choose_images(record, count)
    pictures = {path.name: path for path in source.rglob("*") if path.is_file()}
    (folder / "images").mkdir(parents=True)
    for image in chosen:
        name = Path(image["file_name"]).name
        shutil.copy(pictures[name], folder / "images" / name)
    for part, repeats in (("train", REPEATS), ("val", 1)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for turn in range(repeats):
            for number, image in enumerate(chosen):
                new = turn * len(chosen) + number
                images.append({**image, "id": new})
                own = [a for a in record["annotations"] if a["image_id"] == image["id"]]
                annotations += [
                    {**a, "image_id": new, "id": len(annotations) + k + 1}
                    for k, a in enumerate(own)
                ]
        used = {a["category_id"] for a in annotations}
        categories = [c for c in record["categories"] if c["id"] in used]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"instances_{part}.json").write_text(json.dumps(content))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="A COCO set with masks.")
    parser.add_argument("--model", default="mask_rcnn")
    parser.add_argument("--backbone", default="pvt_v2_b0")
    parser.add_argument("--pretrained", help="A classifier for the backbone.")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--short_side", type=int, default=192)
    parser.add_argument("--epochs", type=int, default=16, help=f"Each of {REPEATS} updates.")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--warmup", type=float, default=1.0, help="Epochs.")
    parser.add_argument("--clip_grad", type=float, default=1.0)
    parser.add_argument("--proposals", type=int, default=0, help="0: as published.")
    parser.add_argument("--region_samples", type=int, default=256)
    parser.add_argument("--padding", choices=("published", "masked"), default="published")
    parser.add_argument("--output", type=Path, required=True, help="Folder to create.")
    given = parser.parse_args()

    data = write_data(given.data, given.output / "data", given.images)
    options = DetectionOptions(
        data=str(data),
        model=given.model,
        backbone=given.backbone,
        pretrained=given.pretrained,
        epochs=given.epochs,
        batch_size=given.images,
        lr=given.lr,
        clip_grad=given.clip_grad,
        proposals=given.proposals,
        region_samples=given.region_samples,
        padding=given.padding,
        warmup=given.warmup,
        weight_decay=1e-4,
        short_side=given.short_side,
        long_side=2 * given.short_side,
        min_scale=1.0,
        num_scales=1,
        flip=0.0,
        crop=0.0,
        zoom_out=1.0,
        jitter=0.0,
        width=256,
        hidden=NUMBERS.get(given.model, {}).get("hidden", 1024),
        drop_rate=0.0,
        drop_path_rate=0.0,
        output=str(given.output / "run"),
    )
    train(replace(options, recipe="light"))
    best = given.output / "run" / "best.safetensors"
    evaluate(str(best), EvaluateOptions(output=str(given.output / "evaluation")))


if __name__ == "__main__":
    main()
