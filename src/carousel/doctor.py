"""What this installation can do, and why not more: versions, instruction sets, backends, OpenMP runtimes, extras."""

from __future__ import annotations

import importlib
import importlib.metadata as metadata
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

__all__ = ["examine", "render"]

_FLAGS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve")
_OPENMP = re.compile(r"lib(?:g|i|)omp[\w.-]*\.(?:so|dylib)[\w.]*$")
_OPTIONAL = re.compile(r"""^(?P<name>[\w.-]+)[^;]*;\s*extra\s*==\s*['"](?P<extra>[\w-]+)['"]""")


def examine() -> dict[str, Any]:
    """Everything as plain JSON values; `problems` holds one sentence for each thing that is broken here."""
    problems: list[str] = []
    backends = _backends(problems)
    threads = _threads()
    runtimes = _openmp()
    ours = [path for path in runtimes if "scikit_learn.libs" not in path]  # idle: its regressions run in the BLAS
    if len(ours) > 1:
        problems.append(
            f"{len(ours)} OpenMP runtimes are loaded ({', '.join(ours)}), whose threads slow each other down: install "
            "torch and carousel-lstm into one fresh environment."
        )
    return {
        "versions": _versions(),
        "cpu": _cpu(),
        "gpu": _gpu(),
        "backends": backends,
        "threads": threads,
        "openmp": runtimes,
        "extras": _extras(),
        "problems": problems,
    }


def render(found: dict[str, Any]) -> str:
    """The same for people, as lines of text."""
    cpu = found["cpu"]
    lines = [
        *(f"{name:<14}{version}" for name, version in found["versions"].items()),
        f"{'cpu':<14}{cpu['name']}, {cpu['cores']} cores",
        f"{'instructions':<14}{', '.join(cpu['instructions']) or 'unknown'}; native core: {cpu['native']}",
        f"{'gpu':<14}{found['gpu']}",
        *(f"{'backend':<14}{name}: {why or 'ready'}" for name, why in found["backends"].items()),
        *(f"{'threads':<14}{name}: {count}" for name, count in found["threads"].items()),
        *(f"{'openmp':<14}{path}" for path in found["openmp"]),
    ]
    for extra, packages in found["extras"].items():
        missing = [name for name, version in packages.items() if version is None]
        state = f"lacks {', '.join(missing)}: pip install 'carousel-lstm[{extra}]'" if missing else "complete"
        lines.append(f"{'extra':<14}{extra}: {state}")
    lines += [f"{'problem':<14}{sentence}" for sentence in found["problems"]]
    return "\n".join(lines if found["problems"] else [*lines, f"{'problems':<14}none"])


def _versions() -> dict[str, str]:
    names = ("carousel-lstm", "numpy", "safetensors", "torch")
    found = {name: version for name in names if (version := _version(name))}
    return {"python": platform.python_version(), "system": platform.platform(), **found}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    available = getattr(os, "sched_getaffinity", None)
    return {
        "name": name[1] if name else platform.processor() or platform.machine(),
        "cores": len(available(0)) if available else os.cpu_count(),
        "instructions": [flag for flag in _FLAGS if flag in present],
        "native": _native(),
    }


def _native() -> str:
    try:
        core = importlib.import_module("carousel._core")
    except ImportError as error:
        return f"not loaded ({error})"
    return str(core.instruction_set())


def _gpu() -> str:
    if _version("torch") is None:
        return "unknown without torch"
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none that torch sees"


def _backends(problems: list[str]) -> dict[str, str | None]:
    """Why each backend cannot run the plain cell in float32 on the CPU here; None where it can."""
    if _version("torch") is None:
        return {"all": "torch is not installed: pip install 'carousel-lstm[train]'"}
    import torch

    from carousel.backends import BACKENDS, load
    from carousel.cell import CellSpec

    found: dict[str, str | None] = {}
    for name in BACKENDS:
        try:
            with torch.no_grad():
                found[name] = load(name).supports(CellSpec(), torch.device("cpu"), torch.float32)
        except ImportError as error:
            found[name] = f"it cannot be loaded ({error})"
            problems.append(f"backend {name} cannot be loaded ({error}): build it again with pip install -e .")
    return found


def _threads() -> dict[str, int | str]:
    found: dict[str, int | str] = {}
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        found |= {"torch": torch.get_num_threads(), "torch between operators": torch.get_num_interop_threads()}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
        if name in os.environ:
            found[name] = os.environ[name]
    if _version("threadpoolctl"):
        from threadpoolctl import threadpool_info

        found |= {
            f"{pool['internal_api']} of {Path(pool['filepath']).name}": pool["num_threads"]
            for pool in threadpool_info()
        }
    return found


def _openmp() -> list[str]:
    """The OpenMP runtimes in this process, after the native core and torch have been loaded; Linux only."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    paths = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if line.count("/")}
    return sorted(path for path in paths if _OPENMP.search(path))


def _extras() -> dict[str, dict[str, str | None]]:
    """Of each extra, its packages with their versions, None where one is not installed."""
    found: dict[str, dict[str, str | None]] = {}
    for line in metadata.requires("carousel-lstm") or []:
        match = _OPTIONAL.match(line)
        if match and match["name"] != "carousel-lstm":
            found.setdefault(match["extra"], {})[match["name"]] = _version(match["name"])
    return found
