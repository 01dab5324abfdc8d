"""Labels as a chain against all sequences of labels one by one, in float64, and spans against cases worked by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from carousel.config import ModelConfig, StackConfig
from carousel.heads.classify import ClassifyHead
from carousel.heads.slots import Chain, SlotHead, best_labels, marginals
from carousel.heads.slots_net import ChainNet, SlotNet
from carousel.heads.tag import TagHead
from carousel.inputs.roles import Roles
from carousel.inputs.text import fit_vocabulary
from carousel.inputs.tokens import TokenInput
from carousel.ragged import Ragged
from carousel.spans import span_scores, spans_of

LENGTHS = (3, 7, 1, 5)
LABELS = 3
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])


def _case() -> tuple[np.ndarray, Chain]:
    rng = np.random.default_rng(3)
    draw = rng.normal(size=(OFFSETS[-1], LABELS)) * 2
    return draw, Chain(rng.normal(size=LABELS), rng.normal(size=(LABELS, LABELS)) * 2, rng.normal(size=LABELS))


def _paths(logits: np.ndarray, chain: Chain) -> dict[tuple[int, ...], float]:
    """The score of every sequence of labels of one text."""
    found = {}
    for path in itertools.product(range(LABELS), repeat=len(logits)):
        score = chain.begin[path[0]] + chain.end[path[-1]] + sum(logits[t, k] for t, k in enumerate(path))
        found[path] = score + sum(chain.follow[a, b] for a, b in itertools.pairwise(path))
    return found


def _net(chain: Chain) -> ChainNet:
    net = ChainNet(LABELS).double()
    with torch.no_grad():
        for name in ("begin", "follow", "end"):
            getattr(net, name).copy_(torch.from_numpy(getattr(chain, name)))
    return net


def _oracle(logits: np.ndarray, chain: Chain, truth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Minus the log-likelihood of what is known, summed over everything that agrees with it."""
    found = []
    for a, b in itertools.pairwise(OFFSETS):
        paths = _paths(logits[a:b], chain)
        own = [s for p, s in paths.items() if all(not known[a + t] or truth[a + t] == k for t, k in enumerate(p))]
        found.append(np.logaddexp.reduce(list(paths.values())) - np.logaddexp.reduce(own))
    return np.array(found)


@pytest.mark.parametrize("share", [1.0, 0.6, 0.0])
def test_likelihood_is_that_of_all_sequences_of_labels(share: float) -> None:
    logits, chain = _case()
    rng = np.random.default_rng(4)
    truth, known = rng.integers(0, LABELS, OFFSETS[-1]), rng.random(OFFSETS[-1]) < share
    tensors = (torch.from_numpy(part) for part in (logits, truth, known, OFFSETS))
    made = _net(chain).nats(*tensors).detach().numpy()
    np.testing.assert_allclose(made, _oracle(logits, chain, truth, known), atol=1e-10)


def test_gradients_of_the_likelihood() -> None:
    logits, chain = _case()
    net, truth = _net(chain), torch.from_numpy(np.random.default_rng(5).integers(0, LABELS, OFFSETS[-1]))
    known = torch.ones(int(OFFSETS[-1]), dtype=torch.bool)

    def loss(x: torch.Tensor, begin: torch.Tensor, follow: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        weights = {"begin": begin, "follow": follow, "end": end}
        return torch.func.functional_call(_Nats(net), {f"net.{k}": v for k, v in weights.items()}, (x, truth, known))

    given = [torch.from_numpy(part).requires_grad_() for part in (logits, *chain)]
    assert torch.autograd.gradcheck(loss, given)


class _Nats(torch.nn.Module):
    def __init__(self, net: ChainNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, truth: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return self.net.nats(x, truth, known, torch.from_numpy(OFFSETS))


def test_best_labels_and_marginals_are_those_of_all_sequences() -> None:
    logits, chain = _case()
    labels, chance = best_labels(logits, chain, OFFSETS), marginals(logits, chain, OFFSETS)
    for a, b in itertools.pairwise(OFFSETS):
        paths = _paths(logits[a:b], chain)
        assert tuple(labels[a:b]) == max(paths, key=lambda p: paths[p])
        weights = np.exp(np.array(list(paths.values())) - max(paths.values()))
        for t in range(b - a):
            share = [weights[[p[t] == k for p in paths]].sum() / weights.sum() for k in range(LABELS)]
            np.testing.assert_allclose(chance[a + t], share, atol=1e-12)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c._replace(follow=c.follow.T),
        lambda c: c._replace(end=np.zeros(LABELS)),
        lambda c: c._replace(begin=np.zeros(LABELS)),
        lambda c: c._replace(begin=c.end, end=c.begin),
    ],
)
def test_a_wrong_chain_is_told_from_the_right_one(spoil: Callable[[Chain], Chain]) -> None:
    logits, chain = _case()
    truth, known = np.zeros(OFFSETS[-1], np.int64), np.ones(OFFSETS[-1], bool)
    tensors = [torch.from_numpy(part) for part in (logits, truth, known, OFFSETS)]
    made = _net(spoil(chain)).nats(*tensors).detach().numpy()
    assert np.abs(made - _oracle(logits, chain, truth, known)).max() > 1e-3
    assert np.abs(marginals(logits, spoil(chain), OFFSETS) - marginals(logits, chain, OFFSETS)).max() > 1e-3


def test_texts_do_not_see_their_neighbours() -> None:
    logits, chain = _case()
    whole = best_labels(logits, chain, OFFSETS)
    alone = [best_labels(logits[a:b], chain, np.array([0, b - a])) for a, b in itertools.pairwise(OFFSETS)]
    assert whole.tolist() == np.concatenate(alone).tolist()


def test_large_scores_stay_finite_in_float32() -> None:
    logits, chain = _case()
    net = _net(chain).float()
    tensors = [torch.from_numpy(part) for part in (logits.astype(np.float32) * 200, np.zeros(16, np.int64))]
    made = net.nats(*tensors, torch.ones(16, dtype=torch.bool), torch.from_numpy(OFFSETS))
    made.sum().backward()
    assert torch.isfinite(made).all()
    assert torch.isfinite(net.follow.grad).all()


# Worked by hand after the rules of conlleval: what begins, what goes on, what ends.
SPANS = [
    ("B-a I-a O B-b", [("a", 0, 1), ("b", 3, 3)]),
    ("I-a I-a B-a", [("a", 0, 1), ("a", 2, 2)]),
    ("B-a I-b I-b", [("a", 0, 0), ("b", 1, 2)]),
    ("O O", []),
    ("B-a B-a I-a", [("a", 0, 0), ("a", 1, 2)]),
    ("S-a B-b I-b E-b I-b", [("a", 0, 0), ("b", 1, 3), ("b", 4, 4)]),
    ("U-a B-b L-b", [("a", 0, 0), ("b", 1, 2)]),
    ("B-a O I-a", [("a", 0, 0), ("a", 2, 2)]),
    ("NOUN B-x-y I-x-y", [("x-y", 1, 2)]),
    ("B-a", [("a", 0, 0)]),
]


@pytest.mark.parametrize(("labels", "expected"), SPANS)
def test_spans_by_hand(labels: str, expected: list[tuple[str, int, int]]) -> None:
    assert spans_of(labels.split()) == expected


def test_f1_counts_whole_spans_over_all_texts() -> None:
    truth = [spans_of(["B-a", "I-a", "O", "B-b"]), spans_of(["B-a"])]
    made = [spans_of(["B-a", "O", "O", "B-b"]), spans_of(["B-a"])]  # one end is wrong
    assert span_scores(truth, made) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert span_scores([[]], [[]]) == (0.0, 0.0, 0.0)


def _head(crf: bool, intent: bool) -> SlotHead:
    whole = ClassifyHead("label", "max", classes=("x", "y")) if intent else None
    return SlotHead(("O", "B-a", "I-a"), crf, whole)


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("intent", [False, True])
def test_the_module_has_the_weights_that_the_head_says(crf: bool, intent: bool) -> None:
    head = _head(crf, intent)
    net = SlotNet(head, 10, 2, 0.3)
    assert {name: tuple(w.shape) for name, w in net.state_dict().items()} == head.shapes(10)


def test_words_are_read_at_their_first_piece_and_an_intent_stands_beside_each() -> None:
    torch.manual_seed(0)
    net = SlotNet(_head(False, True), 6, 2).eval()
    rows = Ragged(torch.randn(9, 6), torch.tensor([0, 5, 9]))
    first, words = torch.tensor([0, 3, 5, 7, 8]), torch.tensor([0, 2, 5])
    made = net(rows, first, words)
    torch.testing.assert_close(made[:, :3], net.out(rows.values[first]))
    whole = net.intent(rows)
    torch.testing.assert_close(made[:, 3:], whole[[0, 0, 1, 1, 1]])


def test_one_mask_for_all_words_of_a_text() -> None:
    torch.manual_seed(0)
    net = SlotNet(SlotHead(("O", "B-a"), False, None), 8, 1, 0.5).train()
    with torch.no_grad():
        net.out.weight.fill_(1.0)
        net.out.bias.zero_()
    rows = Ragged(torch.ones(9, 8), torch.tensor([0, 5, 9]))
    made = net(rows, torch.arange(9), torch.tensor([0, 5, 9]))[:, 0]
    assert len(set(made[:5].tolist())) == 1
    assert len(set(made[5:].tolist())) == 1


def test_config_refuses_heads_and_inputs_that_do_not_belong_together() -> None:
    words = fit_vocabulary(["a b"], kind="word")
    seen = TokenInput(Roles(features=("t",)), "rows", words, 4)
    with pytest.raises(ValueError, match="SlotHead"):
        ModelConfig("tag", seen, StackConfig(4), TagHead("label", classes=("a", "b")))
    with pytest.raises(ValueError, match="two different classes"):
        SlotHead(("a",), False, None)
    with pytest.raises(ValueError, match="label, not a number"):
        SlotHead(("a", "b"), False, ClassifyHead("regression", "max"))


def test_a_config_of_words_survives_json() -> None:
    words = fit_vocabulary(["a b"], kind="word")
    seen = TokenInput(Roles(features=("t",), target=("l",)), "cells", words, 4, spelling=2, intent="i")
    config = ModelConfig("tag", seen, StackConfig(4, bidirectional=True), _head(True, True))
    assert ModelConfig.from_json(config.to_json()) == config
