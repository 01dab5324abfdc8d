"""Words that may not appear in what is made, however they are divided into tokens."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from carousel.inputs.text import END, Vocabulary

__all__ = ["Banned"]


class Banned:
    """Tokens that would complete one of `banned`, as it is, in lower case or with a large first letter.

    Words are compared as they are spelled: a token completes one where the text before it, and the token, end with the
    word and no letter stands before. Of letters the next one tells whether the word is over, so that "cat" does not ban
    "category"; of pieces of words "cat" is banned there as well.

    >>> from carousel.inputs.text import fit_vocabulary
    >>> words = fit_vocabulary(["a cat", "a dog"], kind="word")
    >>> [words.tokens[k] for k in Banned(words, ["Dog"])(torch.zeros(1, 0, dtype=torch.long))[0].nonzero()]
    ['dog']
    """

    def __init__(self, words: Vocabulary, banned: Sequence[str]) -> None:
        self.spelled = words.spelled
        forms = {form for word in banned for form in (word, word.lower(), word.capitalize()) if word.strip()}
        whole = defaultdict[bytes, list[int]](list)
        for k, own in enumerate(self.spelled):
            whole[own].append(k)
        self.always = torch.zeros(len(self.spelled), dtype=torch.bool)
        self.after: list[tuple[bytes, bool, Tensor]] = []  # a beginning, whether no letter may precede it, the tokens
        over = torch.tensor([k == END or (bool(own) and not _letter(own[0])) for k, own in enumerate(self.spelled)])
        for form in forms:
            raw, alone = form.encode(), not _wide(form[0])
            if words.kind == "char" and _letter(raw[-1]) and not _wide(form[-1]):
                self.after.append((raw, alone, over))
                continue
            for k, own in enumerate(self.spelled):
                if own.endswith(raw) and own != raw and not (alone and _letter(own[-len(raw) - 1])):
                    self.always[k] = True
            for cut in range(len(raw)):
                if raw[cut:] in whole:
                    self.after.append((raw[:cut], alone, self._marked(whole[raw[cut:]])))
        self.reach = max((len(begun) for begun, _, _ in self.after), default=0) + 1

    def _marked(self, tokens: list[int]) -> Tensor:
        found = torch.zeros(len(self.spelled), dtype=torch.bool)
        found[tokens] = True
        return found

    def __call__(self, history: Tensor) -> Tensor:
        """Which tokens [R, V], or [1, V] for all rows, may not follow the tokens `history` [R, T]."""
        if not self.after:
            return self.always[None]
        found = self.always.repeat(len(history), 1)
        for row, tokens in enumerate(history[:, -self.reach :].tolist()):
            text = b"".join(self.spelled[token] for token in tokens)
            for begun, alone, ends in self.after:
                before = text[: len(text) - len(begun)]
                if text.endswith(begun) and not (alone and before and _letter(before[-1])):
                    found[row] |= ends
        return found


def _letter(byte: int) -> bool:
    return byte >= 0x80 or chr(byte).isalnum() or byte == ord("_")


def _wide(char: str) -> bool:
    """Of a script that does without blanks between words."""
    return unicodedata.east_asian_width(char) in "WF"
