"""Every example runs, and is short enough to be read at a glance."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_has_at_most_40_lines(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(path.read_text().splitlines()) <= 40
    made = runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
    if path.stem == "every_gate_visible":
        assert made["loss"] < 0.05
        assert made["at"] > made["elsewhere"]
    if path.stem == "forecast_with_gaps":
        assert made["error"] < 6
        assert made["made"].height == 28
