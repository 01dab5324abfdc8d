"""Every example runs, and is short enough to be read at a glance."""

import os
import runpy
from pathlib import Path

import pytest

REAL = {
    "patient_vitals": "physionet2012",
    "card_fraud": "fraud_handbook",
    "activity": "ueaucr_small",
    "stocks": "stocks_index",
    "load_forecast": "etth",
    "machine_anomalies": "skab",
    "actions_from_joints": "jhmdb_skeleton",
}  # examples that read a set of CAROUSEL_DATA where it is there
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_has_at_most_40_lines(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAROUSEL_DATA", raising=False)
    assert len(path.read_text().splitlines()) <= 40
    if path.stem == "onnx_runtime":
        pytest.importorskip("onnxruntime")
    made = runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
    if path.stem == "every_gate_visible":
        assert made["loss"] < 0.05
        assert made["at"] > made["elsewhere"]
    if path.stem == "forecast_with_gaps":
        assert made["error"] < 6
        assert made["made"].height == 28
    if path.stem == "onnx_runtime":
        assert made["apart"] < 1e-6
    if path.stem == "forecast_on_a_chip":
        assert abs(made["report"]["loss_percent"]) < 2
        assert made["report"]["state_bytes"] < 1000
    if path.stem == "stocks":
        assert made["found"].of("last value", "vol").rmse > made["found"].of("linear autoregression", "vol").rmse
        assert 0.3 < made["right"] < 0.7
    if path.stem in ("patient_vitals", "card_fraud", "activity"):
        assert made["found"].of("LSTM")["auroc"] > 0.75
        assert made["found"].trust.audit.clean
    if path.stem == "machine_anomalies":
        ours = made["measured"].of("LSTM")
        assert ours.event_recall == 1
        assert ours.composite_f1 > made["measured"].of("isolation forest").composite_f1
    if path.stem in ("actions_from_joints", "actions_from_video"):
        assert made["right"] > 0.75
    if path.stem == "next_frames":
        assert made["found"].of("LSTM")["MSE a frame"] < 0.7 * made["found"].of("last frame")["MSE a frame"]
    if path.stem == "load_forecast":
        assert made["found"].of("LSTM").mase < made["found"].of("last value").mase
        assert made["tomorrow"].height == 24


@pytest.mark.filterwarnings("ignore:.*column 'MechVent'. the value never changes where there is one")
@pytest.mark.parametrize("name", sorted(REAL))
def test_an_example_runs_on_its_real_set(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not (Path(os.environ.get("CAROUSEL_DATA", "")) / REAL[name]).is_dir():
        pytest.skip(f"CAROUSEL_DATA does not lead to {REAL[name]}/")
    made = runpy.run_path(str(EXAMPLES[0].with_name(f"{name}.py")), run_name="__main__")
    assert capsys.readouterr().out
    if name in ("patient_vitals", "card_fraud", "activity"):
        assert made["found"].of("LSTM")["auroc"] > 0.65
        assert made["found"].trust.audit.clean
        return
    if name == "actions_from_joints":
        assert made["right"] > 0.45
        return
    if name == "machine_anomalies":
        assert made["measured"].of("LSTM").composite_f1 > 0.7
        return
    target = "vol" if name == "stocks" else "load"
    assert made["found"].of("LSTM", target).mase < made["found"].of("last value", target).mase
