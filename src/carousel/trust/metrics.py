"""The field's metrics of classifiers and regressors, in NumPy; every one says what it is of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["auroc", "average_precision", "binary_scores", "class_scores", "ece", "number_scores"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Scores = dict[str, float | None]
TINY = 1e-15  # probabilities of the log loss are kept this far from 0 and 1


def auroc(truth: Bools, score: Floats) -> float | None:
    """Area under the receiver operating characteristic: P(score of a positive > score of a negative), ties half.

    None where a class is absent (Hanley & McNeil 1982).

    >>> auroc(np.array([False, True, False, True]), np.array([0.1, 0.4, 0.35, 0.8]))
    1.0
    """
    truth = np.asarray(truth, bool)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]  # of ties the mean rank
    return float((rank[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(truth: Bools, score: Floats) -> float | None:
    """Sum over thresholds of precision times the gain of recall, as scikit-learn has it; None without a positive.

    >>> average_precision(np.array([False, True, False, True]), np.array([0.9, 0.4, 0.35, 0.8]))
    0.5833333333333333
    """
    truth = np.asarray(truth, bool)
    if not truth.any():
        return None
    order = np.argsort(-score, kind="stable")
    hits, ranked = np.cumsum(truth[order]), score[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of equal scores all come at once
    found = hits[last]
    gain = np.diff(found, prepend=0)
    return float((found / (last + 1) * gain).sum() / hits[-1])


def ece(truth: Bools, probability: Floats, bins: int = 10) -> float:
    """Expected calibration error over bins of equal count: mean |observed share - mean probability|.

    Source: Naeini et al. 2015, with equal-mass bins (Nixon et al. 2019), since probabilities of rare events crowd at 0.

    >>> ece(np.array([False, True, False, True]), np.array([0.5, 0.5, 0.5, 0.5]), bins=1)
    0.0
    """
    order = np.argsort(probability, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    gaps = [abs(float(np.mean(truth[p])) - float(np.mean(probability[p]))) * len(p) for p in parts if len(p)]
    return float(sum(gaps) / len(order))


def reliability(truth: Bools, probability: Floats, bins: int = 10) -> list[tuple[float, float, int]]:
    """Mean probability, observed share and count of each bin of equal count."""
    order = np.argsort(probability, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return [(float(probability[p].mean()), float(truth[p].mean()), len(p)) for p in parts if len(p)]


def binary_scores(truth: Bools, probability: Floats, threshold: float = 0.5) -> Scores:
    """AUROC, AP, F1, precision and recall at the threshold, balanced accuracy, accuracy, log loss, Brier, ECE."""
    truth = np.asarray(truth, bool)
    said = probability >= threshold
    both = int((truth & said).sum())
    recall = both / truth.sum() if truth.any() else None
    specificity = float((~truth & ~said).sum() / (~truth).sum()) if (~truth).any() else None
    p = np.clip(probability, TINY, 1 - TINY)
    halves = [r for r in (recall, specificity) if r is not None]
    return {
        "auroc": auroc(truth, probability),
        "ap": average_precision(truth, probability),
        "f1": float(2 * both / (truth.sum() + said.sum())) if truth.any() or said.any() else None,
        "precision": float(both / said.sum()) if said.any() else None,
        "recall": None if recall is None else float(recall),
        "balanced_accuracy": float(np.mean(halves)),
        "accuracy": float((truth == said).mean()),
        "log_loss": float(-np.where(truth, np.log(p), np.log1p(-p)).mean()),
        "brier": float(np.square(probability - truth).mean()),
        "ece": ece(truth, probability),
    }


def class_scores(truth: NDArray[np.int64], probability: Floats) -> Scores:
    """Of C >= 3 classes: accuracy, balanced accuracy, F1, one-versus-rest AUROC and AP, log loss, Brier, ECE.

    `truth` [n] in 0 ... C - 1, `probability` [n, C]. Means are over the classes that occur in `truth`; Brier is the sum
    over classes (Brier 1950), ECE is of the largest probability (Guo et al. 2017).
    """
    said = probability.argmax(1)
    present = np.unique(truth)
    recalls, f1s, areas, precisions = [], [], [], []
    for k in present:
        own, hit = truth == k, said == k
        both = (own & hit).sum()
        recalls.append(both / own.sum())
        f1s.append(2 * both / (own.sum() + hit.sum()))
        areas.append(auroc(own, probability[:, k]))
        precisions.append(average_precision(own, probability[:, k]))
    chosen = np.clip(probability[np.arange(len(truth)), truth], TINY, 1)
    onehot = np.eye(probability.shape[1])[truth]
    known = [a for a in areas if a is not None]
    return {
        "accuracy": float((said == truth).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "f1": float(np.mean(f1s)),
        "auroc": float(np.mean(known)) if known else None,
        "ap": float(np.mean([p for p in precisions if p is not None])),
        "log_loss": float(-np.log(chosen).mean()),
        "brier": float(np.square(probability - onehot).sum(1).mean()),
        "ece": ece(said == truth, probability.max(1)),
    }


def number_scores(truth: Floats, made: Floats, low: Floats | None = None, high: Floats | None = None) -> Scores:
    """RMSE, MAE and R2 of predicted numbers; with bounds also how often and how widely these cover the truth."""
    error = made - truth
    spread = float(np.square(truth - truth.mean()).mean())
    found: Scores = {
        "rmse": float(np.sqrt(np.square(error).mean())),
        "mae": float(np.abs(error).mean()),
        "r2": 1 - float(np.square(error).mean()) / spread if spread > 0 else None,
    }
    if low is not None and high is not None:
        found["coverage"] = float(((low <= truth) & (truth <= high)).mean())
        found["width"] = float((high - low).mean())
    return found


def spread(values: list[Any]) -> tuple[float, float] | None:
    """Mean and standard deviation (n - 1) over the seeds; None where fewer than two have the figure."""
    known = [float(v) for v in values if v is not None]
    return (float(np.mean(known)), float(np.std(known, ddof=1))) if len(known) > 1 else None
