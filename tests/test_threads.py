"""One OpenMP runtime, no hang after fork, several Python threads at once."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from carousel.lstm import LSTM

RUNTIMES = """
import pathlib
maps = pathlib.Path('/proc/self/maps').read_text().split()
print(len({m for m in maps if any(n in m for n in ('libgomp', 'libomp', 'libiomp'))}))
"""

FORK = """
import os, torch
from carousel.lstm import LSTM
torch.set_num_threads(2)
layer, x = LSTM(64, 64, backend='native'), torch.randn(50, 32, 64)
with torch.no_grad():
    expected = layer(x)[0]
    if (child := os.fork()) == 0:
        os._exit(0 if layer(x)[0].numpy().tobytes() == expected.numpy().tobytes() else 3)
    _, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    ).stdout.strip()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("order", ["torch, carousel._core", "carousel._core, torch"])
def test_one_openmp_runtime_in_either_order_of_import(order: str) -> None:
    assert python(f"import {order}\n{RUNTIMES}") == "1"


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_forked_child_does_not_hang() -> None:
    assert python(FORK) == "0"


def test_several_python_threads_at_once() -> None:
    torch.manual_seed(0)
    layer = LSTM(24, 40, bidirectional=True, backend="native")
    inputs = [torch.randn(30, 8, 24) for _ in range(12)]

    def gradient(x: torch.Tensor) -> torch.Tensor:
        given = x.clone().requires_grad_()
        return torch.autograd.grad(layer(given)[0].square().sum(), given)[0]

    expected = [gradient(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(gradient, inputs), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_obeys_set_num_threads() -> None:
    code = """
import torch, threading
from carousel.lstm import LSTM
torch.set_num_threads(1)
layer, x = LSTM(64, 64, backend='native'), torch.randn(50, 32, 64)
import os
before = len(os.listdir('/proc/self/task'))
with torch.no_grad():
    layer(x)
print(len(os.listdir('/proc/self/task')) - before)
"""
    if sys.platform.startswith("linux"):
        assert python(code) == "0"
