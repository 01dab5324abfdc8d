"""Sequence to sequence against a slow definition of its own; what is decoded does not hang on the batch."""

from __future__ import annotations

import pytest
import torch

from carousel import LSTM, Ragged
from carousel.heads.search import Beam, beam_search
from carousel.heads.translate import TranslateHead
from carousel.heads.translate_net import TranslateDecoder, TranslateNet

E, H, L, V = 6, 8, 2, 13


def make(seed: int = 0, **options) -> TranslateNet:
    torch.manual_seed(seed)
    head = TranslateHead(embedding=E, encoder_layers=2, dropout=0.2, **options)
    decoder = LSTM(E + (E if head.input_feeding else 0), H, L)
    net = TranslateNet(head, LSTM(E, H // 2, 2, bidirectional=True), decoder, source=V, target=V)
    shapes = head.shapes(hidden=H, layers=L, memory=H, source=V, target=V)
    own = {n: tuple(p.shape) for n, p in net.state_dict().items() if not n.startswith(("encoder.", "decoder."))}
    assert own == shapes
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.7)
    return net.double().eval()


def batch() -> tuple[Ragged, Ragged]:
    draw = torch.Generator().manual_seed(3)
    source, target = (
        Ragged.from_list([torch.randint(3, V, (n,), generator=draw) for n in lengths])
        for lengths in ([5, 1, 9, 7], [4, 8, 1, 3])
    )
    return source, target


def slow(net: TranslateNet, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One pair, step by step, in the words of the papers."""
    out, (h, c) = net.encoder((net.source or net.target)(source)[:, None])
    memory = out[:, 0]
    state = tuple(
        (act(linear(torch.cat([part[-2, 0], part[-1, 0]]))).view(L, 1, H))
        for linear, part, act in ((net.bridge_h, h, torch.tanh), (net.bridge_c, c, lambda x: x))
    )
    fed, rows = torch.zeros(E, dtype=torch.float64), []
    for token in target:
        x = net.target(token)
        x = torch.cat([x, fed]) if net.head.input_feeding else x
        out, state = net.decoder(x[None, None], state)
        q = out[0, 0]
        if net.head.attention == "dot":
            scores = memory @ q
        elif net.head.attention == "general":
            scores = memory @ net.attention.key.weight.T @ q
        else:
            mapped = net.attention.query(q) + memory @ net.attention.key.weight.T
            scores = torch.tanh(mapped) @ net.attention.score.weight[0]
        context = scores.softmax(0) @ memory
        fed = torch.tanh(net.mix(torch.cat([q, context])))
        rows.append(net.target.weight @ fed + net.bias)
    return torch.stack(rows)


@pytest.mark.parametrize("feeding", [False, True])
@pytest.mark.parametrize("attention", ["dot", "general", "additive"])
def test_logits_follow_the_papers_pair_by_pair(attention, feeding):
    net = make(attention=attention, input_feeding=feeding, shared=attention == "dot")
    source, target = batch()
    with torch.no_grad():
        made = target.with_values(net(source, target))
        for b in range(4):
            assert torch.allclose(made[b], slow(net, source[b], target[b]), atol=1e-6)  # attention weights are float32


@pytest.mark.parametrize("feeding", [False, True])
def test_decoding_agrees_with_training_and_not_with_the_batch(feeding):
    nets = [make(seed, input_feeding=feeding).float() for seed in (1, 2)]
    source, _ = batch()
    with torch.no_grad():
        for chosen in (nets[:1], nets):
            found = beam_search(TranslateDecoder(chosen, source), [9] * 4, Beam(3), begin=0, end=1)
            for b in range(4):
                alone = Ragged.from_list([source[b]])
                (single,) = beam_search(TranslateDecoder(chosen, alone), [9], Beam(3), begin=0, end=1)
                assert [f.tokens for f in single] == [f.tokens for f in found[b]]
                best = found[b][0]
                target = Ragged.from_list([torch.tensor([0, *best.tokens])])
                probability = torch.stack([net(alone, target).softmax(1) for net in chosen]).mean(0).log()
                total = probability[torch.arange(len(best.tokens) + 1), torch.tensor([*best.tokens, 1])].sum()
                assert best.logprob == pytest.approx(float(total), abs=1e-4)


def test_gradients_reach_everything_and_padding_nothing():
    net = make(attention="additive", shared=False).train()
    source, target = batch()
    net(source, target).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    net.eval().zero_grad()
    net(source, target)[:4].sum().backward()  # the first pair alone
    reached = net.source.weight.grad.abs().sum(1).nonzero()[:, 0]
    assert set(reached.tolist()) == set(source[0].tolist())
