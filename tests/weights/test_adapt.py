"""Tensors of another shape: what is kept of them, checked in closed form; and heads that differ."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import rule
from foreign import State, assert_bits, built, tiny_model, tiny_state
from pyramidvit import create_model, load_weights, save_checkpoint
from pyramidvit.errors import UserError
from pyramidvit.weights.adapt import adapt_channels, resize_table


def grid_of(values: Tensor, token: bool) -> Tensor:
    """A table [1, side * side, C] of values [C, side, side], a class token's row before it."""
    cells = values.flatten(1).T[None]
    return torch.cat([torch.full_like(cells[:, :1], 9.0), cells], dim=1) if token else cells


def ramp(side: int, channels: int = 3) -> Tensor:
    """Values that grow linearly over an image whose sides are 1, at the centres of its cells."""
    centres = (torch.arange(side) + 0.5) / side
    slopes = torch.arange(1.0, channels + 1)
    return slopes[:, None, None] * (2 * centres[:, None] + 3 * centres[None, :])


@settings(max_examples=30, deadline=None)
@given(old=st.integers(1, 20), new=st.integers(1, 20), stage=st.sampled_from([1, 2, 3, 4]))
def test_a_constant_table_stays_constant(old: int, new: int, stage: int) -> None:
    token = stage == 4
    table = grid_of(torch.full((3, old, old), 0.7), token)
    wanted = torch.Size((1, new * new + token, 3))
    resized, change = resize_table(f"pos_embed{stage}", table, wanted)
    assert resized.shape == wanted
    torch.testing.assert_close(resized, grid_of(torch.full((3, new, new), 0.7), token))
    assert change == (f"position table {old}x{old} to {new}x{new}" if old != new else "")


@settings(max_examples=30, deadline=None)
@given(old=st.integers(2, 20), new=st.integers(2, 40))
def test_a_linear_table_stays_linear_between_the_outermost_centres(old: int, new: int) -> None:
    resized, _ = resize_table("pos_embed2", grid_of(ramp(old), False), torch.Size((1, new**2, 3)))
    found = resized[0].T.reshape(3, new, new)
    centres = (torch.arange(new) + 0.5) / new
    inside = (centres >= 0.5 / old) & (centres <= 1 - 0.5 / old)  # beyond there is nothing to know
    if old >= new:
        assert inside.all()
    both = inside[:, None] & inside[None, :]
    torch.testing.assert_close(found[:, both], ramp(new)[:, both], rtol=0, atol=1e-4)


@pytest.mark.parametrize("token", [False, True])
@pytest.mark.parametrize(("old", "new"), [(7, 12), (14, 7), (5, 6)])
def test_a_table_is_resized_as_torch_resizes_a_picture(old: int, new: int, token: bool) -> None:
    values = rule.images(1, old, old)[0]
    wanted = torch.Size((1, new * new + token, 3))
    name = "pos_embed4" if token else "pos_embed3"
    resized, _ = resize_table(name, grid_of(values, token), wanted)
    picture = F.interpolate(values[None], (new, new), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(resized, grid_of(picture, token), rtol=0, atol=1e-6)
    assert resized.is_contiguous()


def test_a_class_tokens_row_is_kept_added_or_left_out() -> None:
    cells, with_token = grid_of(ramp(7), False), grid_of(ramp(7), True)
    added, change = resize_table("pos_embed4", cells, with_token.shape)
    assert change == "a row for the class token added"
    assert not added[:, 0].any()
    assert torch.equal(added[:, 1:], cells)
    both, change = resize_table("pos_embed4", grid_of(ramp(3), False), with_token.shape)
    assert change == "position table 3x3 to 7x7, a row for the class token added"
    assert both.shape == with_token.shape
    left, _ = resize_table("pos_embed4", with_token, cells.shape)
    assert torch.equal(left, cells)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((1, 48, 3), (1, 64, 3)),  # not square
        ((1, 50, 3), (1, 64, 3)),  # one row too many in stage 1
        ((1, 49, 4), (1, 64, 3)),  # other channels
        ((49, 3), (1, 64, 3)),
        ((), (1, 64, 3)),
        ((1, 0, 3), (1, 64, 3)),
    ],
    ids=str,
)
def test_what_is_no_table_is_left_alone(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    table = torch.zeros(shape)
    kept, change = resize_table("pos_embed1", table, torch.Size(wanted))
    assert kept is table
    assert change == ""


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_the_number_format_survives(kind: torch.dtype) -> None:
    table = grid_of(ramp(7), False).to(kind)
    assert resize_table("pos_embed1", table, torch.Size((1, 16, 3)))[0].dtype == kind
    weight = torch.ones(2, 3, 4, 4, dtype=kind)
    assert adapt_channels(weight, torch.Size((2, 1, 4, 4)))[0].dtype == kind


def test_a_v1_file_for_larger_images_gives_resized_tables() -> None:
    state = dict(built("pvt_tiny").state_dict())
    for stage, side in ((1, 64), (2, 32), (3, 16), (4, 8)):
        dim = state[f"pos_embed{stage}"].shape[2]
        table = grid_of(ramp(side, dim), False)
        if stage == 4:
            table = torch.cat([state["pos_embed4"][:, :1], table], dim=1)
        state[f"pos_embed{stage}"] = table
    model = create_model("pvt_tiny")
    report = load_weights(model, state)
    assert report.resized == {
        "pos_embed1": "position table 64x64 to 56x56",
        "pos_embed2": "position table 32x32 to 28x28",
        "pos_embed3": "position table 16x16 to 14x14",
        "pos_embed4": "position table 8x8 to 7x7",
    }
    assert "4 resized (position table 16x16 to 14x14; " in str(report)
    assert len(report.loaded) == len(state) - 4
    table = model.get_parameter("pos_embed4").detach()
    assert torch.equal(table[:, 0], state["pos_embed4"][:, 0])
    torch.testing.assert_close(table[:, 1:], grid_of(ramp(7, 512), False), rtol=0, atol=2e-3)


# Channels.


@pytest.mark.parametrize("name", ["pvt_tiny", "pvt_v2_b0"])
def test_a_grey_image_gives_what_it_gave_stored_three_times(name: str) -> None:
    """The sum over three channels of one grey image is one channel of summed weights."""
    grey = rule.images(1, 64, 64)[:, :1]
    one = create_model(name, in_chans=1, num_classes=1000).eval()
    report = load_weights(one, built(name).state_dict())
    assert report.resized == {"patch_embed1.proj.weight": "stem for 3 channels to 1"}
    with torch.no_grad():
        wanted = built(name)(grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(one(grey), wanted, rtol=0, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(old=st.integers(1, 6), new=st.integers(1, 9))
def test_equal_channels_give_the_same_where_the_new_count_is_a_multiple(old: int, new: int) -> None:
    """Channel c has the weights of c mod n, times n / m: their sum is the old sum if n divides m;
    one channel has the whole sum."""
    weight = torch.arange(2.0 * old * 4).reshape(2, old, 2, 2) + 1
    adapted, change = adapt_channels(weight, torch.Size((2, new, 2, 2)))
    assert adapted.shape == (2, new, 2, 2)
    assert change == f"stem for {old} channels to {new}"
    if new == 1:
        torch.testing.assert_close(adapted, weight.sum(1, keepdim=True))
        return
    for channel in range(new):
        torch.testing.assert_close(adapted[:, channel], weight[:, channel % old] * (old / new))
    if new % old == 0:
        torch.testing.assert_close(adapted.sum(1), weight.sum(1))


def test_channels_are_adapted_as_timm_adapts_them() -> None:
    timm = pytest.importorskip("timm")
    weight = built("pvt_v2_b0").get_parameter("patch_embed1.proj.weight").detach()
    for channels in (1, 2, 4, 5, 6):
        wanted = timm.models.adapt_input_conv(channels, weight)
        found, _ = adapt_channels(weight, torch.Size((32, channels, 7, 7)))
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("shape", [(3, 3, 7, 7), (32, 3, 4, 4), (32, 0, 7, 7)], ids=str)
def test_another_stem_is_left_alone(shape: tuple[int, ...]) -> None:
    weight = torch.zeros(shape)
    kept, change = adapt_channels(weight, torch.Size((32, 1, 7, 7)))
    assert kept is weight
    assert change == ""


# Heads.


def test_another_class_count_starts_the_head_afresh_and_says_so() -> None:
    model = tiny_of_classes(5)
    report = load_weights(model, tiny_state())
    reason = "the file has 12 classes, the model 5"
    assert report.reinitialised == {"head.weight": reason, "head.bias": reason}
    assert f"2 reinitialised ({reason})" in str(report)
    assert not report.ignored
    body = {key: value for key, value in tiny_state().items() if "head" not in key}
    assert set(report.loaded) == set(body)
    assert_bits({key: model.state_dict()[key] for key in body}, body)


def tiny_of_classes(count: int) -> torch.nn.Module:
    model = tiny_model()
    model.reset_classifier(count)  # type: ignore[operator]
    return model


def test_another_class_count_is_refused_where_the_head_is_wanted() -> None:
    with pytest.raises(UserError, match="has 12 classes, the model 5: build the model with num_cl"):
        load_weights(tiny_of_classes(5), tiny_state(), new_head=False)


def test_a_new_head_is_given_when_asked_for() -> None:
    model = tiny_model()
    head = model.get_parameter("head.weight").detach().clone()
    report = load_weights(model, tiny_state(), new_head=True)
    assert set(report.reinitialised.values()) == {"a new head was asked for"}
    assert torch.equal(model.get_parameter("head.weight"), head)


def test_other_class_names_start_the_head_afresh(tmp_path: Path) -> None:
    names = [f"c{k}" for k in range(12)]
    path = tmp_path / "ours.safetensors"
    save_checkpoint(path, tiny_state(), {"classes": [{"id": n, "name": n} for n in names]})
    same = load_weights(tiny_model(), path, classes=names)
    assert not same.reinitialised
    assert not load_weights(tiny_model(), path).reinitialised
    unnamed = load_weights(tiny_model(), tiny_state(), classes=names)  # it may mean anything
    assert set(unnamed.reinitialised) == {"head.weight", "head.bias"}
    other = load_weights(tiny_model(), path, classes=[*names[1:], names[0]])
    reason = "the file names other classes, or none"
    assert other.reinitialised == {"head.weight": reason, "head.bias": reason}
    with pytest.raises(UserError, match="classes"):
        load_weights(tiny_model(), path, classes=[*names[1:], names[0]], new_head=False)


def test_a_v1_classifier_from_a_backbones_file_starts_what_only_a_classifier_has() -> None:
    state = without_classifier(built("pvt_tiny").state_dict())
    model = create_model("pvt_tiny", num_classes=4)
    report = load_weights(model, state)
    assert report.reinitialised == {
        "head.weight": "the file has no head",
        "head.bias": "the file has no head",
        "cls_token": "only a classifier's file has them",
        "norm.weight": "only a classifier's file has them",
        "norm.bias": "only a classifier's file has them",
    }
    assert set(report.loaded) == set(state)
    with pytest.raises(UserError, match="does not fit: the file has no head"):
        load_weights(create_model("pvt_tiny"), state, new_head=False)


def without_classifier(state: State) -> State:
    only = ("cls_token", "norm.weight", "norm.bias", "head.weight", "head.bias")
    return {key: value for key, value in state.items() if key not in only}


def test_a_v2_classifier_from_a_backbones_file_starts_its_head_only() -> None:
    report = load_weights(tiny_of_classes(3), without_classifier(tiny_state()))
    assert set(report.reinitialised) == {"head.weight", "head.bias"}


def test_a_backbone_leaves_a_v1_classifiers_parts_and_says_so() -> None:
    model = create_model("pvt_tiny", features_only=True)
    report = load_weights(model, built("pvt_tiny").state_dict())
    assert report.ignored == {
        "head.weight": "the model has no head",
        "head.bias": "the model has no head",
        "cls_token": "only a v1 classifier has a class token and a last norm",
        "norm.weight": "only a v1 classifier has a class token and a last norm",
        "norm.bias": "only a v1 classifier has a class token and a last norm",
    }
    assert str(report).endswith(
        "5 ignored (only a v1 classifier has a class token and a last norm; the model has no head)"
    )


def test_a_model_that_pools_only_takes_a_classifiers_body() -> None:
    report = load_weights(tiny_of_classes(0), tiny_state())
    assert set(report.ignored) == {"head.weight", "head.bias"}
    assert not report.reinitialised


def test_half_a_head_is_no_head() -> None:
    for part in ("head.weight", "head.bias"):
        state = tiny_state()
        del state[part]
        with pytest.raises(UserError, match=rf"{part} missing|the file has no head"):
            load_weights(tiny_model(), state, new_head=False)
