"""The contenders of `bench small-data`: three networks of one size, and the strongest usual thing without a network.

Each is a choice of settings tried alike (`GRIDS`), a fit, outputs, and what it costs: bytes, operations for one row.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.adamw import AdamW
from carousel.bench.memory_nets import BLOCKS, Net, build, parameters, size_for
from carousel.bench.small_data_sets import Part, Problem
from carousel.ragged import Ragged

__all__ = ["GRIDS", "NETWORKS", "Fitted", "fit", "kinds", "score"]

HIDDEN, EMBEDDING, BATCH = 48, 32, 64
LEAST, MOST, EPOCHS = 200, 1_500, 20  # updates, and passes over the data
NETWORKS = ("LSTM", "GRU", "Transformer")
TREES, LINEAR = "boosted trees", "linear on n-grams"
GRIDS: dict[str, list[dict[str, float]]] = {
    **{
        kind: [{"rate": r, "dropout": d} for r, d in ((1e-3, 0.3), (3e-3, 0.1), (3e-3, 0.5), (1e-2, 0.3))]
        for kind in NETWORKS
    },
    TREES: [{"rate": r, "leaf": n} for r in (0.05, 0.2) for n in (5, 20)],
    LINEAR: [{"C": c} for c in (0.3, 3.0, 30.0, 300.0)],
}
Array = NDArray[Any]


class Fitted(Protocol):
    """`bytes` of its weights; `operations` (multiplications and additions, or comparisons) for one row, about."""

    bytes: int
    operations: float

    def outputs(self, x: list[Any]) -> Array:
        """Scores of classes [B, K], or numbers [B]."""
        ...


def kinds(problem: Problem) -> tuple[str, ...]:
    return (*NETWORKS, LINEAR if problem.text else TREES)


def fit(kind: str, problem: Problem, part: Part, settings: dict[str, float], seed: int) -> Fitted:
    if kind == TREES:
        return _Trees(problem, part, settings, seed)
    if kind == LINEAR:
        return _Linear(part, settings)
    return _Network(kind, problem, part, settings, seed)


def score(problem: Problem, outputs: Array, y: Array) -> float:
    """Accuracy, or the root of the mean squared error."""
    if problem.kind == "class":
        return float((outputs.argmax(1) == y).mean())
    return float(np.sqrt(((outputs - y) ** 2).mean()))


class _Network:
    """Rows (or an embedding of words) with dropout, a body, its mean and its last row, dropout, a linear answer."""

    def __init__(self, kind: str, problem: Problem, part: Part, settings: dict[str, float], seed: int) -> None:
        torch.manual_seed(seed)
        self.reader: _Words | _Numbers = _Words(part.x) if problem.text else _Numbers(part.x)
        inputs = EMBEDDING if problem.text else self.reader.width
        wanted = parameters(build("LSTM", inputs=inputs, outputs=1, size=HIDDEN))
        size = size_for(kind, inputs, 1, wanted)
        body = build(kind, inputs=inputs, outputs=1, size=size)
        words = self.reader.width if problem.text else 0
        self.net = _Classifier(body, words, size, problem.outputs, settings["dropout"])
        self.bytes = 4 * parameters(self.net)
        steps = float(np.mean([len(x) for x in part.x]))
        self.operations = _operations(kind, inputs, size, steps)
        self.kind = problem.kind
        y = part.y.astype(np.float64)
        numbers = problem.kind == "number"
        self.mean = float(y.mean()) if numbers else 0.0
        self.spread = max(float(y.std()), 1e-6) if numbers else 1.0
        self._train(part, settings["rate"], seed)

    def _train(self, part: Part, rate: float, seed: int) -> None:
        rng, seen = np.random.default_rng([seed, 0x5D]), self.reader.read(part.x)
        y = torch.from_numpy((part.y - self.mean) / self.spread if self.kind == "number" else part.y)
        updates = int(np.clip(EPOCHS * len(part) / BATCH, LEAST, MOST))
        groups = [{"params": list(self.net.parameters()), "weight_decay": 1e-2}]
        optimizer, order = AdamW(groups), np.zeros(0, np.int64)
        self.net.train()
        for k in range(updates):
            while len(order) < BATCH:
                order = np.concatenate([order, rng.permutation(len(part))])
            chosen, order = torch.from_numpy(order[:BATCH]), order[BATCH:]
            optimizer.zero_grad()
            found = self.net(seen[chosen])
            own = y[chosen]
            loss = F.cross_entropy(found, own) if self.kind == "class" else F.mse_loss(found[:, 0], own.float())
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            groups[0]["lr"] = rate * min(1.0, (k + 1) / 20) * (0.505 + 0.495 * math.cos(math.pi * k / updates))
            optimizer.step()

    @torch.no_grad()
    def outputs(self, x: list[Any]) -> Array:
        self.net.eval()
        found = [self.net(self.reader.read(x[k : k + 256])) for k in range(0, len(x), 256)]
        made = torch.cat(found).numpy()
        return made if self.kind == "class" else np.asarray(made[:, 0] * self.spread + self.mean)


class _Classifier(nn.Module):
    def __init__(self, net: Net, words: int, size: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, EMBEDDING) if words else None
        self.body, self.dropout = net.body, nn.Dropout(dropout)
        self.answer = nn.Linear(2 * size, outputs)

    def forward(self, x: Ragged) -> Tensor:
        rows = x.values if self.embed is None else self.embed(x.values)
        rows = self.body(x.with_values(self.dropout(rows)))
        mean = rows.new_zeros(len(x), rows.shape[1]).index_add(0, x.sequence, rows) / x.lengths[:, None]
        found: Tensor = self.answer(self.dropout(torch.cat([mean, rows[x.offsets[1:] - 1]], 1)))
        return found


class _Numbers:
    """Columns scaled by what was trained on."""

    def __init__(self, x: Sequence[Array]) -> None:
        rows = np.concatenate(x)
        self.mean, spread = rows.mean(0), rows.std(0)
        self.spread = np.where(spread > 1e-9, spread, 1.0)
        self.width = rows.shape[1]

    def read(self, x: Sequence[Array]) -> Ragged:
        rows = np.clip((np.concatenate(x) - self.mean) / self.spread, -10, 10).astype(np.float32)
        return Ragged(torch.from_numpy(rows), torch.tensor(np.concatenate([[0], np.cumsum([len(one) for one in x])])))


class _Words:
    """Words that were seen twice have numbers, all others share one, which is thereby trained."""

    def __init__(self, x: Sequence[list[str]]) -> None:
        count = Counter(word for one in x for word in one)
        self.number = {word: k for k, word in enumerate((w for w, n in count.items() if n > 1), 1)}
        self.width = len(self.number) + 1

    def read(self, x: Sequence[list[str]]) -> Ragged:
        numbers = torch.tensor([self.number.get(word, 0) for one in x for word in one])
        return Ragged(numbers, torch.tensor(np.concatenate([[0], np.cumsum([len(one) for one in x])])))


def _operations(kind: str, inputs: int, size: int, steps: float) -> float:
    """Of the body for one row in a sequence of `steps` rows: 2 for each weight, and for attention over those before."""
    if kind == "Transformer":
        return 2 * (inputs * size + BLOCKS * (12 * size * size + size * steps))
    return 2 * {"LSTM": 4, "GRU": 3}[kind] * size * (inputs + size)


class _Trees:
    """Histogram boosting on summaries of the columns, and on the values themselves where all have one length."""

    def __init__(self, problem: Problem, part: Part, settings: dict[str, float], seed: int) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        kind = HistGradientBoostingClassifier if problem.kind == "class" else HistGradientBoostingRegressor
        self.kind, self.classes = problem.kind, problem.outputs
        self.whole = len({len(one) for part in (problem.train, problem.test) for one in part.x}) == 1
        self.model = kind(
            learning_rate=settings["rate"],
            min_samples_leaf=int(settings["leaf"]),
            max_iter=100,
            early_stopping=False,
            random_state=seed,
        ).fit(_summaries(part.x, self.whole), part.y)
        trees = [tree for stage in self.model._predictors for tree in stage]
        self.bytes = sum(tree.nodes.nbytes for tree in trees)
        deep = sum(math.log2(max(2, len(tree.nodes))) for tree in trees)
        self.operations = deep / float(np.mean([len(x) for x in part.x]))

    def outputs(self, x: list[Any]) -> Array:
        if self.kind == "number":
            return np.asarray(self.model.predict(_summaries(x, self.whole)))
        found = np.zeros((len(x), self.classes))
        found[:, self.model.classes_] = self.model.predict_proba(_summaries(x, self.whole))
        return found


def _summaries(x: Sequence[Array], whole: bool) -> Array:
    """Mean, spread, least, most, first, last and slope of each column; with `whole` all values as well."""
    rows = []
    for one in x:
        time = np.linspace(-1, 1, len(one))[:, None]
        slope = (one * time).sum(0) / (time**2).sum() if len(one) > 1 else 0 * one[0]
        rows.append(np.concatenate([one.mean(0), one.std(0), one.min(0), one.max(0), one[0], one[-1], slope]))
    found = np.stack(rows)
    return np.concatenate([found, np.stack([one.ravel() for one in x])], 1) if whole else found


class _Linear:
    """Logistic regression on TF-IDF of words and pairs of words, or of up to four letters in a row."""

    def __init__(self, part: Part, settings: dict[str, float]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        letters = all(len(word) == 1 for one in part.x[:50] for word in one)
        self.reader = TfidfVectorizer(analyzer=_letters if letters else _pairs, sublinear_tf=True)
        seen = self.reader.fit_transform(part.x)
        self.model = LogisticRegression(C=settings["C"], max_iter=300).fit(seen, part.y)
        self.bytes = int(self.model.coef_.nbytes)
        self.operations = 2 * seen.nnz * len(self.model.coef_) / sum(len(one) for one in part.x)
        self.classes = int(part.y.max()) + 1

    def outputs(self, x: list[Any]) -> Array:
        chance = self.model.predict_proba(self.reader.transform(x))
        found = np.zeros((len(x), max(self.classes, int(self.model.classes_.max()) + 1)))
        found[:, self.model.classes_] = chance
        return found


def _pairs(words: list[str]) -> list[str]:
    return [*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))]


def _letters(letters: list[str]) -> list[str]:
    text = f" {''.join(letters)} "
    return [text[k : k + n] for n in (1, 2, 3, 4) for k in range(len(text) - n + 1)]
