"""One label or number for each sequence: the read-out, the module, the estimator, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch

from carousel import CarouselError, CellSpec, Classifier, DataError, Ragged, TrainConfig, cli, modelfile
from carousel.cell import step
from carousel.config import ModelConfig, StackConfig
from carousel.errors import ModelFileError
from carousel.heads.calibration import conformal_errors, fit_temperature
from carousel.heads.classify import ClassifyHead, class_values, probabilities
from carousel.heads.classify_net import pool
from carousel.heads.tag import TagHead
from carousel.inputs.labels import Labels, label_array, label_column
from carousel.inputs.roles import Roles
from carousel.inputs.sequence import Channel, Channels, SequenceInput
from carousel.model import build, sequence_batch
from carousel.sequences import outputs

QUICK = TrainConfig(
    steps=60, hidden_size=8, least_steps=20, warmup=5, batch_size=16, width=0, learning_rate=0.02, evaluate_every=20
)


def config(task: str = "classify", **stack) -> ModelConfig:
    columns = (
        Channel("x", "number", gaps=True),
        Channel("c", "category", values=("a", "b", "c")),
        Channel("y", "number"),
    )
    static = (Channel("s", "number"), Channel("k", "hash", buckets=4))
    names = [tuple(c.name for c in part) for part in (columns, static)]
    roles = Roles("who", "at", features=names[0], static=names[1])
    seen = SequenceInput(roles, False, True, 2.0, (), columns, static)
    head = (
        ClassifyHead("label", "attention", 5, ("p", "q", "r")) if task == "classify" else TagHead("event", 0, ahead=3.0)
    )
    return ModelConfig(task, seen, StackConfig(6, **stack), head)


def batch(seen: SequenceInput, lengths=(7, 1, 12, 3), seed: int = 0) -> Channels:
    rng = np.random.default_rng(seed)
    n, b = sum(lengths), len(lengths)
    return seen.transform(
        np.concatenate([np.cumsum(rng.exponential(2.0, k)) for k in lengths]),
        np.where(rng.random((n, 2)) < 0.3, np.nan, rng.normal(size=(n, 2))),
        rng.integers(0, 5, (n, 1)),
        np.cumsum([0, *lengths]),
        rng.normal(size=(b, 1)),
        rng.integers(0, 6, (b, 1)),
    )


@pytest.mark.parametrize(
    "stack",
    [
        {},
        {"num_layers": 2, "bidirectional": True},
        {"cell": CellSpec(decay=True, peephole=True), "num_layers": 2},
        {"cell": CellSpec(proj_size=3), "bidirectional": True},
    ],
)
@pytest.mark.parametrize("task", ["classify", "tag"])
def test_the_weights_are_those_that_the_config_names(task, stack):
    made = config(task, **stack)
    own = {name: tuple(value.shape) for name, value in build(made).state_dict().items()}
    assert own == made.member_shapes()


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("directions", [1, 2])
def test_pooling_looks_at_each_sequence_alone(pooling, directions):
    rng = np.random.default_rng(1)
    values, offsets = rng.normal(size=(23, 4)) - 5.0, np.cumsum([0, 7, 1, 12, 3])
    score = rng.normal(size=23) * 3
    made = pool(Ragged(torch.tensor(values), torch.tensor(offsets)), pooling, directions, torch.tensor(score))
    for b, (start, end) in enumerate(pairwise(offsets)):
        rows, weight = values[start:end], np.exp(score[start:end])
        expected = {
            "last": rows[-1] if directions == 1 else np.concatenate([rows[-1, :2], rows[0, 2:]]),
            "mean": rows.mean(0),
            "max": rows.max(0),
            "attention": (rows * weight[:, None]).sum(0) / weight.sum(),
        }[pooling]
        np.testing.assert_allclose(made[b], expected, rtol=1e-12)


def forward_by_hand(made: ModelConfig, weights: dict[str, np.ndarray], seen: Channels, b: int) -> np.ndarray:
    """One sequence through embeddings, initial state, cell and head, step by step in float64."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    start, end = seen.offsets[b], seen.offsets[b + 1]
    static = np.concatenate([seen.static[b], w["input.embed.1.weight"][seen.static_codes[b, 0]]])
    initial = w["static.weight"] @ static + w["static.bias"]
    h, c = initial[None, :6], initial[None, 6:]
    cell = {name.removeprefix("stack.").removesuffix("_l0"): v for name, v in w.items() if name.startswith("stack.")}
    rows = []
    for r in range(start, end):
        x = np.concatenate([seen.values[r], w["input.embed.0.weight"][seen.codes[r, 0]], static])
        h, c, *_ = step(made.stack.cell, cell, x[None], h, c, seen.elapsed[r : r + 1].astype(np.float64))
        rows.append(h[0])
    rows = np.array(rows)
    if made.task == "tag":
        return rows @ w["head.out.weight"].T + w["head.out.bias"]
    weight = np.exp(rows @ w["head.attention.weight"][0])
    pooled = (rows * weight[:, None]).sum(0) / weight.sum()
    hidden = np.maximum(w["head.hidden.weight"] @ pooled + w["head.hidden.bias"], 0)
    return w["head.out.weight"] @ hidden + w["head.out.bias"]


@pytest.mark.parametrize("task", ["classify", "tag"])
def test_the_model_is_what_its_parts_say(task):
    made = config(task, cell=CellSpec(decay=True))
    member = build(made).eval()
    seen = batch(made.input)
    weights = {name: value.numpy() for name, value in member.state_dict().items()}
    expected = [forward_by_hand(made, weights, seen, b) for b in range(4)]
    found = outputs([member], seen, per_row=task == "tag")
    expected = np.concatenate(expected) if task == "tag" else np.stack(expected)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-6)  # float32 against float64


def test_an_ensemble_is_the_mean_of_its_members_outputs():
    made = config()
    one, two, seen = build(made).eval(), build(made).eval(), batch(made.input)
    each = [outputs([member], seen, per_row=False) for member in (one, two)]
    np.testing.assert_allclose(outputs([one, two], seen, per_row=False), np.mean(each, 0), rtol=1e-6)
    part = outputs([one], seen, np.array([2, 0]), per_row=False)
    np.testing.assert_allclose(part[[0, 2]], each[0][[0, 2]], rtol=1e-5)
    assert np.isnan(part[[1, 3]]).all()
    with torch.no_grad():
        np.testing.assert_allclose(one(sequence_batch(seen)).numpy(), each[0], rtol=1e-5)


def test_temperature_is_the_most_likely_one():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(4000, 3)) * 2
    p = probabilities(logits, 2.5)
    truth = (p.cumsum(1) < rng.random((4000, 1))).sum(1).astype(float)
    assert fit_temperature(logits, truth, np.ones(4000)) == pytest.approx(2.5, rel=0.1)
    grid = np.exp(np.linspace(np.log(0.2), np.log(5), 2001))
    loss = [-np.log(probabilities(logits, t)[np.arange(4000), truth.astype(int)]).sum() for t in grid]
    assert fit_temperature(logits, truth, np.ones(4000)) == pytest.approx(grid[np.argmin(loss)], rel=0.01)
    assert fit_temperature(logits[:9], truth[:9], np.ones(9)) == 1.0
    assert probabilities(np.array([[1e4, 0.0]]), 1.0).tolist() == [[1.0, 0.0]]


def test_conformal_errors_cover_what_they_promise():
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(400):
        low, high = conformal_errors(rng.normal(size=39), (0.05, 0.95))
        new = rng.normal(size=50)
        inside.append(((new >= low) & (new <= high)).mean())
    assert 0.89 < np.mean(inside) < 0.92  # 90 % or a little more, in expectation
    assert conformal_errors(np.arange(9.0), (0.1, 0.9)) == (0.0, 0.0)


def test_labels_of_every_type_come_back_as_they_were():
    for given, type_ in (
        (["b", "a", "b"], "text"),
        ([3, 1, 3], "integer"),
        ([1.0, 0.0, 1.0], "number"),
        ([True, False, True], "boolean"),
    ):
        found = label_array(given, "label")
        assert (found.values.tolist(), found.type) == ([1, 0, 1], type_)
        back = class_values(found.classes, found.type)[[1, 0, 1]].tolist()
        assert back == given
        assert [type(value) for value in back] == [type(value) for value in given]
    with pytest.raises(DataError, match=r"numbers like 0\.5 are continuous"):
        label_array([0.5, 1.0], "label")
    import narwhals as nw

    column = nw.from_native(pl.Series("y", ["u", None, "v"]), series_only=True)
    found = label_column(column, "label", "data")
    assert found.classes == ("u", "v")
    np.testing.assert_array_equal(found.values, [0, np.nan, 1])
    np.testing.assert_array_equal(found.among(("v", "w", "u"), "data"), [2, np.nan, 0])
    with pytest.raises(DataError, match=r"data: the label 'v' was not among those of training \('u', 'w'\)"):
        found.among(("u", "w"), "data")
    assert Labels(np.array([np.nan])).among((), "data").shape == (1,)
    assert label_array([2, 0, 2], "label").among(("0.0", "2.0"), "y").tolist() == [1, 0, 1]
    assert label_array([2.0, np.nan, 0.0], "label").among(("0", "1", "2"), "y")[[0, 2]].tolist() == [2, 0]
    with pytest.raises(DataError, match=r"y: the label '1' was not among those of training \('0.0', '2.0'\)"):
        label_array([1], "label").among(("0.0", "2.0"), "y")
    with pytest.raises(DataError, match="a value is too large to compute with"):
        label_array([1.0, -1e300], "regression")


def people(count: int = 60, seed: int = 0, uneven: bool = True) -> pl.DataFrame:
    """The label is whether the pulse is high; in every other row only, with a ward and an age that tell nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(count):
        time = 0.0
        for step_ in range(int(rng.integers(3, 12))):
            time += rng.exponential(9.0) if uneven else 1.0
            pulse = rng.normal() + 2.0 * (k % 2) if step_ % 2 == 0 else None
            rows.append((f"p{k:02d}", time, pulse, "uvw"[k % 3], 30.0 + k, "ill" if k % 2 else "well", 3.0 * (k % 2)))
    return pl.DataFrame(rows, schema=["who", "at", "pulse", "ward", "age", "state", "score"], orient="row")


def classifier(**more) -> Classifier:
    given = {"id": "who", "time": "at", "features": ("pulse", "ward"), "static": ("age",), "config": QUICK} | more
    return Classifier(given.pop("target", "state"), **given)


def test_labels_are_learned_and_the_file_gives_the_same(tmp_path):
    frame = people()
    model = classifier(seeds=2, pooling="attention").fit(frame)
    assert model.config_.input.uneven
    assert model.config_.stack.cell.decay  # on by default where time is uneven
    assert model.config_.input.roles.target == ("state",)
    found = model.predict(frame)
    assert found.columns == ["who", "prediction", "p_ill", "p_well"]
    assert found["who"].to_list() == sorted(set(frame["who"]))
    np.testing.assert_allclose(found["p_ill"] + found["p_well"], 1.0)
    assert model.score(people(seed=1)) > 0.8
    assert model.score(frame) == (found["prediction"] == np.array(["well", "ill"] * 30)).mean()
    np.testing.assert_array_equal(model.predict_proba(frame)[:, 0], found["p_ill"])
    assert 0.2 < model.config_.head.temperature < 5.0
    path = tmp_path / "m.safetensors"
    model.save(path)
    again = Classifier.load(path)
    assert again.predict(frame).equals(found)
    assert again.get_params() == model.get_params() | {"config": QUICK, "categorical": ()}
    assert again.predict(frame.to_pandas())["p_ill"].tolist() == found["p_ill"].to_list()
    # the rows' order does not matter, nor does the target have to be there
    assert again.predict(frame.drop("state").sort("pulse", "who", "at").sort("at")).equals(found)


def test_a_number_for_each_sequence_with_calibrated_quantiles():
    model = classifier(target="score", kind="regression", features=("pulse",), static=()).fit(people(120))
    new = people(100, seed=2)
    found = model.predict(new)
    assert found.columns == ["who", "prediction", "q0.05", "q0.95"]
    assert model.score(new) > 0.4
    assert (found["q0.05"] <= found["q0.95"]).all()
    truth = new.group_by("who").first().sort("who")["score"]
    assert ((truth >= found["q0.05"]) & (truth <= found["q0.95"])).mean() > 0.75
    with pytest.raises(AttributeError, match="no predict_proba"):
        model.predict_proba(new)


def test_labels_from_a_table_of_their_own():
    frame = people()
    labels = frame.group_by("who").first().select("who", "state").sample(fraction=1.0, shuffle=True, seed=1)
    one = classifier().fit(frame.drop("state"), labels=labels)
    two = classifier().fit(frame)
    assert one.predict(frame).equals(two.predict(frame))
    assert one.score(frame.drop("state"), labels=labels) == two.score(frame)
    with pytest.raises(DataError, match="'p01' is labelled more than once"):
        classifier().fit(frame, labels=pl.concat([labels, labels.filter(pl.col("who") == "p01")]))
    with pytest.raises(DataError, match="data: sequence 'p00' has no label"):
        classifier().fit(frame, labels=labels.filter(pl.col("who") != "p00"))


def test_events_give_the_same_as_the_wide_table():
    frame = people().with_columns(flow=pl.col("pulse") * 2)
    long = frame.unpivot(
        ["pulse", "flow"], index=["who", "at", "age", "state"], variable_name="what", value_name="read"
    )
    narrow = classifier(features=None, long=("what", "read")).fit(long.drop_nulls("read"))
    seen = frame.drop_nulls("pulse")
    wide = classifier(features=("flow", "pulse")).fit(seen)
    assert narrow.predict(long.drop_nulls("read")).equals(wide.predict(seen))
    assert narrow.config_.input.roles.features == ("flow", "pulse")


def test_arrays_in_every_shape_and_types_of_labels():
    rng = np.random.default_rng(6)
    ragged = [rng.normal(size=(int(rng.integers(1, 9)), 2)) + 2 * (k % 2) for k in range(40)]
    labels = ["dog" if k % 2 else "cat" for k in range(40)]
    model = Classifier(config=QUICK).fit(ragged, labels)
    assert model.classes_.tolist() == ["cat", "dog"]
    assert model.score(ragged, labels) > 0.8
    assert model.predict(ragged[:3]).tolist()[1] == "dog"
    cube = rng.normal(size=(40, 5, 2)) + 2 * (np.arange(40) % 2)[:, None, None]
    model = Classifier(config=QUICK, pooling="max").fit(cube, np.arange(40) % 2 == 1)
    assert model.classes_.tolist() == [False, True]
    assert model.predict_proba(cube).shape == (40, 2)
    with pytest.raises(DataError, match="X has 3 features, but Classifier is expecting 2"):
        model.predict(rng.normal(size=(4, 5, 3)))
    held = Classifier(config=QUICK).fit(ragged[:30], labels[:30], valid=(ragged[30:], labels[30:]))
    assert held.provenance_["metrics"]["validation_accuracy"] > 0.5


def test_a_loaded_model_is_fitted_anew_as_it_was(tmp_path):
    x = [np.ones((3, 1)) * k for k in range(20)]
    made = Classifier(class_weight={0: 2.0, 1: 1.0}, config=QUICK).fit(x, np.arange(20) % 2)
    made.save(tmp_path / "m.safetensors")
    assert Classifier.load(tmp_path / "m.safetensors").class_weight == {"0": 2.0, "1": 1.0}


def test_class_weights_move_the_balance():
    rng = np.random.default_rng(7)
    y = (np.arange(200) % 10 == 0).astype(int)
    x = [rng.normal(size=(5, 1)) + 0.7 * k for k in y]
    share = []
    for weight in (None, "balanced", {0: 1.0, 1: 30.0}):
        config_ = dataclasses.replace(QUICK, holdout=0.0)
        share.append(Classifier(class_weight=weight, config=config_).fit(x, y).predict(x).mean())
    assert share[0] < share[1] < share[2]
    with pytest.raises(CarouselError, match="class_weight names '7', which is no label"):
        Classifier(class_weight={7: 2.0}, config=QUICK).fit(x, y)


def test_an_interrupted_fit_goes_on_bit_for_bit(tmp_path):
    frame, place = people(), tmp_path / "c"
    settings = dataclasses.replace(QUICK, checkpoint_every=7, dropout=0.3, hide=0.2, crop=5, unseen=0.3, replicate=0.4)
    whole = classifier(config=settings, seeds=2).fit(frame)

    class Stop(Exception):
        pass

    for there in ((30, 0, False), (15, 1, False), (8, 1, True)):

        def stop(event, there=there):
            if (event.step, event.member, event.again) == there:
                raise Stop

        place.unlink(missing_ok=True)
        with pytest.raises(Stop):
            classifier(config=settings, seeds=2).fit(frame, checkpoint=place, progress=stop)
        on = classifier(config=settings, seeds=2).fit(frame, checkpoint=place, resume=True)
        assert all(np.array_equal(on._weights[name], value) for name, value in whole._weights.items())
        assert on.config_ == whole.config_


BAD = {
    "one class": (
        lambda f: f.with_columns(state=pl.lit("ill")),
        {},
        "all sequences have the label 'ill', one class only",
    ),
    "a label that changes": (
        lambda f: f.with_columns(state=pl.when(pl.int_range(pl.len()) == 1).then(pl.lit("odd")).otherwise("state")),
        {},
        "row 2, column 'state': the label changes within sequence 'p00'",
    ),
    "a label missing": (
        lambda f: f.with_columns(state=pl.when(pl.col("who") == "p03").then(None).otherwise("state")),
        {},
        "sequence 'p03' has no label",
    ),
    "no target": (lambda f: f, {"target": None}, "name the target"),
    "no such target": (lambda f: f, {"target": "stat"}, "no column 'stat'; did you mean 'state'"),
    "text as a number": (lambda f: f, {"kind": "regression"}, "row 1, column 'state': 'well' is not a number"),
    "a kind": (lambda f: f, {"kind": "guess"}, "kind must be label or regression"),
    "a pooling": (lambda f: f, {"pooling": "sum"}, "pooling must be last, mean, max or attention"),
    "a weight": (lambda f: f, {"class_weight": "fair"}, "class_weight must be None, 'balanced' or a weight"),
    "seeds": (lambda f: f, {"seeds": 0}, "seeds must be a whole number"),
    "long": (lambda f: f, {"long": "what"}, "long must name two columns"),
    "config": (lambda f: f, {"config": {"steps": 3}}, "config must be a TrainConfig"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_learned_is_refused_in_one_sentence(case):
    change, parameters, message = BAD[case]
    with pytest.raises(CarouselError, match=message):
        classifier(**parameters).fit(change(people()))


def test_ids_on_both_sides_and_unknown_labels_are_refused():
    frame = people()
    with pytest.raises(DataError, match="valid: sequence 'p05' is in the data as well"):
        classifier().fit(frame, valid=frame.filter(pl.col("who") == "p05"))
    model = classifier().fit(frame.filter(pl.col("who") < "p40"), valid=frame.filter(pl.col("who") >= "p40"))
    with pytest.raises(DataError, match="the label 'dead' was not among those of training"):
        model.score(frame.with_columns(state=pl.lit("dead")))
    with pytest.raises(DataError, match="no column 'pulse'"):
        model.predict(frame.drop("pulse"))
    with pytest.raises(CarouselError, match="y goes with arrays"):
        model.score(frame, [1, 2])


def test_categories_and_sensors_that_training_never_saw():
    model = classifier(config=dataclasses.replace(QUICK, unseen=0.2)).fit(people())
    new = people(seed=3).with_columns(ward=pl.lit("x"))
    assert model.score(new) > 0.7
    assert np.isfinite(model.predict_proba(new.with_columns(pulse=pl.lit(None, pl.Float64)))).all()
    with pytest.warns(UserWarning, match="column 'flow': no value is observed"):
        classifier(features=("pulse", "flow")).fit(people().with_columns(flow=pl.lit(None, pl.Float64)))


def test_heads_refuse_what_they_cannot_be(tmp_path):
    for wrong, message in (
        ({"classes": ("a",)}, "two classes or more"),
        ({"classes": ("a", "a")}, "classes must differ"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"quantiles": (0.9, 0.1)}, "quantiles must ascend"),
        ({"width": -1}, "width must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(ClassifyHead("label", "last", 0, ("a", "b")), **wrong)
    with pytest.raises(ValueError, match="the head of task tag is a TagHead"):
        dataclasses.replace(config(), task="tag")
    model = classifier().fit(people())
    model.save(tmp_path / "m.safetensors")
    _, document = modelfile.read(tmp_path / "m.safetensors")
    document["model"]["head"]["classes"] = ["only"]
    with pytest.raises(ModelFileError, match="two classes or more"):
        ModelConfig.from_json(document["model"])
    from carousel import Tagger

    with pytest.raises(CarouselError, match="the model is for the task classify, not tag"):
        Tagger.load(tmp_path / "m.safetensors")


def test_the_command_line_fits_and_predicts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frame = people()
    frame.drop("state").write_csv("data.csv")
    frame.group_by("who").first().select("who", "state").write_csv("labels.csv")
    settings = [f"--set={name}" for name in ("steps=20", "hidden_size=4", "least_steps=10", "warmup=2", "width=3")]
    fit = ["fit", "classify", "data.csv", "--id=who", "--time=at", "--target=state", "--labels=labels.csv", *settings]
    fit += ["--features=pulse,ward", "--static=age", "--pooling=last", "--class-weight=balanced"]
    assert cli.run([*fit, "--out=m.safetensors"]) == 0
    assert capsys.readouterr().out.startswith(f"m.safetensors: 60 sequences, {frame.height} rows, fitted in ")
    assert cli.run(["predict", "m.safetensors", "data.csv", "--out=p.csv"]) == 0
    model = Classifier.load("m.safetensors")
    assert pl.read_csv("p.csv").equals(model.predict(frame))
    assert cli.run([*fit, "--seeds=2", "--json", "--out=n.safetensors"]) == 0
    assert json.loads(capsys.readouterr().out)["provenance"]["sequences"] == 60
    for wrong, message in (
        (["predict", "m.safetensors", "data.csv", "--future=data.csv"], "--future is for forecasts"),
        ([*fit, "--ahead=6h", "--out=x.safetensors"], "--ahead does not apply to fit classify, only to tag"),
        ([*fit, "--valid=data.csv", "--out=x.safetensors"], "data.csv: sequence 'p00' is in the data as well"),
        (["fit", "classify", "data.csv", "--id=who", "--out=x.safetensors"], "Missing option '--target'"),
    ):
        assert cli.run(wrong) == 2
        assert message in capsys.readouterr().err
