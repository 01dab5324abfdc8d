"""Whole models on ONNX Runtime beside `predict`: the same raw tables in, in original units out; pieces; and mutants."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
import torch

from carousel import Classifier, DataError, Detector, Forecaster, NotSupported, Tagger, Translator, modelfile
from carousel.cell import CellSpec
from carousel.config import TASKS, ModelConfig, StackConfig
from carousel.export import onnx as onnx_export
from carousel.export import onnx_channels, onnx_detect, onnx_forecast, onnx_rows, onnx_windows
from carousel.export.layers import stack_of
from carousel.export.onnx_feeds import feeds, start
from carousel.heads.classify import ClassifyHead
from carousel.heads.detect import DetectHead, View
from carousel.heads.forecast import DEFAULT_QUANTILES, ForecastHead
from carousel.heads.generate import GenerateHead
from carousel.heads.search import Beam
from carousel.heads.tag import TagHead
from carousel.heads.translate import TranslateHead
from carousel.inputs.clock import Grid
from carousel.inputs.dialogues import DialogueInput
from carousel.inputs.fitted import Column, TableInput
from carousel.inputs.roles import Roles
from carousel.inputs.sequence import Channel, SequenceInput
from carousel.inputs.text import END, PairInput, TextInput, fit_vocabulary
from carousel.model import members_from
from onnx_cases import RELATIVE, run, session
from stream_cases import changed, classifier, detector, frame, rich_rows, tagger, write

HOUR = 3600.0
FACTORS = (1.3, 1.2, 1.1, 1.0, 1.1, 1.2, 1.3)
LENGTHS = (40, 1, 7, 23)


def close(found: Any, expected: Any) -> None:
    """Relative to the largest number, column by column; missing where the other is."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    scale = np.nanmax(np.abs(expected), axis=0, keepdims=True)
    worst = float(np.nanmax(np.abs(found - expected) / np.where(scale > 0, scale, 1)))
    assert worst <= RELATIVE, f"differs by {worst:.1e} of the largest"


# forecasts


def table(grid: Grid, *, stamps: bool = False, rich: bool = False, targets: int = 1, level: Any = "last") -> TableInput:
    features = (Column("heat", "number", 10.0, 4.0), Column("kind", "category", values=("a", "b"))) if rich else ()
    known = (Column("price", "number", 3.0, 1.5), Column("day", "category", values=("free", "work"))) if rich else ()
    static = (Column("size", "number", 5.0, 2.0), Column("city", "category", values=("Bonn", "Rome"))) if rich else ()
    names = ("y", "z")[:targets]
    roles = Roles("who", "t", names, *(tuple(c.name for c in part) for part in (features, static, known)))
    seasons = () if grid.kind == "uneven" else (3, 12)
    calendar = ("minute_of_hour", "hour_of_day", "day_of_week", "day_of_month", "day_of_year") if stamps else ()
    return TableInput(roles, grid, stamps, 14, 5, seasons, level, calendar, features, known, static)


def forecaster(seen: TableInput, *, seeds: int = 1, **cell: Any) -> ModelConfig:
    head = ForecastHead(DEFAULT_QUANTILES, 7, FACTORS)
    return ModelConfig("forecast", seen, StackConfig(9, 2, 0.0, CellSpec(**cell)), head, seeds)


def series(
    *, step: float, stamps: bool = False, uneven: bool = False, rich: bool = False, ahead: int = 0
) -> pl.DataFrame:
    """Three series of different lengths with gaps; `ahead` rows more that have known columns only."""
    rng = np.random.default_rng(5)
    parts = []
    for name, length in (("a", 60), ("b", 23), ("c", 6)):
        n = length + ahead
        t = np.cumsum(rng.exponential(step, n)).round(3) if uneven else step * np.arange(n)
        y = 1e4 + 10 * np.sin(np.arange(n) / 2) + rng.normal(size=n)
        z = np.abs(rng.standard_cauchy(n))
        for part in (y, z):
            part[3:][rng.random(n - 3) < 0.2] = np.nan
            part[length - 1] = 4.0
            part[length:] = np.nan
        when = [datetime(2023, 12, 27) + timedelta(seconds=float(s)) for s in t] if stamps else t
        heat = np.where(rng.random(n) < 0.3, np.nan, rng.normal(10, 4, n))
        columns = {"who": [name] * n, "t": when, "y": y, "z": z, "heat": heat, "kind": rng.choice(["a", "b", "new"], n)}
        columns |= {"price": rng.normal(3, 2, n), "day": rng.choice(["free", "work"], n)}
        parts.append(pl.DataFrame(columns | {"size": [float(length)] * n, "city": [f"Bonn{name}"[:5]] * n}))
    made = pl.concat(parts).with_columns(pl.col("y", "z", "heat").fill_nan(None))
    return made if rich else made.select("who", "t", "y", "z")


def check_forecast(config: ModelConfig, data: pl.DataFrame, folder: Path) -> None:
    path = write(config, folder)
    found = run(onnx_export.model_graph(path), feeds(path, data))
    targets = len(config.input.roles.target)
    expected = Forecaster.load(path).predict(data.select(config.input.roles.columns))
    quantiles = expected.select([f"q{q:g}" for q in DEFAULT_QUANTILES]).to_numpy()
    shape = (3, config.input.horizon, targets, len(DEFAULT_QUANTILES))
    for k in range(targets):
        close(
            found["quantiles"][:, :, k].reshape(-1, shape[-1]), quantiles.reshape(shape)[:, :, k].reshape(-1, shape[-1])
        )
    np.testing.assert_array_equal(found["forecast"], found["quantiles"][..., config.head.median])


EVEN, HOURS, UNEVEN = Grid("even", 2.0), Grid("even", HOUR), Grid("uneven", 2.0)


@pytest.mark.parametrize(
    ("config", "data"),
    [
        (forecaster(table(EVEN)), {"step": 2.0}),
        (forecaster(table(EVEN, targets=2, level="mean"), seeds=2, layer_norm=True), {"step": 2.0}),
        (forecaster(table(EVEN, rich=True, level="mean"), peephole=True), {"step": 2.0, "rich": True, "ahead": 5}),
        (forecaster(table(HOURS, stamps=True), coupled=True), {"step": HOUR, "stamps": True}),
        (forecaster(table(Grid("even", 5 * 86400.0), stamps=True)), {"step": 5 * 86400.0, "stamps": True}),
        (forecaster(table(UNEVEN), decay=True), {"step": 2.0, "uneven": True}),
        (
            forecaster(table(dataclasses.replace(UNEVEN, step=HOUR), stamps=True, rich=True), decay=True, proj_size=4),
            {"step": HOUR, "uneven": True, "stamps": True, "rich": True, "ahead": 5},
        ),
    ],
    ids=["plain", "targets", "covariates", "hours", "days", "uneven", "uneven with covariates"],
)
def test_forecasts_are_those_of_predict(config: ModelConfig, data: dict[str, Any], tmp_path: Path) -> None:
    check_forecast(config, series(**data), tmp_path)


# sequences


def sequences(stamps: bool = True) -> pl.DataFrame:
    rows = [row for k, n in enumerate(LENGTHS) for row in rich_rows(n, k, who="dbca"[k], stamps=stamps)]
    return frame(rows)


def live(values: Any) -> Any:
    """Rows of padded [B, T, ...] one behind the other, in the order of `sequences`."""
    order = ["abcd".index(name) for name in "dbca"]  # in the graph they are sorted by id
    return np.concatenate([values[b, :n] for b, n in zip(order, LENGTHS, strict=True)])


def columns(table: pl.DataFrame, prefix: str) -> Any:
    return table.select(name for name in table.columns if name.startswith(prefix)).to_numpy()


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_classes_are_those_of_predict(pooling: str, bidirectional: bool, tmp_path: Path) -> None:
    config = changed(classifier(pooling, width=4 if bidirectional else 0, seeds=2), bidirectional=bidirectional)
    path, data = write(config, tmp_path), sequences()
    found = run(onnx_export.model_graph(path), feeds(path, data))
    expected = Classifier.load(path).predict(data)
    close(found["probabilities"], columns(expected, "p_"))
    assert [config.head.classes[k] for k in found["prediction"]] == expected["prediction"].to_list()


def test_numbers_of_sequences_are_those_of_predict(tmp_path: Path) -> None:
    path, data = write(classifier("mean", kind="regression"), tmp_path), sequences()
    found = run(onnx_export.model_graph(path), feeds(path, data))
    expected = Classifier.load(path).predict(data)
    close(found["prediction"], expected["prediction"].to_numpy())
    close(found["quantiles"], columns(expected, "q"))


def tagged(config: ModelConfig, folder: Path) -> tuple[Path, pl.DataFrame, pl.DataFrame]:
    path, data = write(config, folder), sequences(config.input.stamps)
    return path, data, Tagger.load(path).predict(data)


@pytest.mark.parametrize("kind", ["label", "event", "regression"])
def test_tags_are_those_of_predict(kind: str, tmp_path: Path) -> None:
    config = tagger(kind, stamps=kind != "event")
    path, data, expected = tagged(config, tmp_path)
    found = run(onnx_export.model_graph(path), feeds(path, data) | start(path, 4))
    if kind == "label":
        close(live(found["probabilities"]), columns(expected, "p_"))
        assert live(found["prediction"]).tolist() == expected["prediction"].to_list()
    elif kind == "event":
        close(live(found["probability"]), expected["probability"].to_numpy())
        assert live(found["alarm"]).tolist() == expected["alarm"].to_list()
    else:
        close(live(found["prediction"]), expected["prediction"].to_numpy())
        close(live(found["quantiles"]), columns(expected, "q"))


def pieces(path: Path, data: pl.DataFrame, sizes: tuple[int, ...], output: str) -> Any:
    """A graph on pieces of the rows, each with the state that the one before left."""
    made, fed, state = session(onnx_export.model_graph(path)), feeds(path, data), start(path, 4)
    names = [one.name for one in made.get_outputs()]
    begin, found = 0, []
    for size in sizes:
        here = {n: v[:, begin : begin + size] if v.ndim > 1 and v.shape[1] == 40 else v for n, v in fed.items()}
        here["lengths"] = np.clip(fed["lengths"] - begin, 0, size)
        out = dict(zip(names, made.run(None, here | state), strict=True))
        state = {name: out[f"next_{name}"] for name in state}
        found.append(out[output])
        begin += size
    return np.concatenate(found, 1)


@pytest.mark.parametrize("sizes", [(1,) * 40, (3, 30, 7)])
def test_a_sequence_may_come_in_pieces(sizes: tuple[int, ...], tmp_path: Path) -> None:
    path, data, expected = tagged(tagger(), tmp_path)
    close(live(pieces(path, data, sizes, "probabilities")), columns(expected, "p_"))


def test_taggers_of_both_directions_take_whole_sequences(tmp_path: Path) -> None:
    path, data, expected = tagged(changed(tagger(), bidirectional=True), tmp_path)
    close(live(run(onnx_export.model_graph(path), feeds(path, data))["probabilities"]), columns(expected, "p_"))
    with pytest.raises(NotSupported, match="its graph has no state; whole sequences go in"):
        start(path, 4)


@pytest.mark.parametrize("sizes", [(1,) * 40, (3, 30, 7)])
@pytest.mark.parametrize("reference", ["training", "history"])
def test_a_detector_too_takes_pieces(reference: str, sizes: tuple[int, ...], tmp_path: Path) -> None:
    path, data = write(detector(reference), tmp_path), sequences()
    expected = Detector.load(path).predict(data)
    close(live(pieces(path, data, sizes, "score")), expected["score"].to_numpy())


def autoencoder() -> ModelConfig:
    config = detector()
    head = dataclasses.replace(config.head, method="autoencoder", window=6, code=3)
    return dataclasses.replace(config, head=head)


@pytest.mark.parametrize("kind", ["training", "history", "autoencoder"])
def test_scores_are_those_of_predict(kind: str, tmp_path: Path) -> None:
    config = autoencoder() if kind == "autoencoder" else detector(kind, seeds=2)
    config = dataclasses.replace(config, head=dataclasses.replace(config.head, keep=(0.9, 0.4, 1.0)))
    path, data = write(config, tmp_path), sequences()
    fed = feeds(path, data) | ({} if kind == "autoencoder" else start(path, 4))
    found = run(onnx_export.model_graph(path), fed)
    model = Detector.load(path)
    expected = model.predict(data)
    close(live(found["score"]), expected["score"].to_numpy())
    assert live(found["anomaly"]).tolist() == expected["anomaly"].to_list()
    scores = model.scored(model.read(data))
    parts = np.concatenate([found["parts"][b, :n] for b, n in enumerate(feeds(path, data)["lengths"])])
    close(parts, scores.parts)


# mutants, metadata, refusals


KNOWN = {
    CellSpec: "bias peephole coupled layer_norm decay proj_size cell_clip recurrent_dropout zoneout_c zoneout_h"
    " weight_drop",
    StackConfig: "hidden_size num_layers dropout cell bidirectional",
    TableInput: "roles grid stamps context horizon seasons level calendar features known static",
    Column: "name kind mean scale values",
    SequenceInput: "roles stamps uneven unit calendar columns static variable value zone",
    Channel: "name kind mean scale squash values buckets gaps",
    ForecastHead: "quantiles width factors",
    ClassifyHead: "kind pooling width classes type temperature mean scale quantiles errors",
    TagHead: "kind width classes type temperature mean scale quantiles errors ahead threshold",
    DetectHead: "method columns width window code reference rest threshold floor views keep",
    View: "of rows centre spread correlation low high limit largest",
    TextInput: "column words",
    PairInput: "columns source target",
    DialogueInput: "columns source target turns",
    TranslateHead: "embedding attention input_feeding shared encoder_layers dropout",
    GenerateHead: "embedding dropout input_dropout layer_dropout word_dropout",
}


@pytest.mark.parametrize("kind", KNOWN)
def test_every_field_of_a_model_is_known_to_the_graphs(kind: Any) -> None:
    """A new field that changes what a model gives must reach its graph, which builds on the others without a word."""
    assert {field.name for field in dataclasses.fields(kind)} == set(KNOWN[kind].split())


def late(g: Any, config: Any, given: Any) -> Any:
    place = placed(g, config, given)
    return place._replace(following=place.following - 1)


def one_more(g: Any, seen: Any) -> Any:
    return latest(g, seen) - 1


def without_last(head: Any, scaled: Any, seen: Any) -> Any:
    return read_out(dataclasses.replace(head, factors=(1.0,) * 7), scaled, seen)


placed, latest, read_out = onnx_windows._place, onnx_channels._latest, onnx_forecast._read_out


@pytest.mark.parametrize(
    ("module", "name", "mutant", "check"),
    [
        (onnx_windows, "_place", late, "forecast"),
        (onnx_windows, "FAR", 9.0, "forecast"),
        (onnx_windows, "NEVER", 0.0, "forecast"),
        (onnx_forecast, "_read_out", without_last, "forecast"),
        (onnx_rows, "PERIOD", {"hour_of_day": 90000.0}, "forecast"),
        (onnx_channels, "_latest", one_more, "tag"),
        (onnx_channels, "BOUND", 1.0, "tag"),
        (onnx_detect, "SMALLEST", 0.5, "detect"),
        (onnx_detect, "_rested", lambda score, rest, past: score, "detect"),
    ],
)
def test_mutants_are_caught(module: Any, name: str, mutant: Any, check: str, monkeypatch: Any, tmp_path: Path) -> None:
    if isinstance(mutant, dict):
        mutant = onnx_rows.PERIOD | mutant
    monkeypatch.setattr(module, name, mutant)
    config, data = forecaster(table(HOURS, stamps=True, rich=True)), series(step=HOUR, stamps=True, rich=True, ahead=5)
    checks = {
        "forecast": lambda: check_forecast(config, data, tmp_path),
        "tag": lambda: test_tags_are_those_of_predict("label", tmp_path),
        "detect": lambda: test_scores_are_those_of_predict("history", tmp_path),
    }
    with pytest.raises(AssertionError, match="differs by"):
        checks[check]()


def test_the_file_says_what_enters_and_what_comes_out(tmp_path: Path) -> None:
    path = write(tagger(), tmp_path)
    out = tmp_path / "m.onnx"
    found = onnx_export.write(path, out)
    assert found["out"] == [str(out)]
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    said = json.loads(model.metadata_props[0].value)
    assert said["task"] == "tag"
    assert said["codes"]["ward"] == {"missing": 0, "unseen": 1, "first": 2, "values": ["east", "north", "west"]}
    assert said["codes"]["terminal"] == {"missing": 0, "unseen": 1, "first": 2, "buckets": 7}
    assert said["time"] == {"unit": "seconds since 1970-01-01 UTC", "step": 600.0, "zone": None}
    assert said["fingerprint"] == hashlib.sha256(path.read_bytes()).hexdigest()
    about = {one.name: one.doc_string for one in model.graph.input}
    assert about["numbers"] == "columns ['pulse', 'pressure', 'steps']; NaN is missing"
    assert about["codes"] == "columns ['ward', 'terminal']; the codes stand in the metadata"
    assert out.read_bytes() == onnx_export.model_graph(path)


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    path = write(classifier("last", rich=False), tmp_path)
    with pytest.raises(DataError, match="X: arrays of 3 channels are expected, got 2"):
        feeds(path, [np.zeros((4, 2))], source="X")
    with pytest.raises(DataError, match="a model that can classify looks at no rows ahead"):
        feeds(path, [np.zeros((4, 3))], pl.DataFrame())
    path = write(forecaster(table(EVEN)), tmp_path)
    with pytest.raises(DataError, match="future: the model was trained without known columns"):
        feeds(path, series(step=2.0), pl.DataFrame())


def test_arrays_go_in_as_well(tmp_path: Path) -> None:
    path = write(classifier("last", rich=False), tmp_path)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(n, 3)) for n in LENGTHS]
    found = run(onnx_export.model_graph(path), feeds(path, arrays))
    close(found["probabilities"], Classifier.load(path).predict_proba(arrays))


# language models


def language_model(**choices: Any) -> ModelConfig:
    words = fit_vocabulary(["ein haus am see", "ein see am haus"], kind="word", size=300)
    head = GenerateHead(embedding=choices.pop("embedding", 6))
    return ModelConfig("generate", TextInput("text", words), StackConfig(9, 2, 0.0, CellSpec(**choices)), head, seeds=2)


@pytest.mark.parametrize("choices", [{}, {"embedding": 9}, {"layer_norm": True, "proj_size": 4}])
def test_what_follows_each_token_and_pieces(choices: dict[str, Any], tmp_path: Path) -> None:
    config = language_model(**choices)
    path = write(config, tmp_path)
    rng, lengths = np.random.default_rng(0), [9, 1, 4]
    tokens = rng.integers(0, config.input.words.size, (3, 9))
    fed = {"tokens": tokens, "lengths": np.array(lengths)} | start(path, 3)
    found = run(onnx_export.model_graph(path), fed)
    weights, _ = modelfile.read(path)
    with torch.no_grad():
        for b, n in enumerate(lengths):
            reads = [net(torch.from_numpy(tokens[b, :n, None])) for net in members_from(config, weights)]
            expected = torch.stack([read.logits[:, 0].double().softmax(1) for read in reads]).mean(0).log().numpy()
            close(found["log_probabilities"][b, :n], expected)
            h = torch.cat([layer[0] for read in reads for layer in read.states])
            close(found["next_h"][:, b], h[:, 0].numpy())
    made, state = session(onnx_export.model_graph(path)), start(path, 1)
    for k, token in enumerate(tokens[0]):
        step = {"tokens": token.reshape(1, 1), "lengths": np.array([1])}
        log, state["h"], state["c"] = made.run(None, step | state)
        np.testing.assert_allclose(log[0, 0], found["log_probabilities"][0, k], rtol=1e-5)


def test_texts_go_in_as_they_are_sampled_from(tmp_path: Path) -> None:
    path = write(language_model(), tmp_path)
    fed = feeds(path, ["ein see", ""])
    words = language_model().input.words
    assert fed["tokens"].tolist() == [[END, *words.encode(["ein see"])[0]], [END] * 3]
    assert fed["lengths"].tolist() == [3, 1]
    said = json.loads(onnx.load_model_from_string(onnx_export.model_graph(path)).metadata_props[0].value)
    assert said["marks"] == {"begin": 0, "end": 1, "turn": 2}
    assert "haus" in said["vocabulary"]["tokenizer"]
    with pytest.raises(DataError, match="data: a list of texts is expected"):
        feeds(path, "ein see")


# translators


def translator(attention: Any, feeding: bool, shared: bool, seeds: int, **cell: Any) -> ModelConfig:
    source = fit_vocabulary(["ein haus am see", "ein see"], kind="word", size=300)
    target = None if shared else fit_vocabulary(["a house at the lake sees many birds"], kind="word", size=300)
    head = TranslateHead(6, attention, feeding, shared, encoder_layers=2, dropout=0.0)
    pair = PairInput(("de", "en"), source, target)
    return ModelConfig("translate", pair, StackConfig(8, 2, 0.0, CellSpec(**cell)), head, seeds)


SOURCES = ["ein haus am see", "ein see", "haus am see ein see am haus", "am"]


@pytest.mark.parametrize(
    "config",
    [
        translator("general", False, True, 2),
        translator("dot", True, False, 1),
        translator("additive", True, True, 2),
        translator("additive", False, False, 1, layer_norm=True, peephole=True),
    ],
    ids=lambda config: f"{config.head.attention}-{config.head.input_feeding}-{config.seeds}",
)
def test_translations_are_those_of_a_beam_of_one(config: ModelConfig, tmp_path: Path) -> None:
    path = write(config, tmp_path, seed=4)
    expected = Translator.load(path).search(SOURCES, beam=Beam(1, length_penalty=0.0))
    found = run(onnx_export.model_graph(path), feeds(path, SOURCES))
    answers = [row[: int(np.argmax(row == END))] for row in found["translation"]]  # every answer ends
    assert config.input.out.decode(answers) == [hypotheses[0][0] for hypotheses in expected]
    close(found["log_probability"], [hypotheses[0][1] for hypotheses in expected])
    alone = run(onnx_export.model_graph(path), feeds(path, SOURCES[1:2]))
    close(alone["log_probability"], found["log_probability"][1:2])


def test_replies_are_those_to_the_last_turns(tmp_path: Path) -> None:
    config = translator("general", False, True, 1)
    given = DialogueInput(("de", "en"), config.input.source, turns=2)
    path = write(dataclasses.replace(config, input=given), tmp_path, seed=4)
    contexts = ["ein haus\nam see", "am\nein see\nam haus", "see"]
    expected = Translator.load(path).search(contexts, beam=Beam(1, length_penalty=0.0), longest=2.0)
    graph = onnx_export.model_graph(path)
    found = run(graph, feeds(path, contexts))
    answers = [row[: int(np.argmax(row == END))] for row in found["translation"]]
    assert given.out.decode(answers) == [hypotheses[0][0] for hypotheses in expected]
    close(found["log_probability"], [hypotheses[0][1] for hypotheses in expected])
    close(run(graph, feeds(path, [contexts[1].split("\n", 1)[1]]))["log_probability"], found["log_probability"][1:2])
    (metadata,) = (json.loads(p.value) for p in onnx.load_from_string(graph).metadata_props if p.key == "carousel")
    assert metadata["turns"] == 2


def test_translators_have_no_single_lstm_and_no_empty_sources(tmp_path: Path) -> None:
    path = write(translator("general", False, True, 1), tmp_path)
    with pytest.raises(NotSupported, match="a translator has an encoder and a decoder with attention"):
        stack_of(path, None)
    with pytest.raises(DataError, match="lines: text 2 is empty; leave it out"):
        feeds(path, ["ein", ""], source="lines")
    with pytest.raises(NotSupported, match="its graph has no state; whole sequences go in"):
        start(path, 1)


def test_every_task_has_a_graph() -> None:
    assert set(onnx_export.GRAPHS) == set(TASKS)
