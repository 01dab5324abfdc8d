"""`Detector` on generated rows whose anomalies are known: tables, arrays, gaps, labels, files, and what it refuses."""

import dataclasses
import itertools
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from carousel import CarouselError, DataError, DetectConfig, Detector
from carousel.evaluate_detection import evaluate_detection

QUICK = dataclasses.replace(Detector.defaults, steps=120, least_steps=120, hidden_size=12, batch_size=16)
ODD = {"spike": slice(520, 523), "stuck": slice(600, 640)}


def machine(seed: int = 0, rows: int = 700, odd: bool = True) -> pl.DataFrame:
    """Two sensors that swing together; from row 520 a spike in one, from 600 the other is stuck."""
    rng = np.random.default_rng(seed)
    t = np.arange(rows)
    x = np.stack([np.sin(t / 6), np.cos(t / 6) + 0.5 * np.sin(t / 3)], 1) + 0.05 * rng.normal(size=(rows, 2))
    labels = np.zeros(rows, int)
    if odd:
        x[ODD["spike"], 0] += 2.5
        x[ODD["stuck"], 1] = 0.4
        for part in ODD.values():
            labels[part] = 1
    return pl.DataFrame({"t": t, "a": x[:, 0], "b": x[:, 1], "odd": labels})


@pytest.fixture(scope="module")
def fitted() -> Detector:
    return Detector(time="t", target="odd", config=QUICK).fit(machine()[:400])


def test_anomalies_are_found_and_put_down_to_their_column(fitted: Detector) -> None:
    found = fitted.predict(machine().drop("odd"))
    assert found.columns == ["t", "score", "anomaly", "because"]
    assert found["t"].to_list() == list(range(700))
    assert found["anomaly"][520]
    assert found["because"][520].split(", ")[0] == "a"
    assert found["anomaly"][612:640].mean() > 0.8
    usual = pl.concat([found[400:515], found[660:]])
    assert usual["anomaly"].mean() < 0.06
    assert usual.filter(~pl.col("anomaly"))["because"].null_count() == (~usual["anomaly"]).sum()


def test_intervals_merge_what_is_near(fitted: Detector) -> None:
    found = fitted.intervals(machine(), gap=10)
    assert found.columns == ["start", "end", "rows", "score", "because"]
    spans = list(zip(found["start"], found["end"], strict=True))
    assert any(a <= 520 <= b for a, b in spans)
    assert any(a <= 610 and b >= 630 for a, b in spans)
    assert all(later - end > 10 for (_, end), (later, _) in itertools.pairwise(spans))
    scores = fitted.scores(machine())
    for a, b, rows, score in zip(found["start"], found["end"], found["rows"], found["score"], strict=True):
        assert rows == b - a + 1
        assert score == pytest.approx(scores[a : b + 1].max())
    assert len(fitted.intervals(machine())) >= len(found)


def test_a_table_in_any_order_and_kind_gives_the_same_scores(fitted: Detector) -> None:
    table = machine()
    expected = fitted.scores(table)
    order = np.random.default_rng(3).permutation(len(table))
    with pytest.warns(UserWarning, match="time goes backwards"):
        shuffled = fitted.predict(table[order.tolist()])
    np.testing.assert_array_equal(shuffled["score"].to_numpy(), expected[order])
    frame = fitted.predict(table.to_pandas())
    assert isinstance(frame, pd.DataFrame)
    np.testing.assert_array_equal(frame["score"].to_numpy(), expected)


def test_scores_are_causal(fitted: Detector) -> None:
    table = machine()
    future = table.with_columns(pl.when(pl.col("t") > 550).then(pl.col("a") + 9).otherwise(pl.col("a")).alias("a"))
    np.testing.assert_array_equal(fitted.scores(table)[:551], fitted.scores(future)[:551])
    assert not np.allclose(fitted.scores(table)[551:], fitted.scores(future)[551:])


def test_the_model_file_holds_all_of_it(fitted: Detector, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.safetensors")
    again = Detector.load(tmp_path / "m.safetensors")
    assert_frame_equal(again.predict(machine()), fitted.predict(machine()))
    known = {"config": None, "features": ("a", "b"), "scoring": DetectConfig(), "rest": 0}
    assert again.get_params() | {"config": None} == fitted.get_params() | known


def test_training_rows_may_hold_anomalies() -> None:
    """A twentieth of the training rows is spoiled; the anomalies after them are found nonetheless."""
    table = machine()
    spoiled = np.zeros(700, bool)
    spoiled[np.random.default_rng(1).choice(350, 17, replace=False)] = True
    dirty = table.with_columns(pl.Series("a", np.where(spoiled, 4.0, table["a"].to_numpy())))
    model = Detector(time="t", features=["a", "b"], config=QUICK, scoring=DetectConfig(contamination=0.06)).fit(
        dirty[:400]
    )
    scores = model.scores(dirty)
    assert scores[520] > 1.1
    assert scores[620:640].max() > 1
    assert (scores[400:515] > 1).mean() < 0.1
    blind = Detector(time="t", features=["a", "b"], config=QUICK).fit(dirty[:400])
    assert blind.scores(dirty)[520] < scores[520]


def test_known_anomalies_are_not_learned_from() -> None:
    table = machine()
    late = table[250:]  # with both anomalies in the part to learn from
    blind = Detector(time="t", features=["a", "b"], config=QUICK).fit(late)
    told = Detector(time="t", target="odd", config=QUICK).fit(late)
    limits = [[view.limit for view in model.config_.head.views] for model in (blind, told)]
    assert limits[1][2] < limits[0][2]
    assert told.scores(table)[520] > blind.scores(table)[520]


def test_gaps_are_not_filled_in(fitted: Detector) -> None:
    table = machine()
    rng = np.random.default_rng(2)
    gone = rng.random((700, 2)) < 0.3
    gone[100] = True
    gappy = table.with_columns(
        *(pl.Series(name, np.where(gone[:, k], np.nan, table[name].to_numpy())) for k, name in enumerate("ab"))
    )
    longer = dataclasses.replace(QUICK, steps=500, least_steps=500, hidden_size=24)
    model = Detector(time="t", target="odd", config=longer).fit(gappy[:400])
    found = model.predict(gappy)
    assert found["score"].null_count() == int(gone.all(1).sum()) > 0
    assert not found.filter(pl.col("score").is_null())["anomaly"].any()
    seen = found[600:640].filter(pl.col("score").is_not_null())
    assert seen["anomaly"].mean() > 0.4
    assert found[400:515]["anomaly"].mean() < 0.1


def test_an_autoencoder_finds_them_too() -> None:
    config = dataclasses.replace(QUICK, steps=300, least_steps=300)
    model = Detector("autoencoder", time="t", target="odd", config=config).fit(machine()[:400])
    found = model.predict(machine())
    assert found["anomaly"][520:530].any()
    assert found["anomaly"][610:640].mean() > 0.8
    assert found["anomaly"][400:515].mean() < 0.1
    with pytest.raises(CarouselError, match="rest is about"):
        Detector("autoencoder", rest=5).fit(machine())


def test_history_raises_alarms_instead_of_states() -> None:
    model = Detector(time="t", target="odd", reference="history", rest=50, config=QUICK).fit(machine()[:400])
    found = model.predict(machine())
    assert found["anomaly"][520:525].any()
    assert found["anomaly"][520:570].sum() <= 3  # it rests
    assert found["anomaly"][400:515].sum() <= 2


def test_what_history_implies() -> None:
    model = Detector(time="t", target="odd", reference="history")
    assert model.settings == dataclasses.replace(Detector.defaults, holdout=0.0)
    model.set_params(config=dataclasses.replace(QUICK, steps=3, least_steps=3)).fit(machine()[:400])
    head = model.config_.head
    assert head.rest == 100
    assert {view.rows for view in head.views if view.of == "error"} == {20, 100}
    assert {view.rows for view in head.views if view.of == "value"} == {1, 100}
    plain = Detector(time="t", config=model.config).fit(machine().drop("odd")[:400]).config_.head
    assert (plain.rest, {view.rows for view in plain.views if view.of == "value"}) == (0, {20})


def test_several_machines_and_arrays() -> None:
    tables = [machine(k).with_columns(pl.lit(name).alias("who")) for k, name in enumerate(("p", "q"))]
    both = pl.concat(tables).select("who", "t", "a", "b")
    model = Detector(id="who", time="t", config=QUICK).fit(both.filter(pl.col("t") < 400))
    found = model.predict(both)
    assert found.columns == ["who", "t", "score", "anomaly", "because"]
    assert found.group_by("who").agg(pl.col("anomaly").sum()).filter(pl.col("anomaly") > 20).height == 2
    spans = model.intervals(both, gap=10)
    assert set(spans["who"]) == {"p", "q"}
    arrays = [table.select("a", "b").to_numpy() for table in tables]
    plain = Detector(config=QUICK).fit([x[:400] for x in arrays])
    flags = plain.predict(arrays)
    assert [f.shape for f in flags] == [(700,), (700,)]
    assert all(f[610:640].mean() > 0.7 for f in flags)
    assert plain.predict(np.stack(arrays)).shape == (2, 700)
    assert set(plain.intervals(arrays)["id"]) == {0, 1}
    labels = [table["odd"].to_numpy() for table in tables]
    assert plain.score(arrays, labels) > 0.5


def test_labelled_rows_choose_the_threshold(fitted: Detector) -> None:
    table = machine(5)
    model = Detector(time="t", target="odd", config=QUICK).fit(machine()[:400], valid=table)
    labels = table["odd"].to_numpy() == 1

    def f1(threshold: float) -> float:
        flags = model.scores(table) >= threshold
        return 2 * float((flags & labels).sum()) / float(flags.sum() + labels.sum())

    assert f1(model.threshold_) >= max(f1(t) for t in np.linspace(0.2, 5, 60)) - 1e-9
    with pytest.raises(DataError, match="valid: no row is labelled"):
        Detector(time="t", target="odd", config=QUICK).fit(machine()[:400], valid=machine(odd=False))


def test_evaluation_stands_beside_baselines(fitted: Detector) -> None:
    found = evaluate_detection(fitted, machine()[400:])
    assert next(iter(found.rows)) == "LSTM"
    assert found.of("flag everything").event_f1 == 1.0
    assert found.of("flag everything").flagged == 1.0
    assert found.of("flag nothing").composite_f1 == 0.0
    ours = found.of("LSTM")
    assert ours.event_recall == 1.0
    assert ours.composite_f1 > found.of("random").composite_f1 + 0.3
    assert found.vus["LSTM"] > 2 * found.vus["random"]
    assert fitted.score(machine()[400:]) == pytest.approx(ours.composite_f1)
    for name in ("random", "isolation forest", "z-score of value"):
        assert found.of(name).flagged == pytest.approx(ours.flagged, abs=2 / 300)
    assert "| LSTM |" in found.markdown().replace("**", "")
    assert found.to_dict()["rows"][0]["model"] == "LSTM"
    assert "composite F1" in found.verdict()


def test_sensors_that_tell_nothing_are_named_and_left_out_of_the_score() -> None:
    table = machine().with_columns(pl.lit(None, pl.Float64).alias("off"), pl.lit(5.0).alias("fixed"))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model = Detector(time="t", target="odd", config=QUICK).fit(table[:400])
    said = " ".join(str(w.message) for w in seen)
    assert "'off': no value is observed" in said
    assert "'fixed': the value never changes" in said
    assert model.columns_ == ("a", "b", "fixed")
    changed = table.with_columns(pl.when(pl.col("t") == 450).then(6.0).otherwise(5.0).alias("fixed"))
    found = model.predict(changed)
    assert found["anomaly"][450]
    assert found["because"][450].split(", ")[0] == "fixed"


def test_a_training_that_was_stopped_goes_on(tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, steps=60, least_steps=60, checkpoint_every=20)
    place = tmp_path / "c"
    whole = Detector(time="t", target="odd", config=config).fit(machine()[:400], checkpoint=place)
    again = Detector(time="t", target="odd", config=config).fit(machine()[:400], checkpoint=place, resume=True)
    np.testing.assert_array_equal(whole.scores(machine()), again.scores(machine()))


BAD = [
    ({"method": "magic"}, "method must be forecast or autoencoder"),
    ({"reference": "past"}, "reference must be training or history"),
    ({"rest": -1}, "rest must be a whole number"),
    ({"rest": 3}, "rest is about reference='history'"),
    ({"scoring": {"smooth": 1}}, "scoring must be a DetectConfig"),
    ({"target": "missing"}, "missing"),
    ({"features": ["name"]}, "no number column has values to learn from"),
]


@pytest.mark.parametrize(("given", "said"), BAD)
def test_bad_parameters_are_refused(given: dict, said: str) -> None:
    table = machine().with_columns(pl.when(pl.col("t") % 2 == 0).then(pl.lit("x")).otherwise(pl.lit("y")).alias("name"))
    with pytest.raises(CarouselError, match=said):
        Detector(**({"time": "t", "config": QUICK} | given)).fit(table)


def test_bad_data_are_refused(fitted: Detector) -> None:
    with pytest.raises(DataError, match="24 rows are left to learn from, at least 32 are needed"):
        Detector(time="t", config=QUICK).fit(machine()[:30])
    with pytest.raises(DataError, match="0 rows are left"):
        Detector(time="t", target="odd", config=QUICK).fit(machine()[600:640])
    with pytest.raises(DataError, match=r"y\[0\] has 3 labels, and the sequence 50 rows"):
        Detector(config=QUICK).fit([np.zeros((50, 1))], [[0, 1, 0]])
    with pytest.raises(DataError, match="neither 0"):
        Detector(time="t", target="odd", config=QUICK).fit(machine().with_columns(odd=pl.lit(2)))
    with pytest.raises(DataError, match=r"column 'b'|'b'"):
        fitted.predict(machine().drop("b"))
    with pytest.raises(CarouselError, match="gap must be a whole number"):
        fitted.intervals(machine(), gap=-1)
    with pytest.raises(CarouselError, match="not fitted yet"):
        Detector().predict(machine())
    with pytest.raises(ValueError, match="risk must be a share"):
        DetectConfig(risk=0.0)
    for smooth in ((), (0,), (1.5,), (True,)):
        with pytest.raises(ValueError, match="smooth and level must be rows"):
            DetectConfig(smooth=smooth)
    scattered = machine().with_columns(odd=(pl.col("t") % 3 != 0).cast(pl.Int64))
    with pytest.raises(DataError, match="lie too far apart"):
        Detector(time="t", target="odd", config=QUICK).fit(scattered)
    gone = machine().with_columns(pl.lit(None, pl.Float64).alias("a"), pl.lit(None, pl.Float64).alias("b"))
    with pytest.warns(UserWarning, match="no value is observed"), pytest.raises(DataError, match="no number column"):
        Detector(time="t", target="odd", config=QUICK).fit(gone)
    with pytest.raises(DataError, match="infinite"):
        fitted.predict(machine().with_columns(pl.lit(np.inf).alias("a")))


def test_scikit_learn_clones_it() -> None:
    from sklearn.base import clone

    model = Detector(time="t", scoring=DetectConfig(risk=0.01), config=QUICK)
    assert clone(model).get_params() == model.get_params()
