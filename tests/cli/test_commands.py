"""What users do: the commands, each in a process of its own, on real pictures."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

import pyramidvit
from command import Command
from pyramidvit.weights.checkpoint import read_checkpoint

RUN_FILES = (
    "args.yaml",
    "environment.json",
    "metrics.csv",
    "steps.csv",
    "log.txt",
    "best.safetensors",
    "last.safetensors",
    "state.pt",
    "curves.png",
    "confusion.png",
    "confusion.csv",
    "per_class.csv",
    "samples.png",
    "predictions.png",
)


def test_a_run_folder_holds_everything_that_people_expect(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert set(RUN_FILES) <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any("partial" in name for name in names)
    for name in names:
        assert (trained / name).stat().st_size > 0
        if name.endswith(".png"):
            with Image.open(trained / name) as picture:
                picture.verify()

    rows = list(csv.DictReader((trained / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert rows[-1]["step"] == "6"  # 27 images in batches of 8, the rest dropped
    assert rows[-1]["images"] == "15"
    assert len(list(csv.DictReader((trained / "steps.csv").open()))) == 6
    arguments = yaml.safe_load((trained / "args.yaml").read_text())
    assert arguments["recipe"] == "light"
    assert arguments["batch_size"] == 8
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert "best" in (trained / "log.txt").read_text()


def test_a_checkpoint_carries_names_and_ids_of_its_classes(trained: Path) -> None:
    record = read_checkpoint(trained / "best.safetensors").record
    assert record["classes"] == [{"id": name, "name": name} for name in ("one", "two", "zero")]
    assert record["model"] == {"name": "pvt_v2_b0", "num_classes": 3, "in_chans": 3}
    assert record["input"]["size"] == 32
    model = pyramidvit.create_model("pvt_v2_b0", num_classes=3)
    report = pyramidvit.load_weights(model, trained / "best.safetensors")
    assert not report.ignored


def test_evaluating_gives_the_figures_of_the_training(
    trained: Path, pvt: Command, tmp_path: Path
) -> None:
    done = pvt("evaluate", str(trained / "last.safetensors"), "--output", "result")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((trained / "metrics.csv").open()))
    assert f"top1        {float(rows[-1]['top1']):.4f}" in done.stdout
    record = json.loads((tmp_path / "result" / "metrics.json").read_text())
    assert record["split"] == "validation"
    for name in ("images", "top1", "top5", "mean_class"):
        assert record[name] == float(rows[-1][name])
    # A batch of another size may be summed in another order, which moves the last of six digits.
    assert record["loss"] == pytest.approx(float(rows[-1]["loss"]), abs=2e-6)


def test_evaluating_a_folder_of_some_of_the_classes_numbers_them_right(
    trained: Path, digit_folder: Path, pvt: Command, tmp_path: Path
) -> None:
    (tmp_path / "some").mkdir()
    for name in ("two", "zero"):
        (tmp_path / "some" / name).symlink_to(digit_folder / "validation" / name)
    best = str(trained / "best.safetensors")
    done = pvt("evaluate", best, "data=some", "--output", "result")
    assert done.returncode == 0, done.stderr
    table = list(csv.DictReader((tmp_path / "result" / "per_class.csv").open()))
    assert [(row["name"], row["images"]) for row in table] == [
        ("one", "0"),
        ("two", "5"),
        ("zero", "5"),
    ]
    whole = json.loads((tmp_path / "result" / "metrics.json").read_text())
    assert whole["split"] == "all"
    assert whole["images"] == 10


def test_predicting_needs_nothing_but_checkpoint_and_pictures(
    trained: Path, digit_folder: Path, pvt: Command, tmp_path: Path
) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    pictures = str(digit_folder / "validation" / "two")
    done = pvt("predict", str(trained / "best.safetensors"), pictures, "empty.jpg")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "predictions" / "predictions-1"
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert len(records) == 6
    assert sorted(Path(r["file"]).name for r in records)[-1] == "empty.jpg"
    good = [r for r in records if "error" not in r]
    assert len(good) == 5
    for record in good:
        assert record["name"] in ("one", "two", "zero")
        assert record["id"] == record["name"]
        with Image.open(folder / record["picture"]) as picture:
            assert picture.width >= 320
    assert [r["error"] for r in records if "error" in r] == ["empty file"]
    assert "empty.jpg: empty file" in done.stdout


def test_predictions_do_not_depend_on_their_neighbours_in_the_batch(
    trained: Path, digit_folder: Path, pvt: Command, tmp_path: Path
) -> None:
    pictures = str(digit_folder / "validation")
    scores = []
    for size, name in (("1", "alone"), ("4", "together")):
        words = ("--batch-size", size, "--output", name, "--draw", "false")
        done = pvt("predict", str(trained / "best.safetensors"), pictures, *words)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / name / "results.jsonl").read_text().splitlines()
        scores.append([json.loads(line)["score"] for line in lines])
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == ["results.jsonl"]
    assert scores[0] == pytest.approx(scores[1], abs=2e-6)


def test_an_official_file_predicts_as_it_is(
    pvt: Command, digit_folder: Path, tmp_path: Path
) -> None:
    import torch

    torch.save(pyramidvit.create_model("pvt_v2_b0").state_dict(), tmp_path / "pvt_v2_b0.pth")
    picture = str(next((digit_folder / "train" / "one").iterdir()))
    done = pvt("predict", "pvt_v2_b0.pth", picture)
    assert done.returncode == 0, done.stderr
    refused = pvt("predict", "pvt_v2_b0.pth", picture, "--model", "pvt_v2_b2")
    assert refused.returncode == 2
    assert "holds pvt_v2_b0, not pvt_v2_b2" in refused.stderr


def test_starting_from_a_checkpoint_with_other_classes_renews_the_head(
    trained: Path, pvt: Command, tmp_path: Path
) -> None:
    best = str(trained / "best.safetensors")
    words = ("--pretrained", best, "--epochs", "1", "--output", "tuned")
    done = pvt("train", *words, "--batch_size=256", "--max_broken", "0.5")
    assert done.returncode == 0, done.stderr
    record = read_checkpoint(tmp_path / "tuned" / "best.safetensors").record
    assert [row["id"] for row in record["classes"]] == list(range(10))
    assert "reinitialised" in done.stdout


def test_models_are_listed_as_table_and_as_json(pvt: Command) -> None:
    table = pvt("models", "pvt_v2_b2*")
    assert table.returncode == 0, table.stderr
    assert "25.4 M" in table.stdout
    assert "pvt_v2_b2_li" in table.stdout
    records = json.loads(pvt("models", "--json", "--size", "512x640", "pvt_tiny").stdout)
    assert records[0]["parameters"] == 13_229_288
    assert records[0]["size"] == [512, 640]
    assert records[0]["gflops"] > 10


def test_a_short_demo_runs_through(pvt: Command, tmp_path: Path) -> None:
    done = pvt("demo", "classification", "--epochs", "1", "--output", "shown")
    assert done.returncode == 0, done.stderr
    for name in ("run/samples.png", "run/curves.png", "run/confusion.png", "run/predictions.png"):
        assert (tmp_path / "shown" / "classification" / name).is_file()
        assert f"classification/{name}" in done.stdout
    assert len(list((tmp_path / "shown" / "classification" / "predictions").glob("*.jpg"))) == 12
