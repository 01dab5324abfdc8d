"""Integer arithmetic as the C files do it, in NumPy int64: every function here has a twin in templates/math_int8.c.

A number x of `f` fraction bits stands for x / 2^f. Shifts round to the nearest, halves upwards; what would not fit is
held at the limit, never wrapped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "EXP2",
    "LOG1P_EXP",
    "LOG2",
    "MISSING",
    "SIGMOID",
    "SINE",
    "WIDE",
    "bit_length",
    "divide",
    "exp2_minus",
    "log2_of",
    "quotient",
    "reciprocal",
    "root",
    "rounded",
    "sat",
    "sigmoid16",
    "sine15",
    "softplus16",
    "tanh15",
    "to16",
]

Ints = NDArray[np.int64]

MISSING = -(2**31)  # a value that was not observed
WIDE = 2**30  # the limit of 32-bit values
ZF = 13  # fraction bits of pre-activations
_STEPS = np.arange(193) / 16

SIGMOID = np.minimum(np.rint(65536 / (1 + np.exp(-_STEPS))), 65535).astype(np.uint16)
LOG1P_EXP = np.rint(65536 * np.log1p(np.exp(-_STEPS))).astype(np.uint16)
EXP2 = np.rint(32768 * 2.0 ** -(np.arange(65) / 64)).astype(np.uint16)
LOG2 = np.minimum(np.rint(65536 * np.log2(1 + np.arange(65) / 64)), 65535).astype(np.uint16)
SINE = np.rint(32767 * np.sin(np.arange(65) / 64 * np.pi / 2)).astype(np.int16)


def sat(x: Any, limit: int) -> Ints:
    return np.clip(np.asarray(x, np.int64), -limit, limit)


def rounded(x: Any, shift: int) -> Ints:
    """x / 2^shift.

    >>> rounded(np.array([5, 6, -6]), 2).tolist()
    [1, 2, -1]
    """
    x = np.asarray(x, np.int64)
    return np.asarray(x if shift == 0 else (x + (1 << (shift - 1))) >> shift)


def to16(x: Any, shift: int, limit: int = 32767) -> Ints:
    return sat(rounded(x, shift), limit)


def divide(a: Any, b: Any) -> Ints:
    """a / b to the nearest, b > 0."""
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    return np.asarray((2 * a + b) // (2 * b))


def bit_length(x: Any) -> Ints:
    """Of x >= 0; 0 has none.

    >>> bit_length(np.array([0, 1, 255, 256])).tolist()
    [0, 1, 8, 9]
    """
    x, n = np.asarray(x, np.int64), np.zeros(np.shape(x), np.int64)
    for step in (32, 16, 8, 4, 2, 1):
        more = x >= np.int64(1) << step
        n, x = n + step * more, np.where(more, x >> step, x)
    return np.asarray(n + (x > 0))


def reciprocal(x: Any) -> tuple[Ints, Ints]:
    """2^62 / (x normalised to 32 bits), and the bit length of x, for 1 <= x < 2^32."""
    x = np.asarray(x, np.int64)
    n = bit_length(x)
    return (np.int64(1) << 62) // (x << (32 - n)), n


def quotient(d: Any, by: tuple[Ints, Ints], bits: int) -> Ints:
    """d / x with `bits` fraction bits, from the reciprocal of x; |d| <= 2^31."""
    factor, n = by
    shift = 30 + n - bits
    return sat((np.asarray(d, np.int64) * factor + (np.int64(1) << (shift - 1))) >> shift, WIDE)


def root(x: Any) -> Ints:
    """The whole part of the square root of x < 2^62."""
    x = np.asarray(x, np.int64)
    found = np.zeros(np.shape(x), np.int64)
    for bit in range(30, -1, -1):
        more = found + (1 << bit)
        found = np.where(more * more <= x, more, found)
    return found


def _between(table: NDArray[Any], at: Ints, bits: int) -> Ints:
    """Linear interpolation: `at` has `bits` fraction bits."""
    i, f = at >> bits, at & ((1 << bits) - 1)
    low, high = table[i].astype(np.int64), table[i + 1].astype(np.int64)
    return np.asarray(low + rounded((high - low) * f, bits))


def sigmoid16(z: Any) -> Ints:
    """Of z with 13 fraction bits, 16 of its own: 0 to 65536. Largest error 5e-5."""
    z = np.asarray(z, np.int64)
    a = np.minimum(np.abs(z), 12 << ZF)
    v = np.where(a >= 12 << ZF, int(SIGMOID[192]), _between(SIGMOID, np.minimum(a, (12 << ZF) - 1), ZF - 4))
    return np.where(z < 0, 65536 - v, v)


def tanh15(z: Any) -> Ints:
    """Of z with 13 fraction bits, 15 of its own. Largest error 1e-4."""
    return sigmoid16(2 * np.asarray(z, np.int64)) - 32768


def exp2_minus(y: Any) -> Ints:
    """2^-y of y >= 0 with 16 fraction bits, 15 of its own."""
    y = np.asarray(y, np.int64)
    return np.where(y >= 16 << 16, 0, _between(EXP2, y & 65535, 10) >> np.minimum(y >> 16, 16))


def log2_of(x: Any) -> Ints:
    """Of x >= 1, 16 fraction bits of its own."""
    x = np.asarray(x, np.int64)
    n = bit_length(x) - 1
    f = np.where(n >= 16, x >> np.maximum(n - 16, 0), x << np.maximum(16 - n, 0)) & 65535
    return (n << 16) + _between(LOG2, f, 10)


def softplus16(x: Any) -> Ints:
    """log(1 + exp(x)) of x with 16 fraction bits, 16 of its own."""
    x = np.asarray(x, np.int64)
    a = np.minimum(np.abs(x), 12 << 16)
    rest = np.where(a >= 12 << 16, 0, _between(LOG1P_EXP, np.minimum(a, (12 << 16) - 1), 12))
    return np.asarray(np.maximum(x, 0) + rest)


def sine15(turn: Any) -> Ints:
    """sin(2 pi turn / 65536), 15 fraction bits."""
    turn = np.asarray(turn, np.int64) & 65535
    half = turn & 32767
    v = _between(np.append(SINE, SINE[-1]), np.minimum(half, 32768 - half), 8)
    return np.where(turn >= 32768, -v, v)
