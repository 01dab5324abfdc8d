"""Exported C in use: what its functions refuse, states beside each other; and the verb that writes it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from c_cases import DETECTORS, FORECASTERS, SEQUENCES, float_files, forecaster, int8_files, tagger, weights
from carousel import cli, modelfile
from carousel.errors import CarouselError, DataError, NotSupported
from carousel.export import c, write
from carousel.export.c.plan import check_name, plan
from carousel.heads.classify import ClassifyHead
from carousel.heads.tag import TagHead
from carousel.inputs.clock import Grid
from edge import arm
from test_export_c import COMPILER, needs_compiler

REFUSALS = """
#include <stdio.h>
#include <string.h>
#include "uneven.h"
#define CHECK(x) do { if (!(x)) { printf("line %d: %s\\n", __LINE__, #x); return 1; } } while (0)
static uneven_state state, copy, other, lone;
static uneven_row row;
static uneven_known ahead[UNEVEN_HORIZON];
static uneven_static fixed;
static REAL a[UNEVEN_HORIZON][UNEVEN_TARGETS][UNEVEN_QUANTILES], b[UNEVEN_HORIZON][UNEVEN_TARGETS][UNEVEN_QUANTILES];
static void fill(int i)
{
    row.time = i * 3 + 1;
    row.target[0] = i % 4 ? GOOD + i : GONE;
    row.target[1] = GOOD - i;
    row.number[0] = i % 3 ? GONE : 7;
    row.number[1] = 1;
    row.category[0] = i % 4;
    row.category[1] = 2 + i % 2;
}
int main(void)
{
    int i = 0;
    fixed.number[0] = 2;
    fixed.category[0] = 5;
    CHECK(uneven_reset(&state, &fixed) == UNEVEN_CATEGORY);
    fixed.category[0] = 4;
    fixed.number[0] = BAD;
    CHECK(uneven_reset(&state, &fixed) == WRONG);
    fixed.number[0] = 2;
    CHECK(uneven_reset(&state, &fixed) == UNEVEN_OK);
    for (i = 0; i < UNEVEN_HORIZON; i++) ahead[i].category[0] = 2;
    CHECK(uneven_forecast(&state, ahead, a) == UNEVEN_EMPTY);
    uneven_reset(&other, &fixed);
    uneven_reset(&lone, &fixed);
    for (i = 0; i < 40; i++) {
        fill(i);
        CHECK(uneven_push(&state, &row) == UNEVEN_OK);
        CHECK(uneven_push(&lone, &row) == UNEVEN_OK);
        memcpy(&copy, &state, sizeof state);
        row.time -= 1;
        CHECK(i == 0 || uneven_push(&state, &row) == UNEVEN_TIME);
        row.time += 2;
        row.target[0] = BAD;
        CHECK(uneven_push(&state, &row) == WRONG);
        fill(i + 1);
        row.number[0] = BAD;
        CHECK(uneven_push(&state, &row) == WRONG);
        fill(i + 1);
        row.category[1] = 4;
        CHECK(uneven_push(&state, &row) == UNEVEN_CATEGORY);
        row.category[1] = -1;
        CHECK(uneven_push(&state, &row) == UNEVEN_CATEGORY);
        CHECK(memcmp(&copy, &state, sizeof state) == 0);
        fill(2 * i + 1);
        row.target[1] = GOOD + 5 * i;
        CHECK(uneven_push(&other, &row) == UNEVEN_OK);
        ahead[0].number[0] = GONE;
        CHECK(uneven_forecast(&state, ahead, a) == WRONG);
        ahead[0].number[0] = 1;
        ahead[1].category[0] = 0;
        CHECK(uneven_forecast(&state, ahead, a) == WRONG);
        ahead[1].category[0] = 9;
        CHECK(uneven_forecast(&state, ahead, a) == UNEVEN_CATEGORY);
        ahead[1].category[0] = 3;
        CHECK(uneven_forecast(&state, ahead, a) == UNEVEN_OK);
        CHECK(uneven_forecast(&other, ahead, b) == UNEVEN_OK);
        CHECK(i == 0 || memcmp(a, b, sizeof a) != 0);
        CHECK(uneven_forecast(&lone, ahead, b) == UNEVEN_OK);
        CHECK(memcmp(a, b, sizeof a) == 0);
    }
    return 0;
}
"""


@needs_compiler
@pytest.mark.parametrize("files", [float_files, int8_files])
def test_refused_rows_leave_the_state_alone_and_states_are_apart(files: Any, tmp_path: Path) -> None:
    arm.write(files("uneven", FORECASTERS["uneven"]), tmp_path)
    meaning = (
        {
            "REAL": "double",
            "GONE": "(0.0 / zero)",
            "BAD": "(i % 2 ? -1.0 / zero : 1e141)",
            "WRONG": "UNEVEN_INFINITE",
            "GOOD": "50",
        }
        if files is float_files
        else {"REAL": "int32_t", "GONE": "UNEVEN_NONE", "BAD": "1073741825", "WRONG": "UNEVEN_RANGE", "GOOD": "500000"}
    )
    text = "".join(f"#define {name} {value}\n" for name, value in meaning.items())
    (tmp_path / "use.c").write_text(text + "static volatile double zero = 0.0;\n" + REFUSALS + "/* */\n")
    flags = ["-std=c99", "-O1", "-g", "-Wno-unused-variable", *arm.SANITIZERS[:1]]
    program = tmp_path / "use"
    subprocess.run([COMPILER, *flags, "-o", program, tmp_path / "use.c", tmp_path / "uneven.c"], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_compiler
def test_the_header_is_c_plus_plus_too(tmp_path: Path) -> None:
    arm.write(float_files("plain", FORECASTERS["plain"]) | int8_files("warning", SEQUENCES["warning"]), tmp_path)
    (tmp_path / "both.cpp").write_text(
        '#include "plain.h"\n#include "warning.h"\nint main() { return PLAIN_OK + WARNING_OK; }\n'
    )
    subprocess.run(["c++", "-Wall", "-Werror", "-pedantic", "-fsyntax-only", tmp_path / "both.cpp"], check=True)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("2nd", "is no name for C"),
        ("a-b", "is no name for C"),
        ("", "is no name for C"),
        ("_hidden", "is no name for C"),
        ("x" * 42, "is no name for C"),
        ("élan", "is no name for C"),
        ("register", "is a word of the language"),
        ("class", "is a word of the language"),
    ],
)
def test_names_that_c_cannot_use_are_refused(name: str, complaint: str) -> None:
    with pytest.raises(CarouselError, match=complaint):
        check_name(name)


def test_models_without_a_c_form_are_refused_by_name() -> None:
    config = tagger(TagHead("label", 0, ("n", "o")))
    both = dataclasses.replace(config, stack=dataclasses.replace(config.stack, bidirectional=True))
    with pytest.raises(NotSupported, match="bidirectional"):
        plan("m", both, weights(both))
    for task in ("translate", "generate"):
        other = dataclasses.replace(config)
        object.__setattr__(other, "task", task)
        with pytest.raises(
            NotSupported, match=f"{task[:-1]}or.* has no C form; forecast, classify, tag, detect have one"
        ):
            plan("m", other, weights(config))
    odd = DETECTORS["odd"]
    coder = dataclasses.replace(odd.head, method="autoencoder", window=5, code=2, width=3)
    with pytest.raises(NotSupported, match="an autoencoder reads whole windows"):
        plan("m", dataclasses.replace(odd, head=coder), weights(odd))
    with pytest.raises(NotSupported, match="export it without --int8"):
        c.files("m", odd, weights(odd), Path("rows.csv"))


def model_file(folder: Path, config: Any) -> Path:
    path = folder / "m.safetensors"
    modelfile.write(path, weights(config), {"format": modelfile.FORMAT, "model": config.to_json(), "provenance": {}})
    return path


def sold(rows: int = 60) -> pl.DataFrame:
    t = np.arange(rows)
    y = 20 + 5 * np.sin(t * np.pi / 6) + np.random.default_rng(1).normal(0, 0.3, rows)
    y[[7, rows - 10]] = np.nan
    return pl.DataFrame({"t": t, "y0": y}).with_columns(pl.col("y0").fill_nan(None))


def test_the_verb_writes_three_files_and_says_what_they_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = model_file(tmp_path, forecaster()), tmp_path / "sold.csv"
    sold().write_csv(data)
    verb = ["export", str(model), "--to=c", f"--out={tmp_path / 'made'}"]
    assert cli.run(verb) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines()[0].endswith("made_test.c")
    assert "products: 10,044 for each forecast" in said.out
    assert cli.run([*verb, "--int8", f"--calibrate={data}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["out"] == [str(tmp_path / name) for name in ("made.h", "made.c", "made_test.c")]
    assert found["metric"] == "pinball"
    assert abs(found["loss_percent"]) < 3
    assert "int8_t" in (tmp_path / "made.c").read_text()  # what stood there is replaced, as everywhere


@needs_compiler
def test_the_users_rows_are_in_the_self_test(tmp_path: Path) -> None:
    model, data = model_file(tmp_path, forecaster()), tmp_path / "sold.csv"
    sold().write_csv(data)
    write(model, "c", tmp_path / "made", int8=True, calibrate=data)
    assert arm.on_host("made", tmp_path, COMPILER, ("-O1",)).split()[-2] == "ok"
    assert "-2147483648" in (tmp_path / "made_test.c").read_text()  # the missing value


@needs_compiler
@pytest.mark.parametrize("answered", [True, False])
def test_sequences_calibrate_with_and_without_their_target(answered: bool, tmp_path: Path) -> None:
    config = tagger(ClassifyHead("label", "mean", 0, ("0", "1")), categories=True)
    config = dataclasses.replace(
        config,
        input=dataclasses.replace(config.input, roles=dataclasses.replace(config.input.roles, id="who", target=("y",))),
    )
    rng = np.random.default_rng(2)
    n = 90
    frame = pl.DataFrame(
        {
            "who": np.arange(n) // 9,
            "t": np.arange(n) * 2.5,
            "a": np.where(rng.random(n) < 0.2, np.nan, rng.normal(2, 1.5, n)),
            "b": rng.normal(-3, 4, n),
            "c": rng.choice(["x", "y", "new"], n),
            "hh": rng.choice(["one", "two"], n),
            "y": np.arange(n) // 9 % 2,
        }
    ).with_columns(pl.col("a").fill_nan(None))
    frame = frame if answered else frame.drop("y")
    frame.write_csv(tmp_path / "rows.csv")
    found = write(model_file(tmp_path, config), "c", tmp_path / "made", int8=True, calibrate=tmp_path / "rows.csv")
    assert ("metric" in found) == answered
    assert any("same labels" in note or "accuracy" in note for note in found["notes"])
    assert arm.on_host("made", tmp_path, COMPILER, ("-O1",)).split()[-2] == "ok"


def refused(tmp_path: Path, frame: pl.DataFrame | None, **choices: Any) -> str:
    model = model_file(tmp_path, forecaster(seasons=(4,)))
    if frame is not None:
        frame.write_csv(tmp_path / "rows.csv")
        choices["calibrate"] = tmp_path / "rows.csv"
    with pytest.raises(CarouselError) as caught:
        write(model, "c", tmp_path / "made", **choices)
    assert not (tmp_path / "made.c").exists()
    return str(caught.value)


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    assert "--int8 needs rows" in refused(tmp_path, None, int8=True)
    assert "--calibrate is about --int8" in refused(tmp_path, sold())
    assert "rows.csv: there is no column 'y0'" in refused(tmp_path, sold().rename({"y0": "z"}), int8=True)
    message = refused(tmp_path, sold(20), int8=True)
    assert "rows.csv: 0 windows of 17 rows with 5 rows after them are too few" in message
    assert "at least 30 rows" in message
    assert "does not lie on the even grid" in refused(tmp_path, sold().with_columns(t=pl.col("t") * 1.37), int8=True)
    with pytest.raises(CarouselError, match=r"there must be no suffix for --to c"):
        write(model_file(tmp_path, forecaster()), "c", tmp_path / "made.c")
    with pytest.raises(CarouselError, match=r"'made-up' is no name for C"):
        write(model_file(tmp_path, forecaster()), "c", tmp_path / "made-up")
    with pytest.raises(CarouselError, match=r"there is no folder"):
        write(model_file(tmp_path, forecaster()), "c", tmp_path / "nowhere" / "made")


def test_a_window_beyond_the_counters_is_refused() -> None:
    from carousel.export.c import int8, record, reference

    config = forecaster(seasons=(70_000,), context=4, horizon=1)
    series = record.synthetic(forecaster().input)
    rows = record.recording(series, forecaster().input).rows
    with pytest.raises(NotSupported, match="a window of 70004 rows"):
        int8.quantised(plan("m", config, weights(config)), rows, reference.Ranges())


def test_a_clock_with_a_zone_is_named_in_the_header() -> None:
    config = forecaster(stamps=True, grid=Grid("even", 3600.0, zone="Europe/Berlin"), calendar=("hour_of_day",))
    header = c.files("m", config, weights(config))[0]["m.h"]
    assert "double wall; /* seconds since 1970 on the clock of the wall of Europe/Berlin */" in header


def test_errors_of_data_are_data_errors(tmp_path: Path) -> None:
    model = model_file(tmp_path, forecaster())
    with pytest.raises(DataError, match=r"gone\.csv"):
        write(model, "c", tmp_path / "made", int8=True, calibrate=tmp_path / "gone.csv")
