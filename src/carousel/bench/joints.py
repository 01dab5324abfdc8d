"""Joints of people as channels, and clips of them turned, mirrored, stretched and hurried, to learn more from few."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["joint_channels", "moved"]

Floats = NDArray[np.float64]

HIPS, NECK = (5, 6), 0  # of the 15 joints of J-HMDB
MIRROR = (0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13)  # left for right
SHORTEST = 8  # frames of a stretched clip


def joint_channels(clip: Floats) -> Floats:
    """Joints [T, 15, 2] -> channels [T, 225], in units of the person's median torso.

    Places against the clip's middle and against the hips, changes over one and four frames, and the distances of all
    pairs of joints (as in DD-Net, Yang et al. 2019).
    """
    hips = clip[:, HIPS].mean(1)  # [T, 2]
    unit = np.median(np.linalg.norm(clip[:, NECK] - hips, axis=1)) + 1e-6
    joints, middle = clip / unit, hips / unit
    first, second = np.triu_indices(clip.shape[1], 1)
    parts = [
        (joints - np.median(middle, 0)).reshape(len(clip), -1),
        (joints - middle[:, None]).reshape(len(clip), -1),
        _changes(joints, 1).reshape(len(clip), -1),
        _changes(joints, 4).reshape(len(clip), -1),
        np.linalg.norm(joints[:, first] - joints[:, second], axis=-1),
    ]
    return np.concatenate(parts, 1)


def _changes(values: Floats, lag: int) -> Floats:
    """Since `lag` frames before, 0 where there are none."""
    found = np.zeros_like(values)
    lag = min(lag, len(values) - 1)
    if lag:
        found[lag:] = values[lag:] - values[:-lag]
    return found


def moved(clip: Floats, rng: np.random.Generator) -> Floats:
    """The clip as another person may have done it: mirrored or not, turned by some degrees, wider or taller, joints a
    little elsewhere, cut at its ends, slower or faster."""
    made = clip[:, MIRROR] * np.array([-1.0, 1.0]) if rng.random() < 0.5 else clip
    angle = rng.normal(0, 0.12)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    made = (made - made.mean((0, 1))) @ turn * np.exp(rng.normal(0, 0.1, 2))
    made = made + rng.normal(0, 0.01, made.shape) + rng.normal(0, 0.015, (1, *made.shape[1:]))
    low, high = rng.uniform(0, 0.2), rng.uniform(0.8, 1)
    count = max(SHORTEST, round(len(made) * (high - low) * np.exp(rng.normal(0, 0.2))))
    pace = np.linspace(0, 1, count)
    pace = pace + rng.normal(0, 0.08) * np.sin(np.pi * pace)
    at = np.clip(low + (high - low) * pace, 0, 1) * (len(made) - 1)
    before = np.minimum(at.astype(np.int64), len(made) - 2)
    share = (at - before)[:, None, None]
    return np.asarray(made[before] * (1 - share) + made[before + 1] * share)
