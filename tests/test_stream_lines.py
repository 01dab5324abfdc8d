"""`carousel stream`: JSON lines in and out, ids apart, bad lines named; and what streams import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from carousel import cli
from carousel.inputs.clock import Grid
from carousel.stream import Stream, answer_lines
from stream_cases import classifier, detector, rich_rows, tagger, without, write
from test_stream_forecast import HOUR, config


def line(row: dict[str, Any]) -> bytes:
    return json.dumps(row | {"when": row["when"].isoformat()}).encode()


def answers(path: Path, lines: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(a.text) for a in answer_lines(path, lines)]


def test_ids_go_to_streams_of_their_own(tmp_path: Path) -> None:
    path = write(tagger("event"), tmp_path)
    a, b = rich_rows(5, 1, who="a"), rich_rows(5, 2, who="b")
    mixed = [row for pair in zip(a, b, strict=True) for row in pair]
    found = answers(path, [line(row) for row in mixed])
    for who, rows in (("a", a), ("b", b)):
        expected = Stream(path).push_many(rows)
        assert [without(f, "who", "when") for f in found if f["who"] == who] == expected
    assert found[0]["when"] == a[0]["when"].isoformat()
    assert list(found[0]) == ["who", "when", "probability", "alarm"]


def test_bad_lines_are_named_and_the_stream_goes_on(tmp_path: Path) -> None:
    path = write(tagger("event"), tmp_path)
    rows = rich_rows(4, 1, who="a")
    good = [line(row) for row in rows]
    bad = [
        b"{",
        b"[1, 2]",
        b"\xff\xfe",
        line(rows[1])[:-1] + b', "steps": 1}',
        line(without(rows[1], "who")),
        line(rows[1] | {"steps": None}),
        line(rows[1] | {"colour": 2}),
        b'{"who": "a", "steps": NaN}',
        line(rows[0] | {"who": "new", "steps": "x"}),
    ]
    found = answers(path, [good[0], b"\n", *bad, *good[1:]])
    assert [f["line"] for f in found if "error" in f] == list(range(3, 3 + len(bad)))
    assert [f for f in found if "error" not in f] == answers(path, good)
    words = [
        "not JSON",
        "no JSON object",
        "",
        "'steps' is given twice",
        "id says which",
        "column 'steps'",
        "'colour' is unknown",
    ]
    for f, word in zip([f for f in found if "error" in f], [*words, "NaN is not JSON", "is text"], strict=True):
        assert word in f["error"]


def test_the_sequence_idle_for_longest_is_forgotten(tmp_path: Path) -> None:
    path = write(tagger("event"), tmp_path)
    rows = {who: rich_rows(7, k, who=who) for k, who in enumerate("abc")}
    told = [line(rows[who][k]) for who, k in [("a", 0), ("b", 0), ("a", 1), ("c", 0), ("a", 2), ("b", 1), ("c", 1)]]
    found = [json.loads(a.text)["probability"] for a in answer_lines(path, told, keep=2)]
    alone = {who: [f["probability"] for f in Stream(path).push_many(rows[who])] for who in "abc"}
    assert found[:5] == [alone["a"][0], alone["b"][0], alone["a"][1], alone["c"][0], alone["a"][2]]
    anew = {who: Stream(path).push(rows[who][1])["probability"] for who in "bc"}
    assert found[5:] == [anew["b"], anew["c"]]  # "b" made room for "c", and "c" for "b"
    assert anew["b"] != alone["b"][1]


def test_forecasts_and_scores_are_plain_json(tmp_path: Path) -> None:
    path = write(config(Grid("even", 24 * HOUR, wall=True, zone="Europe/Berlin"), stamps=True), tmp_path)
    lines = [
        json.dumps({"t": f"2024-03-{day}T00:00:00+0{1 + (day > 30)}:00", "y": day}).encode() for day in (29, 30, 31)
    ]
    lines[2] = b'{"t": "2024-03-31T00:00:00+01:00", "y": 31}'
    first, second, third = answers(path, lines)
    assert first["forecast"] == [None] * 5
    assert third["t"][0] == "2024-04-01T00:00:00+02:00"
    assert second["step"] == [1, 2, 3, 4, 5]
    assert all(isinstance(v, float) for v in third["q0.95"])
    rows = rich_rows(3)
    found = answers(write(detector(), tmp_path), [line(row) for row in rows])
    assert list(found[0]) == ["who", "when", "score", "anomaly", "because"]


def test_the_command(tmp_path: Path, capsys: Any) -> None:
    path = write(classifier("last", rich=False), tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"x0": 1, "x1": 2, "x2": 3}\n{"x0": 1}\n\n{"x0": 0, "x1": null, "x2": 3}\n')
    assert cli.run(["stream", str(path), str(tmp_path / "rows.jsonl"), "--json", "--weights", "bf16"]) == 0
    out = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [next(iter(f)) for f in out] == ["prediction", "line", "line", "rows"]
    assert out[-1] == {"rows": 1, "refused": 2}
    assert cli.run(["stream", str(path), str(tmp_path / "none.jsonl")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert cli.run(["stream", str(path), "--weights", "int3"]) == 2
    assert cli.run(["stream", str(path), "--keep", "0"]) == 2


def test_lines_are_answered_as_they_come(tmp_path: Path) -> None:
    path = write(classifier("last", rich=False), tmp_path)
    command = [sys.executable, "-c", "from carousel.cli import main; main()", "stream", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for k in range(3):
            process.stdin.write(json.dumps({"x0": k, "x1": 0, "x2": 1}) + "\n")
            process.stdin.flush()
            assert "prediction" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_stream_imports_neither_torch_nor_tables(tmp_path: Path) -> None:
    paths = [write(m, tmp_path) for m in (classifier("last", rich=False), detector(), config(Grid("even", 1.0)))]
    code = (
        "import sys, carousel\n"
        "for path in sys.argv[1:]: carousel.Stream(path)\n"
        "carousel.Streams(sys.argv[1])\n"
        "heavy = ('torch', 'narwhals', 'polars', 'pandas', 'pyarrow', 'sklearn', 'rich', 'typer', 'lightning_fabric')\n"
        "assert not [name for name in heavy if name in sys.modules], [n for n in heavy if n in sys.modules]\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
