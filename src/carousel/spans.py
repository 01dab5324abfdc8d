"""Spans of words in labels such as B-city and I-city, and how many of them were found: the F1 of slots and names.

The definition of conlleval (Tjong Kim Sang & De Meulder 2003), which seqeval follows: a span counts where its kind, its
beginning and its end are all right.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["span_scores", "spans_of"]

Span = tuple[str, int, int]

BEGINS, ENDS, INSIDE = "BSU", "ELSU", "IEML"


def spans_of(labels: Sequence[str]) -> list[Span]:
    """The spans of one text: kind, first word, and the last one, of labels in BIO, IOB, BIOES or BILOU.

    A label that says only "inside" begins a span where none of its kind goes on.

    >>> spans_of(["B-city", "I-city", "O", "I-date", "B-date"])
    [('city', 0, 1), ('date', 3, 3), ('date', 4, 4)]
    """
    found: list[Span] = []
    begin, kind, mark = 0, "", "O"
    for k, label in enumerate([*labels, "O"]):
        marked = label[1:2] == "-" and label[0] in BEGINS + ENDS + INSIDE
        now, name = (label[0], label[2:]) if marked else ("O", "")
        goes_on = mark != "O" and now in INSIDE and name == kind and mark not in ENDS
        if mark != "O" and not goes_on:
            found.append((kind, begin, k - 1))
        if now != "O" and not goes_on:
            begin = k
        mark, kind = now, name
    return found


def span_scores(truth: Sequence[Sequence[Span]], made: Sequence[Sequence[Span]]) -> tuple[float, float, float]:
    """Precision, recall and F1 over all spans of all texts; 0 where there is nothing to divide by.

    >>> span_scores([[("city", 0, 1), ("date", 3, 3)]], [[("city", 0, 1)]])
    (1.0, 0.5, 0.6666666666666666)
    """
    right = sum(len(set(a) & set(b)) for a, b in zip(truth, made, strict=True))
    asked, given = sum(map(len, truth)), sum(map(len, made))
    precision, recall = right / given if given else 0.0, right / asked if asked else 0.0
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0.0
