"""The tables of a run folder."""

from pathlib import Path
from types import SimpleNamespace

from pyramidvit.engine.outputs import cut_steps, write_step


def test_a_run_that_goes_back_to_its_start_has_a_heading_again(tmp_path: Path) -> None:
    run, path = SimpleNamespace(folder=tmp_path), tmp_path / "steps.csv"
    writer = SimpleNamespace(add_scalar=lambda *values: None)
    for step in (1, 2, 3):
        write_step(run, {"step": step, "loss": 0.5}, writer)
    for last, kept in ((2, ["1,0.5", "2,0.5"]), (0, [])):
        cut_steps(path, last)
        write_step(run, {"step": last + 1, "loss": 0.25}, writer)
        assert path.read_text().splitlines() == ["step,loss", *kept, f"{last + 1},0.25"]
