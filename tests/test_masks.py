"""The dropout masks: literal draws worked out in plain Python integers, and the statistics that they promise."""

from __future__ import annotations

import numpy as np
import pytest

from carousel.masks import STREAMS, hit, threshold

# rows (sequence 0, step 0), (3, 11), (70000, 2); 24 units; probability one half
GOLDEN = {
    (7, 1): ["010110100011000101101010", "000010001010011100011111", "110111010001011100110111"],
    (2**61 + 5, 2): ["010111110100110001100010", "110000010001101011110101", "111001011010000011001010"],
    (123456789, 3): ["000010011010110101110000", "110001101001111110010110", "111000100100100110011100"],
}
MASK64, MASK32 = 2**64 - 1, 2**32 - 1


def _mix64(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)


def _mix32(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK32
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK32
    return x ^ (x >> 16)


def _draw(seed: int, stream: int, sequence: int, step: int, unit: int) -> int:
    key = _mix64((seed + 0x9E3779B97F4A7C15 * stream) & MASK64)
    row = _mix64(key ^ ((sequence << 32) | step))
    return _mix32(_mix32((unit * 0x9E3779B1 + (row & MASK32)) & MASK32) ^ (row >> 32))


@pytest.mark.parametrize(("seed", "stream"), list(GOLDEN))
def test_literal_draws(seed: int, stream: int):
    found = hit(0.5, seed, stream, np.array([0, 3, 70000]), np.array([0, 11, 2]), 24)
    assert ["".join("01"[int(v)] for v in row) for row in found] == GOLDEN[seed, stream]


def test_plain_integers_give_the_same_draws():
    generator = np.random.default_rng(1)
    sequence, step = generator.integers(0, 2**31, 20), generator.integers(0, 2**31, 20)
    for seed in (0, 1, 2**62, 2**63 - 1):
        for probability in (0.01, 0.3, 0.999):
            found = hit(probability, seed, 2, sequence, step, 17)
            limit = int(probability * 2**32)
            for row in range(20):
                for unit in (0, 1, 16):
                    draw = _draw(seed, 2, int(sequence[row]), int(step[row]), unit)
                    assert found[row, unit] == (draw < limit)


def test_the_streams_are_fixed():
    assert STREAMS == {"recurrent_dropout": 1, "zoneout_c": 2, "zoneout_h": 3}
    assert [threshold(p) for p in (0.0, 0.5, 1.0)] == [0, 2**31, 2**32 - 1]


@pytest.mark.parametrize("probability", [0.05, 0.3, 0.5, 0.9])
def test_frequencies_and_independence(probability: float):
    """200 sequences, 50 steps, 64 units; every share lies within 5 standard deviations of what is promised."""
    sequence, step = (v.ravel() for v in np.meshgrid(np.arange(200), np.arange(50), indexing="ij"))
    draws = {
        (seed, stream): hit(probability, seed, stream, sequence, step, 64).astype(float).reshape(200, 50, 64)
        for seed, stream in ((1, 1), (2, 1), (1, 2))
    }
    mask = draws[1, 1]
    deviation = (probability * (1 - probability)) ** 0.5
    assert abs(mask.mean() - probability) < 5 * deviation / mask.size**0.5
    for axes in ((0, 1), (0, 2), (1, 2)):  # no unit, step or sequence is favoured
        share = mask.mean(axis=axes)
        count = mask.size / share.size
        assert np.abs(share - probability).max() < 5 * deviation / count**0.5
    neighbours = [
        (mask[1:], mask[:-1]),
        (mask[:, 1:], mask[:, :-1]),
        (mask[:, :, 1:], mask[:, :, :-1]),
        (mask, draws[2, 1]),
        (mask, draws[1, 2]),
    ]
    for a, b in neighbours:
        correlation = ((a - probability) * (b - probability)).mean() / deviation**2
        assert abs(correlation) < 5 / a.size**0.5


def test_draws_do_not_depend_on_the_other_rows():
    sequence, step = np.array([4, 0, 9]), np.array([2, 5, 1])
    together = hit(0.4, 11, 3, sequence, step, 33)
    for row in range(3):
        np.testing.assert_array_equal(
            hit(0.4, 11, 3, sequence[row : row + 1], step[row : row + 1], 33)[0], together[row]
        )
    np.testing.assert_array_equal(hit(0.4, 11, 3, sequence[::-1], step[::-1], 33), together[::-1])
    np.testing.assert_array_equal(hit(0.4, 11, 3, sequence, step, 12), together[:, :12])
