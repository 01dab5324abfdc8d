"""What a figure must be read with: processor, instruction set, threads, versions, and the machine's own GEMM rate."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from pathlib import Path

import torch

__all__ = ["describe", "gemm_rate"]

PEERS = ("torch", "numpy", "onnxruntime", "openvino", "keras", "tensorflow", "jax")


def describe() -> dict[str, str | int]:
    """Machine and versions, as one flat mapping."""
    from carousel import _core

    found: dict[str, str | int] = {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "isa": _core.instruction_set(),
        "python": platform.python_version(),
        "carousel": importlib.metadata.version("carousel-lstm"),
    }
    for package in PEERS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def gemm_rate(dtype: torch.dtype = torch.float32, size: int = 1024, rounds: int = 15) -> float:
    """The best square matrix product that torch does here, in FLOP/s: the roof of the tables."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    torch.mm(a, b)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(times)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in _lines(info) if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
