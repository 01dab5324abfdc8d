"""The command line in one process: verbs, formats, statuses; interrupts and imports in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
import typer

from carousel import cli, commands, modelfile
from carousel.inputs.files import read_file
from command_line import QUICK, ROLES, Result, later, model_bytes, shops

DOCS = Path(__file__).parent.parent / "docs" / "cli.md"
TASKS = ["forecast", "classify", "tag", "detect", "translate", "generate"]
COMMANDS = ["fit", "evaluate", "explain", "predict", "stream", "export", "demo", "bench", "chat", "doctor"]


@pytest.fixture
def call(capsys):
    def run(*arguments: object) -> Result:
        capsys.readouterr()
        status = cli.run([str(a) for a in arguments])
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A folder with data.csv, future.csv and m.safetensors, and the current one."""
    shops().write_csv(tmp_path / "data.csv")
    later().write_csv(tmp_path / "future.csv")
    (tmp_path / "m.safetensors").write_bytes(model_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(code: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("command", [*COMMANDS, *(f"fit {task}" for task in TASKS)])
def test_every_command_has_help_with_an_example(command, call):
    long, short = call(*command.split(), "--help"), call(*command.split(), "-h")
    assert long == short
    assert long.status == 0
    assert f"Example:\n    carousel {command}" in long.out
    assert "--json" in long.out
    assert "--debug" in long.out


def test_the_commands_are_these(call):
    found = typer.main.get_command(commands.app).commands
    assert sorted(found) == sorted(COMMANDS)
    assert list(found["fit"].commands) == TASKS
    assert all(re.search(rf"^  {name} ", call("-h").out, re.MULTILINE) for name in COMMANDS)
    assert re.fullmatch(r"carousel \d+\.\d+\.\d+\n", call("--version").out)


def test_the_command_alone_shows_the_commands(call):
    assert call().out == call("--help").out
    assert call().status == 0


def test_help_imports_nothing_heavy():
    done = python(
        "import sys; from carousel import cli; status = cli.run(['fit', '-h']);"
        "print({'torch', 'numpy', 'polars', 'pandas', 'sklearn', 'matplotlib', 'rich'} & set(sys.modules), status)"
    )
    assert done.stdout.splitlines()[-1] == "set() 0", done.stderr


def test_every_command_and_option_is_documented():
    text = DOCS.read_text()
    for name in [*COMMANDS, *(f"fit {task}" for task in TASKS)]:
        section = re.search(rf"^## carousel {name}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        assert section, f"docs/cli.md has no section '## carousel {name}'"
        for option in re.findall(r"--[a-z0-9-]+", _help(name).split("\nOptions:")[1]):
            assert f"`{option}" in section[1] or option in ("--help", "--debug", "--json"), f"{name} {option}"
    assert all(f"`{option}" in text for option in ("--help", "--debug", "--json", "--version"))


def _help(name: str) -> str:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        cli.run([*name.split(), "-h"])
    return out.getvalue()


def test_fit_writes_a_model_and_says_what_is_next(place, call):
    done = call("fit", "forecast", "data.csv", *ROLES, *QUICK, "--out", "new.safetensors")
    assert done.status == 0
    assert done.err == ""
    assert done.out.startswith("new.safetensors: 2 series, 120 rows, fitted in ")
    assert done.out.endswith(
        "Next: carousel predict new.safetensors data.csv --future FILE, carousel evaluate new.safetensors LATER\n"
    )
    assert (place / "new.safetensors").read_bytes() == model_bytes()  # the same seed, the same file
    assert not (place / "new.safetensors.checkpoint").exists()


def test_fit_as_json_with_an_ensemble_and_columns_by_comma_or_repetition(place, call):
    roles = ["--id=shop", "--time=day", "--target=sold,price", "--horizon=2", "--features=weather,holiday"]
    one = call("fit", "forecast", "data.csv", *roles, *QUICK, "--seeds=2", "--json", "--out=a.safetensors")
    roles[2:3] = ["--target=sold", "--target=price"]
    roles[-1:] = ["--features", "weather", "--features", "holiday"]
    two = call("fit", "forecast", "data.csv", *roles, *QUICK, "--seeds=2", "--json", "--out=b.safetensors")
    assert (place / "a.safetensors").read_bytes() == (place / "b.safetensors").read_bytes()
    found = json.loads(one.out)
    assert found["model"] == "a.safetensors"
    assert found["provenance"] == json.loads(two.out)["provenance"]
    weights, document = modelfile.read(place / "a.safetensors")
    assert {name.split(".")[0] for name in weights} == {"0", "1"}
    assert document["model"]["input"]["roles"]["target"] == ["sold", "price"]
    assert document["model"]["input"]["roles"]["features"] == ["weather", "holiday"]
    assert document["model"]["head"]["quantiles"][3] == 0.5


def test_names_of_columns_with_commas_and_blanks_can_be_given(place, call):
    table = shops().rename({"sold": "sold, net", "holiday": " holiday", "price": "price "})
    table.write_csv(place / "odd.csv")
    roles = [
        "--id=shop",
        "--time=day",
        "--target=sold, net",
        "--known= holiday,size",
        "--features=price ",
        "--horizon=3",
    ]
    done = call("fit", "forecast", "odd.csv", *roles, *QUICK, "--out=odd.safetensors")
    assert done.status == 0, done.err
    found = modelfile.read(place / "odd.safetensors")[1]["model"]["input"]["roles"]
    assert (found["target"], found["known"], found["features"]) == (["sold, net"], [" holiday", "size"], ["price "])
    roles = ["--id=shop", "--time=day", "--target= size ,sold,", "--horizon=3"]
    done = call("fit", "forecast", "odd.csv", *roles, *QUICK, "--out=x.safetensors")
    assert (done.status, "there is no column 'sold'; did you mean 'sold, net'" in done.err) == (2, True), done.err


def test_without_known_columns_the_next_step_needs_no_future(place, call):
    roles = [*(r for r in ROLES if not r.startswith("--known")), "--features=price"]
    done = call("fit", "forecast", "data.csv", *roles, *QUICK, "--out=new.safetensors")
    assert "Next: carousel predict new.safetensors data.csv, carousel evaluate" in done.out
    assert call("predict", "new.safetensors", "data.csv").status == 0


def test_settings_season_context_and_until_reach_the_model(place, call):
    done = call("fit", "forecast", "data.csv", *ROLES, *QUICK, "--season=5", "--context=11", "--until=2024-02-10",
                "--set", "cell.peephole=true", "--out=x.safetensors")  # fmt: skip
    assert done.status == 0, done.err
    assert done.out.endswith(", carousel evaluate x.safetensors data.csv\n")
    _, document = modelfile.read(place / "x.safetensors")
    assert document["model"]["input"]["seasons"] == [5]
    assert document["model"]["input"]["context"] == 11
    assert document["model"]["stack"]["cell"]["peephole"] is True
    assert document["provenance"]["rows"] == 2 * 41


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_predict_writes_the_same_table_in_every_format(suffix, place, call):
    call("predict", "m.safetensors", "data.csv", "--future", "future.csv", "--out", "p.parquet")
    done = call("predict", "m.safetensors", "data.csv", "--future", "future.csv", "--out", f"q{suffix}", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out) == {"out": f"q{suffix}", "rows": 6, "columns": read_file("p.parquet").columns}
    one, two = read_file("p.parquet"), read_file(f"q{suffix}")
    if suffix == ".jsonl":
        two = two.with_columns(pl.col("day").str.to_date())
    assert one.equals(two)
    assert one.columns[:4] == ["shop", "day", "step", "forecast"]
    assert one["shop"].to_list() == ["north"] * 3 + ["south"] * 3
    assert [str(day) for day in one["day"][:3]] == ["2024-03-01", "2024-03-02", "2024-03-03"]
    levels = one.select(pl.col("^q0.*$")).to_numpy()
    assert (levels[:, 1:] >= levels[:, :-1]).all()
    assert one["forecast"].to_list() == one["q0.5"].to_list()


def test_predict_without_out_writes_csv_or_json_lines_to_stdout(place, call):
    table = call("predict", "m.safetensors", "data.csv", "--future", "future.csv")
    lines = call("predict", "m.safetensors", "data.csv", "--future", "future.csv", "--json")
    assert table.out.splitlines()[0].startswith("shop,day,step,forecast,q0.05")
    assert len(table.out.splitlines()) == 7
    first = json.loads(lines.out.splitlines()[0])
    assert table.out.splitlines()[1].split(",")[3] == repr(first["forecast"])
    assert table.err == lines.err == ""


def test_evaluate_starts_after_training_and_shows_every_baseline(place, call):
    shops(80).write_csv(place / "more.csv")
    done = call("evaluate", "m.safetensors", "more.csv", "--out", "table.md")
    assert done.status == 0, done.err
    assert "36 forecasts of 3 steps, 2 series" in done.out  # days 60 ... 77 of either
    for name in ("LSTM", "linear autoregression", "seasonal naive with drift", "seasonal naive", "last value"):
        assert f"\n {name} " in done.out
    assert "seen in training" not in done.out
    assert (place / "table.md").read_text().startswith("| model | MASE |")
    found = json.loads(call("evaluate", "m.safetensors", "more.csv", "--json", "--out", "table.json").out)
    assert found == json.loads((place / "table.json").read_text())
    assert found["origins"] == 36
    assert found["rows"][0]["model"] == "LSTM"


def test_evaluate_of_training_rows_says_so(place, call):
    done = call("evaluate", "m.safetensors", "data.csv")
    assert "2 forecasts of 3 steps" in done.out
    assert "Rows up to 2024-02-29 were seen in training" in " ".join(done.out.split())
    chosen = json.loads(
        call("evaluate", "m.safetensors", "data.csv", "--since=2024-02-20", "--stride=2", "--season=7", "--json").out
    )
    assert chosen["origins"] == 2 * 4
    assert chosen["season"] == 7
    assert "seen in training" in chosen["notes"][0]
    counted = json.loads(call("evaluate", "m.safetensors", "data.csv", "--windows=2", "--stride=3", "--json").out)
    assert counted["origins"] == 2 * 2


def test_short_series_are_skipped_with_a_note(place, call):
    short = shops(60).filter((pl.col("shop") == "south") | (pl.col("day") < pl.date(2024, 1, 4)))
    short.write_csv(place / "short.csv")
    refused = call("fit", "forecast", "short.csv", *ROLES, *QUICK, "--out=x.safetensors")
    assert refused.status == 2
    assert "short.csv: series 'north' is shorter than" in refused.err
    assert not (place / "x.safetensors").exists()
    done = call("fit", "forecast", "short.csv", *ROLES, *QUICK, "--out=x.safetensors", "--skip-short")
    assert done.status == 0
    assert done.err.startswith("carousel: note: short.csv: series 'north' is shorter than")
    assert done.out.startswith("x.safetensors: 1 series")


def test_doctor_says_what_is_here_and_what_is_missing(call):
    found = json.loads(call("doctor", "--json").out)
    assert set(found) == {"versions", "cpu", "gpu", "backends", "threads", "openmp", "extras", "problems"}
    assert set(found["backends"]) == {"native", "aten", "reference"}
    assert found["backends"]["reference"] is None
    assert found["versions"]["torch"] == torch.__version__
    assert found["threads"]["torch"] == torch.get_num_threads()
    assert "numpy" not in found["extras"]
    assert found["extras"]["train"]["torch"] == torch.__version__
    text = call("doctor").out
    assert "backend       reference: ready" in text
    assert re.search(r"^extra +train: complete$", text, re.MULTILINE)


def test_bench_writes_its_tables(place, call):
    done = call("bench", "ragged", "--hidden=8", "--batch=3", "--seconds=0.01", "--json", "--out=speed.md")
    assert done.status == 0, done.err
    (report,) = json.loads(done.out)
    assert [row[:2] for row in report["rows"]] == [[8, 3]]
    assert all(len(row) == len(report["columns"]) for row in report["rows"])
    assert (place / "speed.md").read_text().startswith(f"### {report['title']}\n")


def test_bars_show_loss_metric_rate_and_member_on_a_terminal(monkeypatch):
    import io

    import rich.console

    from carousel import progress
    from carousel.train import Event

    screen = io.StringIO()
    plain = rich.console.Console
    monkeypatch.setattr("rich.console.Console", lambda **_: plain(file=screen, force_terminal=True, width=120))
    with progress.training() as show:
        show(Event(step=3, total=9, member=1, members=2, loss=0.5, metric=0.25, best=0.25, rate=7.5))
    with progress.counting("backtest") as count:
        count(5, 8)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    for part in ("seed 2/2", "3/9", "loss 0.5000", "valid 0.2500", "7.5/s", "backtest", "62%"):
        assert part in text
    monkeypatch.setattr("rich.console.Console", lambda **_: plain(file=screen, force_terminal=False))
    with progress.training() as show, progress.counting("backtest") as count:
        assert show is count is None


def test_a_broken_installation_is_status_1(call, monkeypatch):
    def load(name: str) -> None:
        raise ImportError("no such symbol")

    monkeypatch.setattr("carousel.backends.load", load)
    done = call("doctor")
    assert done.status == 1
    assert "problem       backend native cannot be loaded (no such symbol): build it again" in done.out


FIT, OUT = ["fit", "forecast", "data.csv", *ROLES], "--out=a.safetensors"
WRONG = {
    "no data": (["fit", "forecast"], "Missing argument 'DATA'; see carousel --help."),
    "no number": ([*FIT, OUT, "--horizon=x"], "see carousel --help."),
    "no command": (["train"], "No such command 'train'"),
    "no option": (["predict", "m.safetensors", "data.csv", "--speed"], "No such option"),
    "no task": (["fit", "dream", "data.csv", OUT, "--horizon=1"], "No such command 'dream'"),
    "an option of another task": (
        ["fit", "tag", "data.csv", OUT, "--horizon=1"],
        "--horizon does not apply to fit tag, only to forecast; leave it out.",
    ),
    "a suffix": ([*FIT, "--out=a.pt"], "a.pt: the suffix must be .safetensors; name"),
    "a folder": ([*FIT, "--out=no/a.safetensors"], "there is no folder no; make it"),
    "a near setting": ([*FIT, OUT, "--set=hiden_size=3"], "there is no setting 'hiden_size'; did you mean hidden_size"),
    "a setting's type": ([*FIT, OUT, "--set=steps=many"], "setting steps must be a whole number, got 'many'."),
    "a setting's range": ([*FIT, OUT, "--set=dropout=2"], "dropout must be in [0, 1), got 2.0"),
    "a bare setting": ([*FIT, OUT, "--set=steps"], "write it as name=value"),
    "no checkpoint": ([*FIT, OUT, "--resume"], "there is no checkpoint to resume from"),
    "until alone": (["fit", "forecast", "data.csv", OUT, "--horizon=3", "--until=2024-01-20"], "--until needs --time"),
    "until no time": ([*FIT, OUT, "--until=2024"], "until: '2024' is not a time like"),
    "until too early": ([*FIT, OUT, "--until=1999-01-01"], "data.csv, column 'day': no row is left until 1999-01-01"),
    "a table's suffix": (
        ["predict", "m.safetensors", "data.csv", "--out=p.xlsx"],
        "p.xlsx: the suffix must be .csv",
    ),
    "a report's suffix": (["evaluate", "m.safetensors", "data.csv", "--out=p.html"], "must be .md or .json"),
    "since no time": (
        ["evaluate", "m.safetensors", "data.csv", "--since=soon"],
        "since: 'soon' is not a time",
    ),
    "bench of what": (["bench", "cake"], "'cake' cannot be measured; choose layer, ragged, variants,"),
    "bench of no size": (
        ["bench", "layer", "--hidden=64,big"],
        "--hidden must be whole numbers of at least 1, got '64",
    ),
    "bench of no type": (
        ["bench", "layer", "--dtype=int8"],
        "--dtype must be float32, float64 or bfloat16, got 'int8'.",
    ),
    "bench compiled": (
        ["bench", "layer", "--compiled"],
        "--compiled is about variants, not about layer; leave it out.",
    ),
    "a season too long": ([*FIT, OUT, "--season=100000"], "data.csv: a season of 100000 rows is longer than the long"),
    "a context too long": (
        [*FIT, OUT, "--context=100000"],
        "a context of 100000 rows is longer than the longest series",
    ),
    "a season of baselines too long": (
        ["evaluate", "m.safetensors", "data.csv", "--season=61"],
        "data.csv: a season of 61 rows is longer than the longest series, which has 60 rows; give a shorter season",
    ),
    "threads": ([*FIT, OUT, "--set=threads=100000"], "threads is 100000, more than the processors of this machine"),
    "a projection": (
        [*FIT, OUT, "--set=hidden_size=16", "--set=cell.proj_size=100"],
        "cell.proj_size must be smaller than hidden_size (16), got 100.",
    ),
    "since too late": (
        ["evaluate", "m.safetensors", "data.csv", "--since=2030-01-01"],
        "no series has 3 rows",
    ),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_use_is_status_2_in_one_sentence(case, place, call):
    arguments, expected = WRONG[case]
    before = sorted(place.iterdir())
    done = call(*arguments)
    assert done.status == 2
    assert expected in done.err
    assert done.err.startswith("carousel: ")
    assert done.err.count("\n") == 1
    assert done.out == ""
    assert sorted(place.iterdir()) == before


def test_debug_shows_the_traceback_and_a_fault_is_status_1(place, call, monkeypatch):
    with pytest.raises(modelfile.ModelFileError):
        call("predict", "none.safetensors", "data.csv", "--debug")

    def broken() -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("carousel.doctor.examine", broken)
    done = call("doctor")
    assert (done.status, done.out) == (1, "")
    assert done.err == "carousel: this is a fault of Carousel (RuntimeError: two lines); --debug shows where.\n"
    with pytest.raises(RuntimeError):
        call("doctor", "--debug")


def test_a_missing_dependency_names_its_extra(place):
    done = python(
        "import sys; sys.modules['torch'] = None; from carousel import cli;"
        "sys.exit(cli.run(['predict', 'm.safetensors', 'data.csv']))"
    )
    assert done.returncode == 2
    assert "torch, which is not installed: pip install 'carousel-lstm[train]'" in done.stderr
    done = python("import sys; sys.modules['typer'] = None; from carousel import cli; sys.exit(cli.run(['-h']))")
    assert done.returncode == 2
    assert "typer, which is not installed: pip install 'carousel-lstm[train]'" in done.stderr


def test_a_reader_that_goes_away_is_no_fault():
    done = python(
        "import os, subprocess, sys; r, w = os.pipe(); os.close(r);"
        "code = 'from carousel import cli; cli.main()';"
        "p = subprocess.run([sys.executable, '-c', code, 'fit', '-h'], stdout=w, stderr=subprocess.PIPE, text=True);"
        "print(p.returncode, repr(p.stderr))"
    )
    assert done.stdout == "141 ''\n", done.stderr


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_full_standard_output_is_said_in_one_sentence(verb, place):
    options = ["--future", "future.csv"] if verb == "predict" else []
    code = "from carousel import cli; cli.main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, verb, "m.safetensors", "data.csv", *options],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    sentence = "standard output: cannot be written (No space left on device); make room, or write to another place.\n"
    assert (done.returncode, done.stderr) == (2, f"carousel: {sentence}")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 16 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate"),
        RuntimeError("Storage size calculation overflowed with sizes=[4000000000, 1000000000]"),
    ],
)
def test_no_memory_is_status_2_and_names_what_to_make_smaller(error, call, monkeypatch):
    def broken() -> None:
        raise error

    monkeypatch.setattr("carousel.doctor.examine", broken)
    done = call("doctor")
    assert done.status == 2
    assert done.err == (
        "carousel: not enough memory; give fewer or shorter series, or a smaller --set hidden_size, num_layers, width"
        " or batch_size.\n"
    )


def test_an_interrupt_before_training_writes_nothing(place, call, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("carousel.inputs.files.read_file", interrupt)
    done = call("fit", "forecast", "data.csv", *ROLES, "--out=a.safetensors")
    assert (done.status, done.err) == (130, "carousel: interrupted; nothing was written.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_fit_resumes_to_the_same_model(number, place, call):
    """The stopped fit runs in a process of its own; what it left is taken up here, and equals a fit in one go."""
    choices = [*ROLES, *QUICK, "--set=steps=60", "--set=evaluate_every=20", "--set=checkpoint_every=5"]
    command = [sys.executable, "-c", "from carousel import cli; cli.main()", "fit", "forecast", "data.csv", *choices]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen([*command, "--out=a.safetensors"], env=environment, stderr=subprocess.PIPE, text=True)
    checkpoint = place / "a.safetensors.checkpoint"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert err == (
        "carousel: interrupted; the checkpoint is a.safetensors.checkpoint: the same command with --resume goes on.\n"
    )
    assert not (place / "a.safetensors").exists()
    refused = call("fit", "forecast", "data.csv", *choices, "--set=hidden_size=5", "--out=a.safetensors", "--resume")
    assert refused.status == 2
    assert "the checkpoint is of another training" in refused.err
    assert call("fit", "forecast", "data.csv", *choices, "--out=a.safetensors", "--resume").status == 0
    assert not checkpoint.exists()
    assert call("fit", "forecast", "data.csv", *choices, "--out=b.safetensors").status == 0
    assert (place / "a.safetensors").read_bytes() == (place / "b.safetensors").read_bytes()
