"""How often a call asks the C library for memory: counted by wrappers that the dynamic linker puts before malloc.

Where there is no compiler, or no glibc, nothing is counted.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["LIBRARY", "allocations", "with_counter"]

LIBRARY = "CAROUSEL_MALLOC_COUNTER"  # where a process that counts finds the counter
_SOURCE = """
#include <stddef.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static long long count;
long long malloc_count(void) { return __atomic_load_n(&count, __ATOMIC_RELAXED); }
void *malloc(size_t n) { __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED); return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED); return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED); return __libc_realloc(p, n); }
"""


def allocations(call: Callable[[], object], rounds: int = 1000) -> float | None:
    """Calls of malloc, calloc and realloc a call, on average; None in a process without the counter."""
    path = os.environ.get(LIBRARY)
    if not path:
        return None
    count = ctypes.CDLL(path).malloc_count
    count.restype = ctypes.c_longlong
    for _ in range(20):
        call()
    before = count()
    for _ in range(rounds):
        call()
    return float(count() - before) / rounds


def with_counter(arguments: list[str]) -> subprocess.CompletedProcess[str] | None:
    """Run Python with these arguments and the counter; None where it cannot be built."""
    compiler = next((c for c in ("gcc", "cc", "clang") if shutil.which(c)), None)
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "count.c", Path(folder) / "count.so"
        source.write_text(_SOURCE)
        built = subprocess.run([compiler, "-O2", "-shared", "-fPIC", source, "-o", library], capture_output=True)
        if built.returncode:
            return None
        env = os.environ | {"LD_PRELOAD": str(library), LIBRARY: str(library)}
        return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)
