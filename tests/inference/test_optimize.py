"""Every route gives what the model as written gives, or is refused."""

import importlib.util
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pyramidvit import create_model, optimize
from pyramidvit.backbones.pvt_v2 import PVTv2Classifier, PVTv2Pyramid, PVTv2Size
from pyramidvit.backbones.trunk import Trunk
from pyramidvit.errors import UserError
from pyramidvit.inference import compiled, onednn, packed
from pyramidvit.inference.optimize import ROUTES, cut, difference
from pyramidvit.inference.trunk import Run, Shape
from pyramidvit.nn.bounds import Bounds

SMALL = PVTv2Size(dims=(8, 16, 40, 64), depths=(1, 1, 1, 1))
SHAPES = ((2, 64, 96), (1, 97, 131), (3, 33, 47))


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["operators", "plain"])
def packing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With oneDNN's operators, where they are there, and without them."""
    if request.param == "plain":
        monkeypatch.setattr(onednn, "has_operators", lambda dtype: False)
    elif not onednn.has_operators(torch.float32):
        pytest.skip("this torch has not the operators")
    return str(request.param)


@pytest.mark.parametrize("name", ["pvt_v2_b0", "pvt_v2_b2_li", "pvt_tiny"])
def test_packed_weights_give_the_same_logits_and_maps_at_any_size_and_batch(
    name: str, packing: str
) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=7).eval()
    quick = packed.pack(model, torch.float32)
    for batch, height, width in SHAPES if packing == "operators" else SHAPES[:1]:
        images = noise(batch, 3, height, width)
        with torch.no_grad():
            for one, other in zip(all_of(quick, images), all_of(model, images), strict=True):
                assert difference(one, other) < 1e-5


def all_of(model: nn.Module, images: Tensor) -> list[Tensor]:
    """A classifier's logits, features and maps."""
    features, maps = model.forward_intermediates(images)
    return [model.forward_head(features), features, *maps]


def test_operators_and_plain_layers_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, conv = nn.Linear(16, 24), nn.Conv2d(16, 16, 3, padding=1, groups=16)
    x, image = noise(2, 5, 16), noise(2, 16, 6, 7).contiguous(memory_format=torch.channels_last)

    def results() -> Iterator[Tensor]:
        for activation in ("none", "relu", "gelu"):
            yield onednn.PackedLinear(layer, activation)(x)
            yield onednn.PackedConv(conv, activation)(image)

    with torch.no_grad():
        found = list(results())
        monkeypatch.setattr(onednn, "has_operators", lambda dtype: False)
        for one, other in zip(found, results(), strict=True):
            torch.testing.assert_close(one, other)


def test_an_operator_that_computes_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onednn.F, "gelu", lambda x: 2 * x)
    assert not onednn.has_operators.__wrapped__(torch.float32)


@pytest.mark.parametrize("features", [False, True])
def test_openvino_gives_the_same_and_other_shapes_go_through_packed_weights(features: bool) -> None:
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    linear = PVTv2Size(dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), linear=True)
    model: nn.Module = PVTv2Pyramid(linear, out_indices=(0,))  # one stage: converting takes time
    if not features:
        model = PVTv2Classifier(linear, num_classes=5)
    model.eval()
    quick = optimize(model, (1, 3, 96, 64), route="openvino")
    assert quick.optimized.route == "openvino"
    assert list(quick.runs) == [(1, 3, 96, 64)]
    for shape in ((1, 3, 96, 64), (3, 3, 96, 64), (2, 3, 97, 131)):
        with torch.no_grad():
            assert difference(quick(noise(*shape)), model(noise(*shape))) < 1e-4


@pytest.mark.parametrize(
    ("batch", "threads", "piece"), [(8, 1, 1), (8, 2, 2), (9, 2, 1), (6, 4, 3), (2, 8, 2)]
)
def test_a_batch_is_cut_into_equal_pieces_of_an_image_a_thread(
    batch: int, threads: int, piece: int
) -> None:
    assert cut((batch, 3, 64, 96), threads) == (piece, 3, 64, 96)


@pytest.mark.parametrize("slow", [1, 4])
def test_a_batch_is_computed_whole_where_that_is_quicker(
    slow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def prepare(trunk: Trunk, shape: Shape, dtype: torch.dtype) -> Run:
        def run(images: Tensor) -> Tensor:
            asked.append(len(images))
            time.sleep(0.03 if shape[0] == slow else 0)
            with torch.no_grad():
                found: Tensor = trunk(images)
            return found

        return run

    route = replace(ROUTES["openvino"], check=lambda trunk: None, prepare=prepare)
    monkeypatch.setitem(ROUTES, "openvino", route)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    model = PVTv2Classifier(SMALL, num_classes=5).eval()
    quick = optimize(model, (4, 3, 64, 64), route="openvino")
    for batch, pieces in ((4, 4), (8, 4), (6, 1), (1, 1)):
        asked.clear()
        quick(noise(batch, 3, 64, 64))
        size = 1 if slow == 4 else pieces
        assert asked == [size] * (batch // size)


def test_pieces_that_are_kept_beside_a_batch_are_compared_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def prepare(trunk: Trunk, shape: Shape, dtype: torch.dtype) -> Run:
        def run(images: Tensor) -> Tensor:
            time.sleep(0.03 if shape[0] == 1 else 0)
            with torch.no_grad():
                found: Tensor = trunk(images)
            return found + (shape[0] == 1)

        return run

    route = replace(ROUTES["openvino"], check=lambda trunk: None, prepare=prepare)
    monkeypatch.setitem(ROUTES, "openvino", route)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    model = PVTv2Classifier(SMALL, num_classes=5).eval()
    with pytest.raises(UserError, match=r"for images of \(1, 3, 64, 64\)"):
        optimize(model, (4, 3, 64, 64), route="openvino")


def test_the_compiler_gives_the_same_and_is_asked_once(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = PVTv2Pyramid(SMALL, out_indices=(0,)).eval()  # one stage: compiling takes its time
    try:
        compiled.check(model)
    except UserError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    optimize(model, 64, route="compiled")
    monkeypatch.delattr(compiled, "compile_into")
    quick = optimize(model, 64, route="compiled")
    with torch.no_grad():
        images = noise(2, 3, 64, 64)
        assert difference(quick(images), model(images)) < 1e-4


def test_auto_takes_what_its_patience_allows_and_says_why_not_more() -> None:
    choice = optimize(PVTv2Classifier(SMALL, num_classes=5).eval(), 64).optimized
    expected = "packed" if onednn.has_operators(torch.float32) else "eager"
    assert choice.route == expected
    assert choice.difference < 1e-5
    assert "compiled takes about 60 s to prepare" in choice.passed_over
    assert str(choice).startswith(f"{expected} in float32, ")


def test_a_route_that_gives_something_else_is_refused_and_auto_takes_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = PVTv2Classifier(SMALL, num_classes=5).eval()

    def spoil(trunk: PVTv2Classifier, dtype: torch.dtype) -> PVTv2Classifier:
        copied = packed.share(trunk, torch.float64).to(dtype)
        with torch.no_grad():
            copied.head.bias += 0.1
        return copied

    monkeypatch.setattr(packed, "pack", spoil)
    with pytest.raises(UserError, match="route packed gives something else than the model"):
        optimize(model, 64, route="packed")
    choice = optimize(model, 64).optimized
    assert choice.route == "eager"
    assert any("gives something else" in reason for reason in choice.passed_over)


def test_bf16_loses_no_more_than_the_model_as_written_does_twice() -> None:
    torch.manual_seed(0)
    model = create_model("pvt_v2_b0", num_classes=7).eval()
    images = noise(2, 3, 64, 96)
    quick = optimize(model, images, route="packed", precision="bf16")
    with torch.no_grad():
        expected, written = model(images), packed.share(model, torch.bfloat16)(images.bfloat16())
    assert quick(images).dtype == torch.float32
    assert 0 < difference(quick(images), expected) <= 2 * difference(written.float(), expected)


def test_a_detector_and_a_segmenter_keep_their_answers_and_share_the_rest() -> None:
    torch.manual_seed(0)
    images = noise(2, 3, 96, 128)
    for name in ("retinanet", "semantic_fpn"):
        model = create_model(name, backbone="pvt_v2_b0", num_classes=3).eval()
        quick = optimize(model, 64)
        assert type(quick) is type(model)
        with torch.no_grad():
            for one, other in zip(flat(quick(images)), flat(model(images)), strict=True):
                assert difference(one, other) < 1e-4
        assert quick.neck is not model.neck
        for part, own in zip(quick.neck.modules(), model.neck.modules(), strict=True):
            for (key, one), other in zip(
                part.named_parameters(recurse=False), own.parameters(recurse=False), strict=True
            ):
                laid_out = isinstance(own, nn.Conv2d) and key == "weight"
                assert torch.equal(one, other)
                assert (one is other) is not laid_out
                assert one.is_contiguous(
                    memory_format=torch.channels_last if laid_out else torch.contiguous_format
                )
                assert other.is_contiguous()  # the model is left as it is


def flat(outputs: object) -> Iterator[Tensor]:
    """The tensors in a record of outputs."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, list | tuple):
        for part in outputs:
            yield from flat(part)
    elif hasattr(outputs, "__dict__") or hasattr(outputs, "__dataclass_fields__"):
        for name in getattr(outputs, "__dataclass_fields__", vars(outputs)):
            yield from flat(getattr(outputs, name))


def test_padded_images_are_told_apart_as_before() -> None:
    torch.manual_seed(0)
    model = PVTv2Pyramid(SMALL).eval()
    quick = optimize(model, 64)
    images = noise(2, 3, 64, 96)
    bounds = Bounds([(64, 96), (32, 64)], (64, 96), images.device)
    with torch.no_grad():
        expected = model.forward_padded(images, bounds)
    assert difference(quick.forward_padded(images, bounds), expected) < 1e-5
    assert quick.feature_info.channels() == model.feature_info.channels()


def test_the_model_is_left_as_it_is_and_the_result_stays_in_evaluation_mode() -> None:
    model = PVTv2Classifier(SMALL, num_classes=5, drop_path_rate=0.5)  # in training mode
    quick = optimize(model, 64)
    assert model.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    images = noise(1, 3, 64, 64)
    first = quick(images)
    assert not first.requires_grad
    quick.train()
    assert torch.equal(quick(images), first)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quick(images), first)


def test_mistakes_are_answered_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model = PVTv2Classifier(SMALL, num_classes=5)
    with pytest.raises(UserError, match="one PVT of this package inside; Linear has 0"):
        optimize(nn.Linear(3, 3))
    with pytest.raises(UserError, match=r"float32, got torch.bfloat16: call model.float\(\)"):
        optimize(PVTv2Classifier(SMALL).bfloat16())
    with pytest.raises(ValueError, match="route must be auto or one of openvino, compiled"):
        optimize(model, route="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision must be one of float32, bf16"):
        optimize(model, precision="int8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"sides from 32 up, got \(1, 3, 16, 64\)"):
        optimize(model, (1, 3, 16, 64))
    for route in ("openvino", "compiled", "packed"):  # "meta" stands for a GPU
        with pytest.raises(UserError, match=f"route {route} is for the CPU, and the model is on"):
            ROUTES[route].check(PVTv2Classifier(SMALL).to("meta"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="openvino is not installed; pip install openvino"):
        optimize(model, route="openvino")


def test_a_compiler_that_fails_is_a_line_and_not_its_own_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no space left\nand forty more lines")

    monkeypatch.setattr(compiled, "check", lambda trunk: None)
    monkeypatch.setattr(compiled, "fingerprint", fail)
    assert ROUTES["compiled"].prepare is not None
    with pytest.raises(UserError, match=r"on this machine: no space left$"):
        optimize(PVTv2Classifier(SMALL), 64, route="compiled")
