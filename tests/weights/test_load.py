"""Checkpoint files into models: what fits is loaded, what does not is refused and does no harm."""

import argparse
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import rule
from foreign import built
from pyramidvit import create_model, list_models, load_weights, read_checkpoint, save_checkpoint
from pyramidvit.errors import UserError

State = dict[str, Tensor]
ARCHITECTURES = ["pvt_tiny", "pvt_v2_b0", "pvt_v2_b2_li"]  # one small model of each kind


@pytest.fixture(scope="module")
def state() -> State:
    """A classifier's weights, of which a test alters its own copy."""
    return rule.build("pvt_v2_b0").state_dict()


@pytest.fixture
def altered(state: State) -> State:
    return dict(state)


@pytest.fixture
def model() -> nn.Module:
    return create_model("pvt_v2_b0")


@pytest.fixture
def unharmed(model: nn.Module) -> Iterator[None]:
    """The model must come out of the test with the values it went in with."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    yield
    assert_same(model.state_dict(), before)


@pytest.mark.parametrize("features_only", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_our_checkpoint_brings_every_value_and_its_record_back(
    name: str, features_only: bool, tmp_path: Path
) -> None:
    saved = rule.build(name, features_only=features_only).state_dict()
    path = tmp_path / "model.safetensors"
    record = {"model": name, "classes": ["a", "b"], "score": 0.5}
    save_checkpoint(path, saved, record)
    model = create_model(name, features_only=features_only)
    report = load_weights(model, path)
    assert_same(model.state_dict(), saved)
    assert set(report.loaded) == set(saved)
    assert not report.ignored
    assert not report.reinitialised
    assert read_checkpoint(path).record == record


@pytest.mark.parametrize("name", list_models())
def test_a_state_dict_in_memory_is_loaded_too(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
        state = model.state_dict()
        report = load_weights(model, state)
    assert len(report.loaded) == len(state)


@pytest.mark.parametrize(
    "nest",
    [
        lambda state: state,
        lambda state: {"state_dict": state},
        lambda state: {"model": state, "epoch": 299, "args": argparse.Namespace(lr=0.1, data="x")},
    ],
    ids=["bare", "state_dict", "training"],
)
@pytest.mark.parametrize("modern", [True, False], ids=["zip", "old"])
def test_a_pth_file_is_loaded(
    nest: Any, modern: bool, model: nn.Module, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    torch.save(nest(state), path, _use_new_zipfile_serialization=modern)
    load_weights(model, path)
    assert_same(model.state_dict(), state)
    assert read_checkpoint(path).record == {}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_pyramid_takes_a_classifiers_file_and_names_what_it_ignores(name: str) -> None:
    state = rule.build(name).state_dict()
    model = create_model(name, features_only=True)
    report = load_weights(model, state)
    assert_same(model.state_dict(), {key: state[key] for key in model.state_dict()})
    surplus = {"head.weight", "head.bias"}
    if name == "pvt_tiny":
        surplus |= {"cls_token", "norm.weight", "norm.bias"}
    assert set(report.ignored) == surplus
    assert report.ignored["head.bias"] == "the model has no head"
    assert "2 ignored" in str(report) or "5 ignored" in str(report)


def test_a_short_pyramid_ignores_the_stages_it_has_not_built(state: State) -> None:
    model = create_model("pvt_v2_b0", features_only=True, out_indices=(0, 1))
    report = load_weights(model, state)
    assert report.ignored["block4.1.mlp.fc2.bias"] == "stage 4 is not built"
    assert set(report.loaded) | set(report.ignored) == set(state)


@pytest.mark.usefixtures("unharmed")
def test_an_unknown_entry_is_refused(model: nn.Module, altered: State) -> None:
    altered["block1.0.attn.extra"] = torch.zeros(1)
    refuse(model, altered, r"block1.0.attn.extra not known to PVTv2Classifier")


@pytest.mark.usefixtures("unharmed")
def test_a_missing_entry_is_refused(model: nn.Module, altered: State) -> None:
    del altered["norm4.bias"]  # the last but the head: all the others were there
    refuse(model, altered, r"norm4.bias missing in it")


@pytest.mark.usefixtures("unharmed")
def test_a_wrong_shape_is_refused(model: nn.Module, altered: State) -> None:
    altered["norm4.bias"] = torch.zeros(255)
    refuse(model, altered, r"norm4.bias is \[255\] in the file, \[256\] in the model")


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("other", ["pvt_tiny", "pvt_v2_b1", "pvt_v2_b2", "pvt_v2_b2_li"])
def test_weights_of_another_model_are_refused(model: nn.Module, other: str) -> None:
    remedy = rf"; take create_model\('{other}'\), in the command --model or --backbone {other}$"
    refuse(model, built(other).state_dict(), rf"holds {other}, the model is pvt_v2_b0 .*{remedy}")


def test_linear_attention_and_plain_attention_refuse_each_other() -> None:
    plain, linear = (create_model(name) for name in ("pvt_v2_b2", "pvt_v2_b2_li"))
    refuse(plain, linear.state_dict(), "the file has linear attention, the model spatial reduction")
    refuse(linear, plain.state_dict(), "the model has linear attention, the file spatial reduction")


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("content", [{}, {"model.layer": torch.zeros(2)}], ids=["none", "foreign"])
def test_nothing_that_matches_is_an_error(model: nn.Module, content: State) -> None:
    refuse(model, content, "the state dict holds no PVT: it")


@pytest.mark.usefixtures("unharmed")
def test_another_number_of_classes_is_refused_with_the_remedy_where_the_head_is_wanted(
    model: nn.Module, altered: State
) -> None:
    altered |= {"head.weight": torch.zeros(7, 256), "head.bias": torch.zeros(7)}
    message = r"has 7 classes, the model 1000: build the model with num_classes=7"
    refuse(model, altered, message, new_head=False)


def test_create_model_starts_a_fresh_head_for_another_number_of_classes(
    state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.pth"
    torch.save(state, path)
    with caplog.at_level("INFO"):
        model = create_model("pvt_v2_b0", pretrained=path, num_classes=7)
    assert model.head.weight.shape == (7, 256)
    assert not model.head.bias.any()
    body = {key: value for key, value in model.state_dict().items() if "head" not in key}
    assert_same(body, {key: state[key] for key in body})
    assert "2 reinitialised (the file has 1000 classes, the model 7)" in caplog.text


def test_create_model_keeps_the_head_for_the_same_classes(state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(state, path)
    assert_same(create_model("pvt_v2_b0", pretrained=path).state_dict(), state)


class Bomb:
    """An object whose pickle runs a command in whoever unpickles it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"echo > '{self.target}'",)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("modern", [True, False], ids=["zip", "old"])
def test_a_file_that_runs_code_is_refused_and_runs_nothing(
    modern: bool, model: nn.Module, state: State, tmp_path: Path
) -> None:
    path, target = tmp_path / "model.pth", tmp_path / "harm"
    torch.save({"model": state, "x": Bomb(target)}, path, _use_new_zipfile_serialization=modern)
    refuse(model, path, r"was refused: it asks for \w+\.system; weights are loaded without running")
    assert not target.exists()
    pickle.loads(pickle.dumps(Bomb(target)))  # elsewhere it does
    assert target.exists()


@pytest.mark.usefixtures("unharmed")
def test_an_object_that_is_no_tensor_is_refused_by_name(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": {}, "path": Path("x")}, path)
    refuse(model, path, r"was refused: it asks for pathlib\.")


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(
    "content",
    [[1, 2], {"epoch": 3}, {"model": {"norm1.weight": 1.0}}, {1: torch.zeros(1)}],
    ids=str,
)
def test_a_pth_file_without_a_state_dict_is_refused(
    content: Any, model: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    torch.save(content, path)
    refuse(model, path, r"holds no state dict|is not a tensor")


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_cut_short_is_refused(
    suffix: str, share: float, model: nn.Module, state: State, tmp_path: Path
) -> None:
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save(state, whole)
    else:
        save_checkpoint(whole, state, {})
    content = whole.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refuse(model, path, r"cut\.\w+ is not a (readable|checkpoint file)")


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("text", ["hello\nworld\n", "{}", "epoch,loss\n1,0.5\n"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_text_file_by_that_name_is_refused(
    suffix: str, text: str, model: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_text(text)
    refuse(model, path, r"is not a (readable safetensors|checkpoint) file")


@pytest.mark.usefixtures("unharmed")
def test_a_missing_file_and_a_folder_are_refused(model: nn.Module, tmp_path: Path) -> None:
    refuse(model, tmp_path / "none.pth", r"no such checkpoint: .*none\.pth")
    refuse(model, tmp_path, r"has neither model\.safetensors nor pytorch_model\.bin")


def test_safetensors_without_our_record_are_read(state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, path)
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint.state, state)
    assert checkpoint.record == {}


def test_a_failed_save_keeps_the_file_that_was_there(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, state, {"score": 1})

    def fail(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"No space left on device; the file .* is unharmed"):
        save_checkpoint(path, state, {"score": 2})
    assert read_checkpoint(path).record == {"score": 1}
    assert list(tmp_path.iterdir()) == [path]


def refuse(model: nn.Module, source: Path | State, message: str, **options: bool) -> None:
    """Loading must fail with a message of one line that a user can read."""
    with pytest.raises(UserError, match=message) as error:
        load_weights(model, source, **options)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def assert_same(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name
