"""Parity with the reference code: outputs and gradients that were recorded from it in float64.

The tolerances are what an implementation meets that differs in the order of operations only.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rule
from pyramidvit.inference.onednn import has_operators
from pyramidvit.inference.packed import pack
from pyramidvit.models import BackboneModel


class Tolerance(NamedTuple):
    logits: float
    maps: float
    gradient: float  # relative


TOLERANCES = {
    torch.float64: Tolerance(1e-10, 1e-10, 1e-8),
    torch.float32: Tolerance(2e-5, 1e-4, 2e-3),
}
MODELS = ("pvt_small", "pvt_tiny", "pvt_v2_b0", "pvt_v2_b1", "pvt_v2_b2", "pvt_v2_b2_li")
BATCH = 2

Golden = dict[str, Any]


@pytest.fixture(scope="module", params=MODELS)
def golden(request: pytest.FixtureRequest, golden_dir: Path) -> Golden:
    return json.loads((golden_dir / "backbones" / f"{request.param}.json").read_text())


@pytest.fixture(scope="module", params=TOLERANCES, ids=lambda dtype: str(dtype)[6:])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(scope="module")
def tolerance(dtype: torch.dtype) -> Tolerance:
    return TOLERANCES[dtype]


@pytest.fixture(scope="module")
def classifier(golden: Golden, dtype: torch.dtype) -> BackboneModel:
    return rule.build(golden["variant"], dtype)


@pytest.fixture(scope="module")
def pyramid(golden: Golden, dtype: torch.dtype) -> BackboneModel:
    return rule.build(golden["variant"], dtype, features_only=True)


def test_every_recorded_model_is_compared(golden_dir: Path) -> None:
    assert {path.stem for path in (golden_dir / "backbones").glob("*.json")} == set(MODELS)


def test_parameters_equal_the_recorded_ones(golden: Golden) -> None:
    recorded = golden["parameters"]
    state = rule.build(golden["variant"], torch.float64).state_dict()
    assert len(state) == recorded["keys"]
    assert sum(value.numel() for value in state.values()) == recorded["total"]
    assert sum(value.sum().item() for value in state.values()) == pytest.approx(recorded["sum"])
    squares = sum(value.square().sum().item() for value in state.values())
    assert squares == pytest.approx(recorded["sum_of_squares"])
    assert [min(state), max(state)] == [recorded["first_key"], recorded["last_key"]]
    for which in ("first", "last"):
        values = state[recorded[f"{which}_key"]].flatten()[:3].tolist()
        assert values == pytest.approx(recorded[f"{which}_values"], abs=1e-15)


@pytest.mark.parametrize("size", ["224x224", "288x288", "256x320"])
def test_logits_equal_the_reference(
    golden: Golden, classifier: BackboneModel, dtype: torch.dtype, tolerance: Tolerance, size: str
) -> None:
    recorded = golden["classification"][size]
    with torch.no_grad():
        logits = classifier(recorded_images(recorded, dtype))
    assert_equal(logits, recorded["logits_summary"], "logits", tolerance.logits)
    assert logits.argmax(1).tolist() == recorded["argmax"]
    if size == "224x224":  # all 2 x 1000 of them are recorded
        np.testing.assert_allclose(logits, recorded["logits"], rtol=0, atol=tolerance.logits)


def test_values_inside_equal_the_reference(
    golden: Golden, classifier: BackboneModel, dtype: torch.dtype, tolerance: Tolerance
) -> None:
    recorded = golden["classification"]["224x224"]
    found: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module) -> Any:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            found[name] = result[0] if isinstance(result, tuple) else result

        return module.register_forward_hook(hook)

    places = {
        name: classifier.get_submodule(name.removesuffix("_last"))
        for name in recorded["intermediate"]
    }
    hooks = [
        keep(name, place[-1] if isinstance(place, nn.ModuleList) else place)
        for name, place in places.items()
    ]
    with torch.no_grad():
        classifier(recorded_images(recorded, dtype))
    for hook in hooks:
        hook.remove()
    for name, entry in recorded["intermediate"].items():
        assert_equal(found[name], entry, name, tolerance.maps)


def test_every_gradient_of_the_logits_equals_the_reference(
    golden: Golden, classifier: BackboneModel, dtype: torch.dtype, tolerance: Tolerance
) -> None:
    recorded = golden["classification"]["224x224"]
    logits = classifier(recorded_images(recorded, dtype))
    loss = logits.square().sum() / (2 * BATCH)
    assert loss.item() == pytest.approx(recorded["loss"], rel=tolerance.gradient)
    classifier.zero_grad()
    loss.backward()
    assert recorded["gradients"].keys() == dict(classifier.named_parameters()).keys()
    assert_gradients_equal(classifier, recorded["gradients"], tolerance.gradient)


@pytest.mark.parametrize("size", ["224x224", "256x320", "193x237"])
def test_maps_equal_the_reference(
    golden: Golden, pyramid: BackboneModel, dtype: torch.dtype, tolerance: Tolerance, size: str
) -> None:
    recorded = golden["dense"][size]
    with torch.no_grad():
        maps = pyramid(recorded_images(recorded, dtype))
    for i, (found, entry) in enumerate(zip(maps, recorded["features"], strict=True), start=1):
        assert_equal(found, entry, f"F{i}", tolerance.maps)


def test_gradients_of_the_maps_equal_the_reference(
    golden: Golden, pyramid: BackboneModel, dtype: torch.dtype, tolerance: Tolerance
) -> None:
    recorded = golden["dense"]["256x320"]
    count = sum(parameter.numel() for parameter in pyramid.parameters())
    assert count == golden["dense"]["parameters_total"]
    loss = torch.zeros((), dtype=torch.float64)
    for i, found in enumerate(pyramid(recorded_images(recorded, dtype)), start=1):
        direction = rule.stream(f"cotangent:F{i}").standard_normal(found.shape)
        loss = loss + (found * torch.from_numpy(direction)).mean()
    assert loss.item() == pytest.approx(recorded["loss"], abs=tolerance.maps)
    pyramid.zero_grad()
    loss.backward()
    assert_gradients_equal(pyramid, recorded["gradients"], tolerance.gradient)


@pytest.mark.skipif(not has_operators(torch.float32), reason="this torch has not the operators")
@pytest.mark.parametrize("dtype", [torch.float32], indirect=True, ids=["float32"])
def test_packed_weights_give_the_recorded_logits_and_maps(
    golden: Golden, classifier: BackboneModel, pyramid: BackboneModel, dtype: torch.dtype
) -> None:
    tolerance = TOLERANCES[dtype]
    recorded = golden["classification"]["288x288"]
    with torch.no_grad():
        logits = pack(classifier, dtype)(recorded_images(recorded, dtype))
    assert_equal(logits, recorded["logits_summary"], "logits", tolerance.logits)
    recorded = golden["dense"]["193x237"]
    with torch.no_grad():
        maps = pack(pyramid, dtype)(recorded_images(recorded, dtype))
    for i, (found, entry) in enumerate(zip(maps, recorded["features"], strict=True), start=1):
        assert_equal(found, entry, f"F{i}", tolerance.maps)


@pytest.mark.parametrize("golden", ["pvt_tiny", "pvt_v2_b0"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float64], indirect=True, ids=["float64"])
def test_gradients_that_are_computed_from_less_equal_the_reference(
    golden: Golden, classifier: BackboneModel, dtype: torch.dtype, tolerance: Tolerance
) -> None:
    recorded = golden["classification"]["224x224"]
    classifier.set_recompute("feed_forward")
    classifier.zero_grad()
    (classifier(recorded_images(recorded, dtype)).square().sum() / (2 * BATCH)).backward()
    classifier.set_recompute("none")
    assert_gradients_equal(classifier, recorded["gradients"], tolerance.gradient)


def recorded_images(recorded: Golden, dtype: torch.dtype) -> Tensor:
    """The images of an entry, after a look at whether the rule makes the recorded ones."""
    batch, _, height, width = recorded["input"]["shape"]
    images = rule.images(batch, height, width, torch.float64)
    assert batch == BATCH
    assert images.sum().item() == pytest.approx(recorded["input"]["sum"])
    assert images.square().sum().item() == pytest.approx(recorded["input"]["sum_of_squares"])
    return images.to(dtype)


def assert_equal(found: Tensor, entry: Golden, tag: str, tolerance: float) -> None:
    """Compares a tensor with a recorded summary: its shape, statistics and 64 of its values."""
    assert list(found.shape) == entry["shape"]
    values = found.detach().double()
    assert values.mean().item() == pytest.approx(entry["mean"], abs=tolerance)
    assert values.std(correction=0).item() == pytest.approx(entry["std"], abs=tolerance)
    assert values.abs().max().item() == pytest.approx(entry["absmax"], abs=tolerance)
    np.testing.assert_allclose(rule.probe(found, tag), entry["probe"], rtol=0, atol=tolerance)


def assert_gradients_equal(model: nn.Module, recorded: Golden, tolerance: float) -> None:
    """Compares each gradient's norm, and its product with a random direction, over the norm."""
    for name, (norm, product) in recorded.items():
        gradient = model.get_parameter(name).grad
        assert gradient is not None, name
        found = gradient.double().numpy()
        direction = rule.stream(f"gradprobe:{name}").standard_normal(found.shape)
        assert abs(np.linalg.norm(found) - norm) <= tolerance * norm, name
        assert abs((found * direction).sum() - product) <= tolerance * norm, name
