"""`pvt inspect`, `convert` and `verify`, and foreign files in the other verbs."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import rule
from command import Command
from foreign import assert_bits, built, prefixed, tiny_state
from pyramidvit import create_model, read_checkpoint, save_checkpoint
from pyramidvit.cli import main
from pyramidvit.weights import reference_logits
from pyramidvit.weights.convert import write_transformers
from pyramidvit.weights.recognise import find_pvt


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs the command, which must fail in one line; returns it."""
    assert main(list(words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def small(name: str = "pvt_v2_b0", classes: int = 3, **options: int | bool) -> dict:
    return dict(built(name, num_classes=classes, **options).state_dict())


# inspect


def test_inspect_says_what_a_training_checkpoint_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    state = {key: value.half() for key, value in small().items()}
    content = {
        "state_dict": prefixed(state, "module.") | {"module.total_ops": torch.zeros(1)},
        "state_dict_ema": prefixed(state, "module."),
        "epoch": 7,
        "args": argparse.Namespace(model="pvt_v2_b0"),
    }
    torch.save(content, tmp_path / "c.pth")
    assert main(["inspect", "c.pth"]) == 0
    count = sum(value.numel() for value in state.values())
    assert capsys.readouterr().out.splitlines() == [
        f" model       pvt_v2_b0, {count:,} parameters, 3 channels",
        " source      official, under 'module.'",
        " task        classification",
        " classes     3, not named",
        f" numbers     float16 ({len(state)} tensors)",
        " taken from  state_dict; also there: state_dict_ema",
        " left out    1 tensors: left behind by a FLOP counter",
        " it says     epoch 7, model pvt_v2_b0",
    ]
    assert main(["inspect", "c.pth", "--ema", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == "c.pth"
    assert (said["place"], said["others"]) == ("state_dict_ema", ["state_dict"])
    assert said["ignored"] == {}
    assert said["dtypes"] == {"float16": len(state)}


def test_inspect_names_classes_positions_and_what_would_be_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    state = tiny_state("v1")
    state["norm.bias"] = torch.full_like(state["norm.bias"], float("nan"))
    state["adapter.weight"] = torch.zeros(1)
    record = {"classes": [{"id": k, "name": f"c{k}"} for k in range(12)]}
    save_checkpoint(tmp_path / "c.safetensors", state, record)
    assert main(["inspect", "c.safetensors"]) == 2
    out, error = capsys.readouterr()
    assert error == "error: c.safetensors cannot be loaded as it is: see REFUSED above\n"
    assert " source      pyramidvit\n" in out
    assert " classes     12: c0, c1, c2, c3, c4, ...\n" in out
    assert " positions   tables for images of 224 x 224 pixels\n" in out
    assert " REFUSED     1 names that nothing explains: adapter.weight\n" in out
    assert " REFUSED     numbers that are not finite in norm.bias\n" in out
    assert "in no table of the papers" in out


def test_inspect_runs_as_a_command(pvt: Command, tmp_path: Path) -> None:
    write_transformers(tmp_path / "there", find_pvt(small(), "x"), ("a", "b", "c"))
    done = pvt("inspect", "there", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["source"], said["model"]) == ("transformers", "pvt_v2_b0")
    assert said["classes"] == ["a", "b", "c"]
    assert "epsilon 1e-06" in said["notes"][0]
    assert done.stderr == ""


def test_inspect_refuses_what_is_no_pvt(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "c.pth")
    assert "c.pth holds no PVT" in mistake(capsys, "inspect", "c.pth")
    assert "no such checkpoint: d.pth" in mistake(capsys, "inspect", "d.pth")
    two = prefixed(tiny_state(), "rgb.") | prefixed(tiny_state(), "depth.")
    torch.save(two, tmp_path / "two.pth")
    assert "holds 2 PVTs: say which" in mistake(capsys, "inspect", "two.pth")
    assert main(["inspect", "two.pth", "--prefix", "depth."]) == 0


# convert


@pytest.mark.parametrize("to", ["official", "timm", "transformers", "pyramidvit"])
def test_convert_keeps_every_bit(
    to: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    torch.save({"model": prefixed(small(), "module.")}, tmp_path / "in.pth")
    output = {"transformers": "out", "pyramidvit": "out.safetensors"}.get(to, "out.pth")
    assert main(["convert", "in.pth", output, "--to", to]) == 0
    said = capsys.readouterr().out
    assert f"{to} names, read back and equal bit for bit" in said
    assert ("epsilon" in said) == (to == "transformers")
    assert_bits(find_pvt(read_checkpoint(output).state, "x").state, small())
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"in.pth", output}


def test_convert_runs_as_a_command_and_predict_takes_what_it_wrote(
    pvt: Command, tmp_path: Path
) -> None:
    write_transformers(tmp_path / "there", find_pvt(small(), "x"), ("cat", "dog", "owl"))
    done = pvt("convert", "there", "ours.safetensors", "--to", "pyramidvit")
    assert done.returncode == 0, done.stderr
    assert [c["name"] for c in read_checkpoint("ours.safetensors").record["classes"]] == [
        "cat",
        "dog",
        "owl",
    ]
    Image.new("RGB", (40, 40), (200, 30, 90)).save(tmp_path / "picture.png")
    for number, source in enumerate(("ours.safetensors", "there")):
        words = ["predict", source, "picture.png", "--draw", "false", "--workers", "0"]
        assert main([*words, "--output", str(number)]) == 0
    first, second = ((tmp_path / str(n) / "results.jsonl").read_text() for n in (0, 1))
    assert first == second
    assert json.loads(first)["name"] in ("cat", "dog", "owl")


def test_convert_keeps_our_own_record(tmp_path: Path) -> None:
    record = {"classes": [{"id": n, "name": n} for n in "abc"], "task": "classification"}
    save_checkpoint(tmp_path / "in.safetensors", small(), record)
    assert main(["convert", "in.safetensors", "out.safetensors", "--to", "pyramidvit"]) == 0
    assert read_checkpoint("out.safetensors").record == record


def test_convert_writes_a_backbone_too(tmp_path: Path) -> None:
    state = dict(built("pvt_v2_b0", features_only=True).state_dict())
    torch.save({"state_dict": prefixed(state, "backbone.")}, tmp_path / "in.pth")
    for to, output in (("timm", "t.pth"), ("transformers", "h"), ("pyramidvit", "o.safetensors")):
        assert main(["convert", "in.pth", output, "--to", to]) == 0
        assert_bits(find_pvt(read_checkpoint(output).state, "x").state, state)


def test_convert_refuses_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    torch.save(small(), tmp_path / "in.pth")
    torch.save(small("pvt_tiny"), tmp_path / "v1.pth")
    torch.save(tiny_state(), tmp_path / "tiny.pth")
    broken = small() | {"block1.0.extra": torch.zeros(1)}
    torch.save(broken, tmp_path / "broken.pth")
    nan = small()
    nan["norm1.bias"] = torch.full_like(nan["norm1.bias"], float("nan"))
    torch.save(nan, tmp_path / "nan.pth")
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.iterdir())
    for words, message in (
        (("in.pth", "v1.pth", "--to", "official"), "v1.pth exists already: choose another name"),
        (("in.pth", "there", "--to", "transformers"), "there exists already"),
        (("in.pth", "none/out.pth", "--to", "official"), "no such folder: none"),
        (("in.pth", "out.onnx", "--to", "official"), "ends in .pth or .safetensors"),
        (("in.pth", "out.pth", "--to", "pyramidvit"), "ends in .safetensors"),
        (("in.pth", "out.txt", "--to", "timm"), "ends in .pth or .safetensors"),
        (("in.pth", "out.pth", "--to", "keras"), "--to: must be one of 'official', 'timm'"),
        (("v1.pth", "out.pth", "--to", "timm"), "timm has no PVT v1"),
        (("tiny.pth", "out.pth", "--to", "official"), "only whole published models convert"),
        (("broken.pth", "out.pth", "--to", "timm"), "block1.0.extra"),
        (("nan.pth", "out.pth", "--to", "timm"), "norm1.bias holds numbers that are not finite"),
        (("in.pth", "out.pth", "--to", "official", "--prefix", "a."), "no PVT under 'a.'"),
        (("in.pth", "out.pth", "--to", "official", "--ema"), "holds no averaged weights"),
    ):
        assert message in mistake(capsys, "convert", *words), words
        assert sorted(tmp_path.iterdir()) == before


# verify


@pytest.fixture
def photograph(data_dir: Path) -> str:
    return str(data_dir / "samples" / "000000039769.png")


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    """A published size with the rule's weights: not the published ones."""
    torch.save(built("pvt_v2_b0").state_dict(), tmp_path / "pvt_v2_b0.pth")
    return "pvt_v2_b0.pth"


def own_logits(photograph: str, epsilon: float) -> tuple[float, ...]:
    """The logits of the rule's weights, computed without `verify`."""
    model = rule.build("pvt_v2_b0")
    changed = 0
    for name, module in model.named_modules():
        if name.endswith(".norm") and (name.startswith("patch_embed") or ".attn." in name):
            module.eps = epsilon  # type: ignore[assignment]
            changed += 1
    assert changed == 10
    with Image.open(photograph) as picture:
        small = picture.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    pixels = torch.tensor(list(small.getdata())).float().view(224, 224, 3) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        return tuple(model(((pixels - mean) / std).permute(2, 0, 1)[None])[0, :3].tolist())


def test_verify_agrees_where_the_logits_do(
    photograph: str,
    checkpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logits = own_logits(photograph, 1e-6)
    monkeypatch.setitem(reference_logits.LOGITS, "pvt_v2_b0", logits)
    assert main(["verify", checkpoint, "--image", photograph]) == 0
    out = capsys.readouterr().out
    assert "verified    off by 0.0000 with epsilon 1e-06, bicubic (tolerance 0.01)" in out
    assert out.count("off by") == 5  # four settings, and the best of them
    beyond = (logits[0] + 0.5, *logits[1:])
    monkeypatch.setitem(reference_logits.LOGITS, "pvt_v2_b0", beyond)
    error = mistake(capsys, "verify", checkpoint, "--image", photograph)
    assert "does not give the published logits of pvt_v2_b0: off by" in error


def test_verify_fails_for_other_weights(photograph: str, checkpoint: str, pvt: Command) -> None:
    done = pvt("verify", checkpoint, "--image", photograph)
    assert done.returncode == 2
    assert "does not give the published logits of pvt_v2_b0" in done.stderr
    assert "-1.1939  -1.4547  -0.1076" in done.stdout


@pytest.mark.parametrize("size", [(640, 480), (224, 224)])
def test_verify_refuses_another_photograph(
    size: tuple[int, int], checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", size, (120, 120, 120)).save("other.png")
    error = mistake(capsys, "verify", checkpoint, "--image", "other.png")
    assert "other.png is not the reference photograph" in error


def test_verify_refuses_a_turned_or_cropped_photograph(
    photograph: str, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(photograph) as picture:
        picture.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("turned.png")
        picture.convert("RGB").crop((0, 0, 480, 480)).save("cropped.png")
        picture.convert("RGB").save("same.jpg", quality=90)
    for name in ("turned.png", "cropped.png"):
        assert "not the reference" in mistake(capsys, "verify", checkpoint, "--image", name)
    error = mistake(capsys, "verify", checkpoint, "--image", "same.jpg")
    assert "does not give the published logits" in error  # the picture was accepted


def test_verify_refuses_what_was_never_published(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    torch.save(small(), "three.pth")
    torch.save(tiny_state(), "tiny.pth")
    assert "three.pth has 3 classes: only" in mistake(capsys, "verify", "three.pth")
    assert "no published model has" in mistake(capsys, "verify", "tiny.pth")
    assert "no such image: x.png" in mistake(
        capsys, "verify", save_of(create_model("pvt_v2_b0")), "--image", "x.png"
    )


def save_of(model: torch.nn.Module) -> str:
    torch.save(model.state_dict(), "model.pth")
    return "model.pth"


# Foreign files elsewhere.


def test_predict_and_evaluate_need_no_model_name(
    digit_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    names = tuple(sorted(path.name for path in (digit_folder / "validation").iterdir()))
    write_transformers(tmp_path / "there", find_pvt(small(), "x"), names)
    picture = str(next((digit_folder / "validation" / names[0]).iterdir()))
    words = ["predict", "there", picture, "--draw", "false", "--workers", "0", "--output", "p"]
    assert main(words) == 0
    assert json.loads((tmp_path / "p" / "results.jsonl").read_text())["name"] in names
    data = str(digit_folder / "validation")
    words = ["evaluate", "there", "--data", data, "--workers", "0", "--output", "e"]
    assert main(words) == 0
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["images"] == 15
    error = mistake(capsys, "predict", "there", picture, "--model", "pvt_tiny")
    assert "there holds pvt_v2_b0, not pvt_tiny: leave --model out" in error


def test_predict_wants_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(built("pvt_v2_b0", features_only=True).state_dict(), "b.pth")
    error = mistake(capsys, "predict", "b.pth", "x.png")
    assert "b.pth has no classifier head" in error or "no such" in error
