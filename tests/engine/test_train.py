"""The loop itself, on the digits, in this process."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pyramidvit.cli.tasks import TASKS
from pyramidvit.data.digits import load_digit_data
from pyramidvit.engine import train
from pyramidvit.engine.device import build_fabric
from pyramidvit.engine.report import Reporter
from pyramidvit.engine.run import Run, build_run
from pyramidvit.engine.snapshot import load_snapshot
from pyramidvit.errors import UserError
from pyramidvit.tasks.classification.config import ClassificationOptions, recipe_changes

OPTIONS = ClassificationOptions(
    **{
        **recipe_changes("digits", "pvt_v2_b0"),
        "batch_size": 64,
        "epochs": 2,
        "workers": 0,
        "checkpoint_steps": 1,
        "held_out": 0.9,  # leaves 180 images, two updates an epoch
    }
)


def make_run(folder: Path, options: ClassificationOptions = OPTIONS) -> Run:
    folder.mkdir(exist_ok=True)
    data = load_digit_data(seed=0, held_out=options.held_out)
    fabric = build_fabric("cpu", 1, options.precision)
    run = build_run(TASKS["classification"], options, data, fabric, Reporter(speaks=True))
    run.folder = folder
    return run


def test_a_run_cut_off_before_an_epochs_evaluation_makes_up_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_run(tmp_path / "whole")
    train.fit(whole)
    assert whole.progress.step == 4

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    cut = make_run(tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(train, "finish_epoch", die)
        with pytest.raises(KeyboardInterrupt):
            train.fit(cut)
    assert load_snapshot(tmp_path / "cut" / "state.pt")[0].step == 2

    resumed = make_run(tmp_path / "cut")
    train.resume(resumed)
    train.fit(resumed)
    assert [row["epoch"] for row in resumed.progress.history] == [1, 2]
    for name, value in whole.bare.state_dict().items():
        assert torch.equal(value, resumed.bare.state_dict()[name]), name
    steps = [(tmp_path / f / "steps.csv").read_text() for f in ("whole", "cut")]
    assert steps[0] == steps[1]


def test_a_run_whose_data_has_changed_does_not_go_on(tmp_path: Path) -> None:
    run = make_run(tmp_path, replace(OPTIONS, epochs=1))
    train.fit(run)
    other = make_run(tmp_path)
    other.record["classes"] = [{"id": i, "name": f"digit {i}"} for i in range(10)]
    with pytest.raises(UserError, match="cannot go on: its classes changed"):
        train.resume(other)
    fewer = make_run(tmp_path, replace(OPTIONS, held_out=0.8))
    with pytest.raises(UserError, match="its training images changed"):
        train.resume(fewer)


def test_a_run_can_go_on_from_before_its_first_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_step", die)
        with pytest.raises(KeyboardInterrupt):
            train.fit(make_run(tmp_path))
    resumed = make_run(tmp_path)
    train.resume(resumed)
    assert resumed.progress.step == 0
    train.fit(resumed)
    assert resumed.progress.step == 4


def test_half_a_line_left_by_a_kill_is_cut_off(tmp_path: Path) -> None:
    run = make_run(tmp_path, replace(OPTIONS, epochs=1))
    train.fit(run)
    table = tmp_path / "steps.csv"
    whole = table.read_text()
    for rest in ("3,0.1,0.2,0.3\n", "1", "17,0.5"):
        table.write_text(whole + rest)
        train.resume(make_run(tmp_path))
        assert table.read_text() == whole


def test_averaged_weights_are_the_ones_that_are_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path, replace(OPTIONS, epochs=1, ema=0.5))
    train.fit(run)
    kept = train.load_snapshot(tmp_path / "state.pt")[1]
    name = "patch_embed1.proj.weight"
    assert not torch.equal(kept["averaged"][name], kept["model"][name])
    assert torch.equal(run.judged.state_dict()[name], kept["averaged"][name])


def test_bf16_trains_and_keeps_float32_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path, replace(OPTIONS, epochs=1, precision="bf16"))
    train.fit(run)
    assert {p.dtype for p in run.bare.parameters()} == {torch.float32}
    plain = make_run(tmp_path / "plain", replace(OPTIONS, epochs=1))
    train.fit(plain)
    loss, exact = (r.progress.history[0]["train_loss"] for r in (run, plain))
    assert loss != exact
    assert loss == pytest.approx(exact, rel=0.05)


def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = {name: p.clone() for name, p in run.bare.state_dict().items()}
    head = run.bare.get_parameter("head.weight")
    head.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(UserError, match="before update 1: the gradient norm is nan"):
        train.fit(run)
    assert all(torch.equal(v, before[k]) for k, v in run.bare.state_dict().items())
