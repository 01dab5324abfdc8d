"""Marks of what a model was trained on, kept in its file, so that figures on its own training data are called so."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np

from carousel.inputs.corpus import Corpus
from carousel.inputs.rows import Sequences
from carousel.trust.leaks import Audit, Finding

__all__ = ["marks", "with_remembered"]

KEPT = 256  # sequences, evenly spaced among all
SIZE = 6  # bytes of a mark


def marks(given: Any) -> str:
    """Marks of at most 256 of the sequences or texts, one after another; none of clips."""
    count = _count(given)
    which = np.linspace(0, count - 1, min(KEPT, count)).astype(int)
    return b64encode(b"".join(_mark(given, k) for k in which)).decode()


def with_remembered(found: Audit, marked: str, given: Any) -> Audit:
    """The audit of an evaluation without the training data, with a finding where sequences have the marks `marked`."""
    count, whole = _count(given), b64decode(marked)
    known = {whole[k : k + SIZE] for k in range(0, len(whole), SIZE)}
    if not known or not count:
        return found
    same = known & {_mark(given, k) for k in range(count)}
    reasons = dict(found.unchecked)
    reasons["duplicates"] = f"of the training data only {len(known):,} sequences are known, by their marks"
    if not same:
        return replace(found, unchecked=reasons)
    del reasons["duplicates"]
    sentence = (
        f"{len(same):,} of {len(known):,} training sequences that the model remembers are in these data, value for"
        " value: leave them out, or judge it on other data."
    )
    return Audit((*found.findings, Finding("duplicates", "", sentence)), (*found.checked, "duplicates"), reasons)


def _count(given: Any) -> int:
    return len(given.ids) if isinstance(given, Corpus | Sequences) else 0


def _mark(given: Corpus | Sequences, k: int) -> bytes:
    if isinstance(given, Corpus):
        content = " ".join(given.words(k)).encode()
    else:
        content = given.features[given.offsets[k] : given.offsets[k + 1]].tobytes() + given.static[k].tobytes()
    return blake2b(content, digest_size=SIZE).digest()
