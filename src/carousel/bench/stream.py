"""`carousel bench stream`: one row at a time, inside the core and from Python, many streams at once, a cold process."""

from __future__ import annotations

import dataclasses
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from carousel import _core, modelfile
from carousel.bench import machine
from carousel.bench.allocations import allocations, with_counter
from carousel.bench.layer import Grid
from carousel.bench.report import Report
from carousel.bench.stream_models import models
from carousel.bench.stream_peers import CStep, Peer, onnx_bytes, onnx_session, peers
from carousel.config import ModelConfig, StackConfig
from carousel.errors import NotSupported
from carousel.stream import Stream, Streams
from carousel.stream.examples import model_config, random_weights
from carousel.stream.loading import STORAGE, add_stack

__all__ = ["cold", "from_python", "many", "models", "steps"]

Singles = NDArray[np.float32]
Times = NDArray[np.int64]

SIZES = (32, 64, 128, 256)
STREAMS = 10_000
PAUSE = 0.01  # seconds in which the spinning threads of the contender before fall asleep
AGREE = 2e-5  # of h between contenders, whose sums run in other orders


def steps(grid: Grid) -> Report:
    """Inside the core: how long a row takes, H = I, one layer; float32 beside smaller weights and a step in C."""
    columns = ["H = I", "weights", "p50 us", "p99 us", "p99 / p50", "C step p50 us", "x C", "loss of h"]
    report = Report("one step, inside the core", columns, machine.describe())
    for size in _sizes(grid):
        layer, rows = _layer(size), _rows(size, 2000)
        by_hand = _c_step(layer, rows)
        exact: Singles | None = None
        for storage in STORAGE:
            stack = _stack(layer, storage)
            y = np.empty((200, size), np.float32)
            stack.run(rows[:200], None, y)
            if exact is None:
                exact = y
                _agree("the core", y[-1], _after(layer, rows[:200]))
            times = _until(grid.seconds, partial(_timed, stack.timed, rows))
            p50, p99 = (float(np.quantile(times, q)) / 1000 for q in (0.5, 0.99))
            loss = float(np.abs(y - exact).max()) if storage != "float32" else None
            gain = None if by_hand is None else by_hand / p50
            report.rows.append([size, storage, p50, p99, p99 / p50, by_hand, gain, loss])
    report.notes.append(
        "loss: largest difference of h from float32 weights over 200 rows; clock calls (25 ns) included"
    )
    return report


def from_python(grid: Grid) -> Report:
    """`Stream.push(array)` beside one step of others, called from Python: the row is given and the state kept."""
    columns = ["H = I", "contender", "p50 us", "p99 us", "p99 / p50", "x slower than push", "mallocs a row"]
    report = Report("one row from Python", columns, machine.describe())
    for size in _sizes(grid):
        layer, row = _layer(size), _rows(size, 1)[0]
        contenders = [_pushing(layer, row), *peers(layer, row)]
        _compare(contenders, layer, row)
        timed = _alternate([c.step for c in contenders], grid.seconds)
        own = statistics.median(timed[0])
        counts = _counts(size)
        for contender, times in zip(contenders, timed, strict=True):
            p50, p99 = (float(np.quantile(times, q)) / 1000 for q in (0.5, 0.99))
            report.rows.append(
                [size, contender.name, p50, p99, p99 / p50, p50 * 1000 / own, counts.get(contender.name)]
            )
    report.notes.append("push also scales the row, runs the head and a softmax, and makes a dict")
    report.notes.append(
        "mallocs: calls of malloc, calloc and realloc of the C library; CPython's small objects make none"
    )
    return report


def _counts(size: int) -> dict[str, float]:
    """Allocations of each contender, counted in a process of their own."""
    done = with_counter(["-c", f"from carousel.bench.stream import print_counts; print_counts({size})"])
    found: dict[str, float] = json.loads(done.stdout) if done and not done.returncode else {}
    return found


def print_counts(size: int) -> None:
    """What `_counts` reads."""
    layer, row = _layer(size), _rows(size, 1)[0]
    contenders = [_pushing(layer, row), *peers(layer, row)]
    sys.stdout.write(json.dumps({c.name: allocations(c.step) for c in contenders}))


def many(grid: Grid) -> Report:
    """10,000 streams stepped together on one thread, beside ONNX Runtime with gather and scatter in NumPy."""
    columns = ["H", "I", "contender", "million rows / s", "x ONNX Runtime"]
    report = Report(f"{STREAMS:,} streams", columns, machine.describe())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for size in _sizes(grid)[:2] if grid.hidden else SIZES[:2]:
        for inputs in dict.fromkeys((8, size)):
            layer = _layer(size, inputs)
            contenders = {"Streams.push": _stepping(layer), "ONNX Runtime, gather and scatter": _gathering(layer)}
            spans = _alternate(list(contenders.values()), 4 * grid.seconds, inner=1, clock=time.thread_time_ns)
            rates = {n: STREAMS / statistics.median(t) * 1000 for n, t in zip(contenders, spans, strict=True)}
            peer = list(rates.values())[-1]
            report.rows += [[size, inputs, name, rate, rate / peer] for name, rate in rates.items()]
    torch.set_num_threads(threads)
    report.notes.append("CPU time of the calling thread, medians; ids are looked up, states gathered and scattered")
    return report


def cold(grid: Grid) -> Report:
    """A process that imports, loads a model of H = 64 and takes its first row: CPU time and peak memory."""
    report = Report("cold process", ["contender", "CPU ms", "wall ms", "peak MiB"], machine.describe())
    with tempfile.TemporaryDirectory() as folder:
        path = _model(_layer(64), Path(folder) / "m.safetensors")
        torch_path, onnx_path = Path(folder) / "m.pt", Path(folder) / "m.onnx"
        torch.save(_layer(64).state_dict(), torch_path)
        runs = {
            "Stream": (_COLD_STREAM, path),
            "bare NumPy": ("import numpy", path),
            "torch": (_COLD_TORCH, torch_path),
        }
        if find_spec("onnx") and find_spec("onnxruntime"):
            onnx_path.write_bytes(onnx_bytes(_layer(64)))
            runs["ONNX Runtime"] = (_COLD_ONNX, onnx_path)
        rounds = max(3, min(9, int(5 * grid.seconds)))
        for name, (code, file) in runs.items():
            report.rows.append([name, *_process(code, file, rounds)])
    return report


_COLD_STREAM = "import sys, carousel; carousel.Stream(sys.argv[1]).push([0.1] * 64); assert 'torch' not in sys.modules"
_COLD_TORCH = (
    "import sys, torch; m = torch.nn.LSTM(64, 64); m.load_state_dict(torch.load(sys.argv[1], weights_only=True))\n"
    "m(torch.zeros(1, 1, 64))"
)
_COLD_ONNX = (
    "import sys, numpy as np, onnxruntime as o\n"
    "s = o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
    "z = np.zeros((1, 1, 64), np.float32); s.run(None, {'X': z, 'h0': z, 'c0': z})"
)


def _process(code: str, file: Path, rounds: int) -> tuple[float, float, float]:
    """Least CPU and wall milliseconds and the peak MiB of a process."""
    memory = "\nprint(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    cpu, wall, peak = [], [], 0.0
    for _ in range(rounds):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-c", code + memory, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        wall.append(1000 * (time.perf_counter() - started))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
        peak = max(peak, int(done.stdout.split()[-1]) / 1024)
    return min(cpu), min(wall), peak


def _sizes(grid: Grid) -> tuple[int, ...]:
    return tuple(size for size in grid.hidden if size <= max(SIZES))


def _layer(size: int, inputs: int | None = None) -> nn.LSTM:
    torch.manual_seed(size)
    return nn.LSTM(inputs or size, size).eval()


def _rows(size: int, count: int) -> Singles:
    return np.random.default_rng(size).normal(size=(count, size)).astype(np.float32)


def _after(layer: nn.LSTM, rows: Singles) -> Singles:
    with torch.inference_mode():
        found: Singles = layer(torch.from_numpy(rows)[:, None])[1][0].numpy().reshape(-1)
    return found


def _stack(layer: nn.LSTM, storage: str) -> Any:
    weights = {f"stack.{name}": w.detach().numpy() for name, w in layer.named_parameters()}
    made = _core.Stack()
    add_stack(made.add_layer, StackConfig(layer.hidden_size), weights, "", layer.input_size, storage)
    return made


def _c_step(layer: nn.LSTM, rows: Singles) -> float | None:
    """Its p50 in microseconds, None without a compiler."""
    try:
        made = CStep(layer)
    except FileNotFoundError:
        return None
    made.run(rows[:200], np.empty(200, np.int64))
    _agree("the step in C", made.h, _after(layer, rows[:200]))
    times = _until(1.0, partial(_timed, made.run, rows))
    return float(np.median(times)) / 1000


def _timed(run: Callable[[Singles, Times], object], rows: Singles) -> Times:
    nanoseconds = np.empty(len(rows), np.int64)
    run(rows, nanoseconds)
    return nanoseconds


def _until(seconds: float, run: Callable[[], Times]) -> Times:
    """At least that long, all times together; the first round warms up."""
    run()
    found, started = [], time.perf_counter()
    while time.perf_counter() - started < seconds:
        found.append(run())
    return np.concatenate(found)


def _agree(name: str, found: Singles, expected: Singles) -> None:
    off = float(np.abs(found - expected).max())
    if not off <= AGREE:
        raise ArithmeticError(f"{name}: h is off by {off:.2e} (allowed {AGREE:g})")


def _model(layer: nn.LSTM, path: Path) -> Path:
    """A tagger with this layer, whose columns are taken as they are."""
    config = model_config(layer.input_size, layer.hidden_size)
    columns = tuple(dataclasses.replace(c, mean=0.0, scale=1.0) for c in config.input.columns)
    config = ModelConfig("tag", dataclasses.replace(config.input, columns=columns), config.stack, config.head)
    weights = random_weights(config) | {f"0.stack.{n}": w.detach().numpy() for n, w in layer.named_parameters()}
    modelfile.write(path, weights, {"format": modelfile.FORMAT, "model": config.to_json(), "provenance": {}})
    return path


def _pushing(layer: nn.LSTM, x: Singles) -> Peer:
    with tempfile.TemporaryDirectory() as folder:
        stream = Stream(_model(layer, Path(folder) / "m.safetensors"))
    row, push = x.astype(np.float64), stream.push
    twin = _stack(layer, "float32")

    def h() -> Singles:
        """Of a stack that took as many rows; that both have the same bits is tested."""
        twin.reset()
        twin.run(np.repeat(x[None], stream.rows, 0), None, None)
        top = np.empty(layer.hidden_size, np.float32)
        twin.top(top)
        return top

    return Peer("Stream.push", lambda: push(row), h, stream.reset)


def _compare(contenders: Sequence[Peer], layer: nn.LSTM, row: Singles) -> None:
    expected = _after(layer, np.repeat(row[None], 20, 0))
    for contender in contenders:
        contender.reset()
        for _ in range(20):
            contender.step()
        _agree(contender.name, contender.h(), expected)


def _alternate(
    runs: Sequence[Callable[[], object]],
    seconds: float,
    inner: int = 200,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[list[int]]:
    """Nanoseconds of each call, the contenders in turns of `inner` calls."""
    found: list[list[int]] = [[] for _ in runs]
    rounds, started = 0, time.perf_counter()
    gc.disable()
    try:
        while rounds < 5 or time.perf_counter() - started < seconds * len(runs):
            for run, times in zip(runs, found, strict=True):
                time.sleep(PAUSE)
                run()
                for _ in range(inner):
                    before = clock()
                    run()
                    times.append(clock() - before)
            rounds += 1
    finally:
        gc.enable()
    return found


def _stepping(layer: nn.LSTM) -> Callable[[], object]:
    with tempfile.TemporaryDirectory() as folder:
        streams = Streams(_model(layer, Path(folder) / "m.safetensors"))
    ids = np.random.default_rng(0).permutation(STREAMS)
    for k in range(STREAMS):
        streams.open(k)
    rows = np.random.default_rng(1).normal(size=(STREAMS, layer.input_size))
    return lambda: streams.push(ids, rows)


def _gathering(layer: nn.LSTM) -> Callable[[], object]:
    try:
        session = onnx_session(layer)
    except ModuleNotFoundError as error:
        raise NotSupported("the comparison of many streams needs onnx and onnxruntime; install them.") from error
    rng = np.random.default_rng(0)
    ids = rng.permutation(STREAMS)
    rows = rng.normal(size=(STREAMS, layer.input_size)).astype(np.float32)
    h, c = (np.zeros((STREAMS, layer.hidden_size), np.float32) for _ in range(2))

    def run() -> None:
        h[ids], c[ids] = (
            out[0] for out in session.run(None, {"X": rows[None], "h0": h[ids][None], "c0": c[ids][None]})
        )

    return run
