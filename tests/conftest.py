"""What every test shares: fixed seeds, and torch's number of threads put back afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    np.random.seed(20240131)  # noqa: NPY002 - for code of others that draws from the global generator
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(20240131)
        threads = torch.get_num_threads()
    yield
    if torch is not None:
        torch.set_num_threads(threads)
