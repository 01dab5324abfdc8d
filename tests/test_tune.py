"""The search for settings: on validation only, resumable, the same for every estimator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
import pytest

from carousel import CarouselError, Classifier, DataError, Forecaster, TrainConfig, cli
from carousel.train import Event, Interrupted
from carousel.tune import SPACE, Choice, Range, tune

SMALL = {
    "learning_rate": Range(1e-4, 1e-1, log=True),
    "hidden_size": Choice(4, 8),
    "cell.recurrent_dropout": Range(0, 0.5),
}


class Bowl:
    """An estimator whose validation loss is known: least at a learning rate of 0.01, with 8 units, without dropout."""

    defaults = TrainConfig(hidden_size=4, learning_rate=0.05)
    log: ClassVar[list[TrainConfig]] = []
    stop: ClassVar[int] = -1  # in this fit the process is interrupted

    def __init__(self, config: TrainConfig | None = None) -> None:
        self.config = config

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"config": self.config}

    def set_params(self, **params: Any) -> Self:
        self.__dict__.update(params)
        return self

    def loss(self) -> float:
        c = self.config
        assert c is not None
        return abs(np.log10(c.learning_rate) + 2) + 0.1 * (c.hidden_size == 4) + c.cell.recurrent_dropout

    def fit(self, frame: Any, *, progress: Any = None, checkpoint: Any = None) -> Self:
        assert self.config is not None
        if len(self.log) == self.stop:
            raise KeyboardInterrupt
        self.log.append(self.config)
        for step in range(0, 400, 25):
            metric = self.loss() + 5 / (step + 1)
            if progress:
                progress(Event(step, 400, 0, 1, metric, metric, metric, 1.0))
        self.provenance_ = {"metrics": {"validation_loss": [self.loss()]}, "data": "x"}
        return self


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bowl, "log", [])


TABLE = pl.DataFrame({"t": range(60), "y": np.sin(np.arange(60) / 3.0)})


def test_the_best_of_all_trials_is_fitted_with_refit_and_told(tmp_path: Path) -> None:
    lines: list[str] = []
    bowl = tune(Bowl(), TABLE, trials=25, storage=tmp_path / "s", space=SMALL, say=lines.append)
    *tried, last = bowl.log
    assert len(tried) == len(lines) == 25
    assert tried[0] == TrainConfig(hidden_size=4, learning_rate=0.05, refit=False)  # the settings as given come first
    assert not any(config.refit for config in tried)
    assert last.refit
    losses = [Bowl(config).loss() for config in tried]
    assert bowl.loss() == min(losses) < 0.25
    table = bowl.provenance_["tune"]
    assert len(table["trials"]) == 25
    assert table["value"] == min(losses)
    assert table["best"]["learning_rate"] == last.learning_rate
    assert {row["state"] for row in table["trials"]} == {"complete", "pruned"}  # hopeless ones are cut short
    assert lines[0].startswith(
        "trial 1/25: 0.79897 in 0 s (learning_rate=0.05, hidden_size=4, cell.recurrent_dropout=0)"
    )


@pytest.mark.parametrize("at", [0, 1, 7])
def test_an_interrupted_search_ends_as_a_whole_one(tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tune(Bowl(), TABLE, trials=9, storage=tmp_path / "whole", space=SMALL)
    whole = Bowl.log.copy()
    Bowl.log.clear()
    monkeypatch.setattr(Bowl, "stop", at)
    storage = tmp_path / "s"
    with pytest.raises(Interrupted) as caught:
        tune(Bowl(), TABLE, trials=9, storage=storage, space=SMALL)
    assert caught.value.checkpoint == storage
    assert len(Bowl.log) == at
    monkeypatch.setattr(Bowl, "stop", -1)
    tune(Bowl(), TABLE, trials=9, storage=storage, space=SMALL, resume=True)
    assert Bowl.log == whole
    tune(Bowl(), TABLE, trials=12, storage=storage, space=SMALL, resume=True)
    assert len(Bowl.log) == len(whole) + 4


def test_what_makes_no_search_is_refused(tmp_path: Path) -> None:
    storage = tmp_path / "s"

    def refused(text: str, table: Any = TABLE, **given: Any) -> None:
        with pytest.raises(CarouselError, match=text):
            tune(Bowl(), table, **{"trials": 2, "storage": storage, "space": SMALL} | given)

    refused("at least 1, got 0", trials=0)
    refused("no search to resume", resume=True)
    refused("every setting that is searched for is fixed", fixed=list(SMALL))
    tune(Bowl(), TABLE, trials=2, storage=storage, space=SMALL)
    refused("there is a search already; resume it")
    refused("of other data, columns or settings", TABLE.with_columns(pl.col("y") + 1), resume=True)
    refused("of other data, columns or settings", resume=True, fixed=["hidden_size"])
    storage.write_bytes(b"\x00garbage")
    refused("no search, or it is damaged", resume=True)


def test_a_trial_at_which_training_breaks_down_does_not_end_the_search(tmp_path: Path) -> None:
    class Fragile(Bowl):
        def fit(self, frame: Any, **given: Any) -> Self:
            assert self.config is not None
            if self.log and self.config.refit is False and self.config.hidden_size == 8:
                self.log.append(self.config)
                raise CarouselError("the loss is no longer finite")
            return super().fit(frame, **given)

    bowl = tune(Fragile(), TABLE, trials=8, storage=tmp_path / "s", space=SMALL)
    refused = [row for row in bowl.provenance_["tune"]["trials"] if "refused" in row]
    assert refused
    assert refused[0]["refused"] == "the loss is no longer finite"
    assert bowl.config is not None
    assert bowl.config.hidden_size == 4


def test_faults_of_the_data_and_no_validation_end_it_at_once(tmp_path: Path) -> None:
    class Broken(Bowl):
        def fit(self, frame: Any, **given: Any) -> Self:
            raise DataError("data, row 3: wrong")

    with pytest.raises(DataError, match="row 3"):
        tune(Broken(), TABLE, trials=2, storage=tmp_path / "a", space=SMALL)

    class Blind(Bowl):
        def fit(self, frame: Any, **given: Any) -> Self:
            super().fit(frame)
            self.provenance_ = {"metrics": {"validation_loss": [None]}}
            return self

    with pytest.raises(CarouselError, match="needs held-out data"):
        tune(Blind(), TABLE, trials=2, storage=tmp_path / "b", space=SMALL)


def test_a_forecaster_is_tuned_and_keeps_the_table(tmp_path: Path) -> None:
    quick = TrainConfig(steps=12, warmup=2, batch_size=8, evaluate_every=4)
    model = Forecaster(3, time="t", target="y", config=quick)
    tuned = tune(model, TABLE, trials=3, storage=tmp_path / "s", fixed=["hidden_size", "num_layers", "batch_size"])
    assert tuned is model
    table = model.provenance_["tune"]
    assert set(table["best"]) == SPACE["forecast"].keys() - {"hidden_size", "num_layers", "batch_size"}
    assert model.config.learning_rate == table["best"]["learning_rate"]
    assert (model.config.hidden_size, model.config.refit) == (64, True)
    model.save(tmp_path / "m.safetensors")
    assert Forecaster.load(tmp_path / "m.safetensors").provenance_["tune"] == table
    assert model.predict(TABLE).height == 3


def test_the_command_line_searches_extends_and_keeps_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "d.csv", tmp_path / "m.safetensors"
    TABLE.write_csv(data)
    settings = ("steps=6", "warmup=2", "hidden_size=4", "num_layers=1", "batch_size=8", "evaluate_every=3", "width=4")
    fit = ["fit", "forecast", str(data), f"--out={out}", "--time=t", "--target=y", "--horizon=3"]
    fit += [f"--set={setting}" for setting in settings]
    assert cli.run([*fit, "--tune=2", "--json"]) == 0
    found = capsys.readouterr()
    assert found.err.count("carousel: ") == 0
    assert found.err.startswith("trial 1/2: ")
    table = json.loads(found.out)["provenance"]["tune"]
    assert len(table["trials"]) == 2
    assert not table["best"].keys() & {"hidden_size", "num_layers", "batch_size", "width"}
    assert cli.run([*fit, "--tune=3"]) == 2
    assert f"carousel: {out}.tune: there is a search already; resume it" in capsys.readouterr().err
    assert cli.run([*fit, "--tune=3", "--resume", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["provenance"]["tune"]
    assert again["trials"][:2] == table["trials"]
    assert len(again["trials"]) == 3


def test_a_classifier_is_tuned_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(int(rng.integers(5, 9)), 2)) + k % 2 for k in range(40)]
    y = [k % 2 for k in range(40)]
    model = Classifier(config=TrainConfig(steps=16, warmup=2, batch_size=8, hidden_size=4, evaluate_every=4, width=0))
    fixed = ["hidden_size", "num_layers", "batch_size"]
    tune(model, x, y, trials=2, storage=tmp_path / "s", fixed=fixed)
    table = model.provenance_["tune"]
    assert len(table["trials"]) == 2
    assert "learning_rate" in table["best"]
    assert "recency" not in table["best"]
    assert model.predict(x[:3]).shape == (3,)
    with pytest.raises(CarouselError, match="of other data"):
        tune(model, x, y[::-1], trials=2, storage=tmp_path / "s", fixed=fixed, resume=True)
