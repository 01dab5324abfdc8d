"""Handwritten digits read pixel by pixel."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from carousel.datasets.examples import Examples
from carousel.errors import MissingExtra
from carousel.ragged import Ragged

__all__ = ["digits"]


def digits(*, permuted: bool = False, seed: int = 0, test: float = 0.2) -> tuple[Examples, Examples]:
    """scikit-learn's 1,797 digits of 8 x 8 pixels (Alpaydin & Kaynak 1998) as sequences of 64 steps: train and test.

    Values lie in [0, 1]; the class is asked at the end. The split is stratified; `permuted` shuffles the pixels, all
    images alike (Le et al. 2015). Raises MissingExtra without scikit-learn.

    >>> train, test = digits()
    >>> len(train.x), len(test.x), train.x[0].shape
    (1438, 359, (64, 1))
    """
    if not 0 < test < 1:
        raise ValueError(f"test is a share in (0, 1), got {test}")
    found = find_spec("sklearn")  # its data are read without it: importing it brings a second OpenMP runtime
    if found is None or found.origin is None:
        raise MissingExtra("sklearn", "train", "carousel.datasets.digits")
    with gzip.open(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    rng = np.random.default_rng([seed, 0xD1])
    pixels, label = table[:, :64] / 16, table[:, 64].astype(np.int64)
    if permuted:
        pixels = pixels[:, rng.permutation(64)]
    held = np.zeros(len(label), bool)
    for k in range(10):
        own = rng.permutation(np.flatnonzero(label == k))
        held[own[: round(test * len(own))]] = True
    return _examples(pixels[~held], label[~held]), _examples(pixels[held], label[held])


def _examples(pixels: np.ndarray, label: np.ndarray) -> Examples:
    offsets = np.arange(len(label) + 1) * pixels.shape[1]
    return Examples(Ragged(np.ascontiguousarray(pixels.reshape(-1, 1)), offsets), offsets[1:] - 1, label)
