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
    contents = _contents(given)
    which = np.linspace(0, len(contents) - 1, min(KEPT, len(contents))).astype(int)
    return b64encode(b"".join(_mark(contents[k]) for k in which)).decode()


def with_remembered(found: Audit, marked: str, given: Any) -> Audit:
    """The audit of an evaluation without the training data, with a finding where sequences have the marks `marked`."""
    contents, whole = _contents(given), b64decode(marked)
    known = {whole[k : k + SIZE] for k in range(0, len(whole), SIZE)}
    if not known or not contents:
        return found
    same = known & {_mark(content) for content in contents}
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


def _contents(given: Any) -> list[bytes]:
    if isinstance(given, Corpus):
        return [" ".join(given.words(k)).encode() for k in range(len(given.ids))]
    if not isinstance(given, Sequences):
        return []
    return [
        given.features[a:b].tobytes() + static.tobytes()
        for a, b, static in zip(given.offsets, given.offsets[1:], given.static, strict=False)
    ]


def _mark(content: bytes) -> bytes:
    return blake2b(content, digest_size=SIZE).digest()
