"""Bad input: status 2, one sentence that names file, row, column and remedy, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from carousel import cli
from command_line import QUICK, ROLES, later, model_bytes, shops

FIT = ["fit", "forecast", "data.csv", *ROLES, *QUICK, "--out=new.safetensors"]
PREDICT = ["predict", "m.safetensors", "data.csv", "--future=future.csv", "--out=next.csv"]
EVALUATE = ["evaluate", "m.safetensors", "data.csv", "--out=table.md"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    shops().write_csv(tmp_path / "data.csv")
    later().write_csv(tmp_path / "future.csv")
    (tmp_path / "m.safetensors").write_bytes(model_bytes())
    (tmp_path / "new.safetensors").write_bytes(b"the model before")
    (tmp_path / "next.csv").write_bytes(b"the forecast before")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(arguments: list[str], expected: list[str], place: Path, capsys: Any) -> None:
    """One sentence with all of `expected` on standard error, status 2, every file as it was."""
    before = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    capsys.readouterr()
    status = cli.run(arguments)
    out, err = capsys.readouterr()
    assert status == 2, err
    assert out == ""
    assert err.startswith("carousel: ")
    assert err.endswith((".\n", "?\n"))
    assert err.count("\n") == 1, "more than one line"
    for part in expected:
        assert part in err
    assert {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()} == before


def text(place: Path, row: int, column: str, value: str, name: str = "data.csv") -> None:
    """Put `value` into data row `row` (1-based) of a CSV file."""
    lines = (place / name).read_text().splitlines()
    cells = lines[row].split(",")
    cells[lines[0].split(",").index(column)] = value
    lines[row] = ",".join(cells)
    (place / name).write_text("\n".join(lines) + "\n")


def edit(change: Callable[[pl.DataFrame], pl.DataFrame], name: str = "data.csv") -> Callable[[Path], None]:
    return lambda place: change(pl.read_csv(place / name)).write_csv(place / name)


def put(row: int, column: str, value: str, name: str = "data.csv") -> Callable[[Path], None]:
    return lambda place: text(place, row, column, value, name)


TABLES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "missing file": (lambda p: (p / "data.csv").unlink(), ["data.csv: ", "No such file", "check its name"]),
    "a folder": (lambda p: [(p / "data.csv").unlink(), (p / "data.csv").mkdir()], ["data.csv: ", "Is a directory"]),
    "empty file": (lambda p: (p / "data.csv").write_bytes(b""), ["data.csv: the file is empty", "give it a header"]),
    "header only": (edit(lambda t: t.head(0)), ["data.csv: the table has no rows", "give it at least one"]),
    "unreadable": (
        lambda p: (p / "data.csv").write_bytes(b"shop,day,sold\n" + bytes(range(128, 256)) * 9),
        ["data.csv, line 2", "byte 14", "not UTF-8", "convert the file"],
    ),
    "missing target": (edit(lambda t: t.rename({"sold": "solds"})), ["data.csv: there is no column 'sold'", "'solds'"]),
    "missing id": (edit(lambda t: t.drop("shop")), ["data.csv: there is no column 'shop'", "columns are"]),
    "missing known": (edit(lambda t: t.drop("holiday")), ["data.csv: there is no column 'holiday'"]),
    "text in a number": (
        put(17, "sold", "many"),
        ["data.csv, row 17, column 'sold': 'many' is not a number", "correct it"],
    ),
    "text in a feature": (
        put(18, "price", "1,5".replace(",", ";")),
        ["data.csv, row 18, column 'price': '1;5' is not"],
    ),
    "infinite target": (put(33, "sold", "inf"), ["data.csv, row 33, column 'sold': the value is infinite; correct it"]),
    "infinite feature": (
        put(34, "price", "-inf"),
        ["data.csv, row 34, column 'price': the value is infinite; correct"],
    ),
    "same time twice": (
        put(3, "day", "2024-01-02"),
        ["data.csv, row 3, column 'day': series 'north' has the time 2024-01-02 a second time", "row 2", "keep one"],
    ),
    "no time": (put(5, "day", ""), ["data.csv, row 5, column 'day': the time is missing; fill it in or drop the row"]),
    "a broken time": (
        put(6, "day", "5th of May"),
        ["data.csv, row 6, column 'day': '5th of May' is not a time", "write"],
    ),
    "an impossible date": (put(7, "day", "2024-02-30"), ["data.csv, row 7, column 'day': '2024-02-30' is not a time"]),
    "no id": (put(8, "shop", ""), ["data.csv, row 8, column 'shop': the id is missing; fill it in or drop the row"]),
    "nothing observed": (
        edit(lambda t: t.with_columns(sold=pl.lit(None, pl.Float64))),
        ["data.csv, column 'sold': no value of the target is observed"],
    ),
    "a static column that changes": (put(9, "size", "21"), ["data.csv, row 9, column 'size': a static column may not"]),
}
TRAINING = {
    "short series": (
        edit(lambda t: t.filter((pl.col("shop") == "north") | (pl.col("day") < "2024-01-05"))),
        ["data.csv: series 'south' is shorter than the", "rows that a horizon of 3 needs", "give more rows"],
    ),
    "all series short": (edit(lambda t: t.filter(pl.col("day") < "2024-01-05")), ["data.csv: series 'north', 'south'"]),
}


@pytest.mark.parametrize("case", [*TABLES, *TRAINING])
def test_fit_refuses_bad_tables(case, place, capsys):
    change, expected = (TABLES | TRAINING)[case]
    change(place)
    refused(FIT, expected, place, capsys)


def test_skipping_short_series_needs_one_that_is_not(place, capsys):
    change, expected = TRAINING["all series short"]
    change(place)
    refused([*FIT, "--skip-short"], expected, place, capsys)


@pytest.mark.parametrize("case", list(TABLES))
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_predict_and_evaluate_refuse_bad_tables(verb, case, place, capsys):
    change, expected = TABLES[case]
    if case == "nothing observed" and verb == "predict":
        expected = ["data.csv"]
    change(place)
    refused({"predict": PREDICT, "evaluate": EVALUATE}[verb], expected, place, capsys)


@pytest.mark.parametrize("horizon", ["0", "-3"])
def test_a_horizon_below_one_is_refused(horizon, place, capsys):
    refused(
        [*FIT, f"--horizon={horizon}"], [f"horizon must be a whole number of at least 1, got {horizon}"], place, capsys
    )


@pytest.mark.parametrize("option", ["--season=0", "--context=0", "--seeds=0", "--context=-1"])
def test_counts_below_one_are_refused(option, place, capsys):
    name, value = option[2:].split("=")
    refused([*FIT, option], [f"{name} must be a whole number of at least 1, got {value}"], place, capsys)


@pytest.mark.parametrize("name", ["step", "forecast", "q0.05"])
def test_an_id_named_as_a_column_of_forecasts_is_refused(name, place, capsys):
    edit(lambda t: t.rename({"shop": name}))(place)
    arguments = [f"--id={name}" if a.startswith("--id") else a for a in FIT]
    refused(arguments, [f"data.csv: forecasts have a column '{name}' of their own; rename"], place, capsys)


def test_one_column_in_two_roles_is_refused(place, capsys):
    refused([*FIT, "--static=sold"], ["column 'sold' is named as target and as static"], place, capsys)


FUTURES = {
    "no future": (
        lambda p: None,
        [
            "data.csv: series 'north' has no 'holiday' at 2024-03-01 (step 2 of 3); give the known columns for every",
            "in future (--future FILE) or as rows without a target.",
        ],
    ),
    "a day too few": (
        edit(lambda t: t.filter(pl.col("day") < "2024-03-03"), "future.csv"),
        ["future.csv: series 'north' has no 'holiday' at 2024-03-03 (step 3 of 3); give"],
    ),
    "a value missing": (
        put(5, "holiday", "", "future.csv"),
        ["future.csv: series 'south' has no 'holiday' at 2024-03-02 (step 2 of 3)"],
    ),
    "a column missing": (
        edit(lambda t: t.drop("holiday"), "future.csv"),
        ["future.csv: there is no column 'holiday'"],
    ),
    "text instead": (
        put(2, "holiday", "yes", "future.csv"),
        ["future.csv, row 2, column 'holiday': 'yes' is not a num"],
    ),
    "infinite": (
        put(3, "holiday", "inf", "future.csv"),
        ["future.csv, row 3, column 'holiday': the value is infinite"],
    ),
    "a broken time": (put(4, "day", "soon", "future.csv"), ["future.csv, row 4, column 'day': 'soon' is not a time"]),
    "a time twice": (
        put(2, "day", "2024-03-01", "future.csv"),
        ["future.csv, row 2, column 'day': series 'north' has"],
    ),
    "missing file": (lambda p: (p / "future.csv").unlink(), ["future.csv: ", "No such file"]),
}


@pytest.mark.parametrize("case", list(FUTURES))
def test_predict_refuses_a_future_that_is_not_known(case, place, capsys):
    change, expected = FUTURES[case]
    change(place)
    arguments = [a for a in PREDICT if case != "no future" or not a.startswith("--future")]
    refused(arguments, expected, place, capsys)


COLUMNS = {
    "a feature is gone": (edit(lambda t: t.drop("weather")), ["data.csv: there is no column 'weather'"]),
    "a number became text": (
        edit(lambda t: t.with_columns(price=pl.lit("cheap"))),
        ["data.csv, column 'price': it held numbers in training and holds text here"],
    ),
    "a category became a number": (
        edit(lambda t: t.with_columns(weather=pl.lit(3))),
        ["data.csv, column 'weather': it held text in training and holds numbers"],
    ),
    "times became numbers": (
        edit(lambda t: t.with_columns(day=pl.int_range(pl.len()))),
        ["data.csv, column 'day': it held timestamps in training and holds numbers here; convert"],
    ),
    "off the grid": (
        lambda p: [put(row, "day", f"2024-02-{row - 31:02} 0{row // 60}:00:00")(p) for row in range(32, 61)],
        ["data.csv, row 60, column 'day': the time 2024-02-29", "does not lie on the even grid", "resample"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(COLUMNS))
def test_predict_refuses_columns_that_differ_from_training(case, place, capsys):
    change, expected = COLUMNS[case]
    change(place)
    refused(PREDICT, expected, place, capsys)


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "m.safetensors: there is no such model file"),
        (b"", "m.safetensors: the file is empty"),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94", "m.safetensors: the file is a pickle"),
        (lambda data: data[:-50], "m.safetensors: the file is truncated"),
        (
            lambda data: data.replace(b'\\"format\\":1', b'\\"format\\":2'),
            "is of format 2, this version reads format 1",
        ),
        (lambda data: data.replace(b'\\"seeds\\":1', b'\\"seeds\\":2'), "m.safetensors: the file lacks weight '1."),
        (lambda data: data.replace(b'\\"task\\":', b'\\"mask\\":'), "model.mask"),
        (lambda data: data[:-4] + b"\x00\x00\xc0\x7f", "finite weights were expected"),
    ],
    ids=["missing", "empty", "pickle", "truncated", "newer", "shapes", "unknown field", "NaN"],
)
def test_bad_model_files_are_refused(verb, content, expected, place, capsys):
    model = place / "m.safetensors"
    if content is None:
        model.unlink()
    else:
        model.write_bytes(content(model.read_bytes()) if callable(content) else content)
    refused({"predict": PREDICT, "evaluate": EVALUATE}[verb], [expected], place, capsys)


def test_a_full_disk_leaves_the_model_and_the_checkpoint(place, capsys, monkeypatch):
    """The model cannot be written at the end: the old one stands, and what was learnt is in the checkpoint."""
    import errno
    import os

    from carousel import atomic

    real = atomic._replace

    def full(target: Path, *rest: Any) -> None:
        if target.name == "new.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(target, *rest)

    monkeypatch.setattr(atomic, "_replace", full)
    capsys.readouterr()
    assert cli.run([*FIT, "--set=checkpoint_every=2"]) == 2
    err = capsys.readouterr().err
    assert "new.safetensors: cannot be written (No space left on device)" in err
    assert (place / "new.safetensors").read_bytes() == b"the model before"
    assert (place / "new.safetensors.checkpoint").exists()
    monkeypatch.setattr(atomic, "_replace", real)
    assert cli.run([*FIT, "--set=checkpoint_every=2", "--resume"]) == 0
    assert not (place / "new.safetensors.checkpoint").exists()
