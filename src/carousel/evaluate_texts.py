"""How good are made texts? The field's metrics, with intervals and signatures, beside what needs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from carousel.generation import stream_of
from carousel.heads.search import Beam
from carousel.inputs.dialogues import DialogueInput
from carousel.ngrams import KneserNey
from carousel.phrases import PhraseTranslator
from carousel.replies import Mutual
from carousel.text_baselines import Dictionary, Retrieval, commonest
from carousel.textmetrics import bleu, bootstrap, chrf, distinct, exp, resampled_bleu, share_of_commonest

__all__ = ["TextEvaluation", "evaluate_language", "evaluate_pairs", "variety"]

Pairs = tuple[Sequence[str], Sequence[str]]
MODEL = "LSTM"
ORDER = 5  # of the n-grams


@dataclass
class TextEvaluation:
    """Figures of each method, `intervals` of the model's (95 %, over texts drawn anew), and what one must know."""

    task: str
    texts: int
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is infinite is null."""
        return {
            "task": self.task,
            "texts": self.texts,
            "rows": {
                method: {name: value if math.isfinite(value) else None for name, value in row.items()}
                for method, row in self.rows.items()
            },
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "notes": self.notes,
        }

    def markdown(self) -> str:
        names = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        lines = ["| | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
        for method, row in self.rows.items():
            cells = [f"{row[name]:.4g}" if name in row else "–" for name in names]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        return "\n".join([*lines, "", *self._remarks()])

    def show(self) -> None:
        from rich.console import Console
        from rich.table import Table

        names = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        table = Table()
        for name in ("", *names):
            table.add_column(name, justify="right" if name else "left")
        for method, row in self.rows.items():
            table.add_row(method, *(f"{row[name]:.4g}" if name in row else "–" for name in names))
        console = Console()
        console.print(table)
        for line in self._remarks():
            console.print(line, highlight=False)

    def _remarks(self) -> list[str]:
        spans = [f"- {name} of the {MODEL}: {a:.4g} to {b:.4g} (95 %)" for name, (a, b) in self.intervals.items()]
        return [f"- {self.texts:,} texts", *spans, *(f"- {note}" for note in self.notes)]


def evaluate_pairs(
    model: Any,
    data: Any,
    y: Sequence[str] | None = None,
    *,
    train: Any = None,
    train_y: Sequence[str] | None = None,
    beam: Beam | None = None,
    mutual: Mutual | None = None,
    source: str = "data",
) -> TextEvaluation:
    """A fitted `Translator` on pairs that it was not trained on, given as to its `fit`; of a model of dialogues the
    replies that `mutual` ranks.

    Translations: BLEU and chrF beside copies of the source and, given the pairs of training, a dictionary word by word
    and a phrase-based translator.
    Replies: perplexity, variety and BLEU beside the reply to the most similar context, and the commonest reply.
    """
    given = model.config_.input
    left, right = model.pairs(data, y, source)
    known = None if train is None else model.pairs(train, train_y, "train")
    if given.out.lowercase:
        right = [text.lower() for text in right]
        known = None if known is None else tuple([text.lower() for text in side] for side in known)
    if isinstance(given, DialogueInput):
        return _replies(model, (left, right), known, mutual or Mutual())
    made = model.translate(left) if beam is None else model.translate(left, beam=beam)
    found = TextEvaluation("translate", len(left))
    methods = {MODEL: made, "copy": [text.lower() for text in left] if given.out.lowercase else left}
    if known:
        methods["word by word"] = Dictionary(*known).translate(methods["copy"])
        methods["phrase by phrase"] = PhraseTranslator(*known).translate(methods["copy"])
    for name, texts in methods.items():
        score = bleu(texts, right, lowercase=given.out.lowercase)
        found.rows[name] = {"BLEU": score.score, "chrF": chrf(texts, right).score}
    resampled = resampled_bleu(made, right, lowercase=given.out.lowercase)
    found.intervals["BLEU"] = bootstrap(resampled, len(left))
    found.notes += [f"sacrebleu {score.signature}", f"chrF {chrf(made, right).signature}"]
    if known is None:
        found.notes.append("without the pairs of training there is no dictionary to compare with")
    return found


def _replies(model: Any, pairs: Pairs, known: Pairs | None, mutual: Mutual) -> TextEvaluation:
    left, right = pairs
    found = TextEvaluation("reply", len(left))
    methods = {MODEL: model.reply(left, mutual=mutual), f"{MODEL}, likeliest": model.translate(left)}
    if known:
        methods["most similar context"] = Retrieval(*known).reply(left)
        methods["commonest reply"] = [commonest(known[1])] * len(left)
    methods["people"] = list(right)
    for name, texts in methods.items():
        found.rows[name] = variety(texts)
        if name != "people":
            found.rows[name]["BLEU"] = bleu(texts, right, lowercase=model.config_.input.out.lowercase).score
    found.rows[MODEL]["perplexity"] = model.perplexity(left, right).per_word
    if known:
        found.rows[f"{ORDER}-grams"] = {"perplexity": ngram_perplexity(model.config_.input.out, known[1], right)}
    found.notes.append("perplexity per word, with what ends of texts cost; of n-grams by the same tokens")
    return found


def variety(texts: Sequence[str]) -> dict[str, float]:
    """Different words and pairs of words as shares of all, and the share of the commonest text."""
    return {
        "distinct-1": distinct(texts, 1),
        "distinct-2": distinct(texts, 2),
        "commonest": share_of_commonest(texts),
    }


def ngram_perplexity(words: Any, known: Sequence[str], texts: Sequence[str]) -> float:
    """Per word of `texts`, by Kneser-Ney n-grams of the tokens of `known`."""
    model = KneserNey(stream_of(words, known), size=words.size, order=ORDER)
    count = sum(len(text.split()) for text in texts)
    return exp(float(model.nats(stream_of(words, texts)).sum()) / count) if count else math.inf


def evaluate_language(model: Any, data: Any, *, train: Any = None, source: str = "data") -> TextEvaluation:
    """A fitted `Generator` on text that it was not trained on: perplexity per token, word and character, and nats per
    character, beside Kneser-Ney 5-grams of the same tokens where the training text is given."""
    texts = model.texts(data, source)
    known = None if train is None else model.texts(train, "train")
    words = model.config_.input.words
    found = TextEvaluation("generate", len(texts))
    own = model.perplexity(texts)

    def figures(nats: float) -> dict[str, float]:
        one = own._replace(nats=nats)
        return {
            "per token": one.per_token,
            "per word": one.per_word,
            "per character": one.per_character,
            "nats/character": one.nats_per_character,
        }

    found.rows[MODEL] = figures(own.nats)
    if known:
        grams = KneserNey(stream_of(words, known), size=words.size, order=ORDER)
        found.rows[f"{ORDER}-grams"] = figures(float(grams.nats(stream_of(words, texts)).sum()))
    else:
        found.notes.append("without the training text there are no n-grams to compare with")
    return found
