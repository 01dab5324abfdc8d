"""Language models against slow definitions; `Generator` end to end on a text that can be learned whole."""

from __future__ import annotations

import copy
import math

import numpy as np
import polars as pl
import pytest
import torch

from carousel import LSTM, CellSpec, TrainConfig
from carousel.errors import CarouselError
from carousel.generation import Cache, Dynamic, GenerationTask, Regularisation, nats
from carousel.generator import Generator, stream_of
from carousel.heads.generate import GenerateHead
from carousel.heads.generate_net import GenerateDecoder, GenerateNet, locked
from carousel.heads.search import Sampling

V, E, H = 11, 6, 9
TEXT = "the cat sat on the mat. the dog sat on the log. " * 30


def make(seed: int = 0, *, same: bool = False, **drops: float) -> GenerateNet:
    torch.manual_seed(seed)
    head = GenerateHead(E, **drops)
    net = GenerateNet(head, [LSTM(E, H), LSTM(H, E if same else H)], vocabulary=V)
    with torch.no_grad():
        net.embedding.weight.mul_(3)
    return net.eval()


class Through(torch.nn.Module):
    def forward(self, x, state):
        return x.repeat(1, 1, 2)[..., :H], state


def tokens(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, V, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("same", [True, False])
def test_the_net_is_embedding_layers_and_tied_output(same):
    net = make(same=same)
    ids = tokens(21).view(7, 3)
    read = net(ids, net.beginning(3))
    x = net.embedding(ids)
    for layer in net.layers:
        x, _ = layer(x)
    assert torch.equal(read.raw, x)
    mixed = x if same else x @ net.mix.weight.T + net.mix.bias
    assert torch.allclose(read.logits, mixed @ net.embedding.weight.T + net.bias, atol=1e-6)
    first = net(ids[:4])
    assert torch.equal(net(ids[4:], first.states).raw, read.raw[4:])


def test_dropout_holds_one_mask_for_all_steps_and_words_are_dropped_everywhere():
    x = torch.ones(50, 4, 30)
    dropped = locked(x, 0.4, True)
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert locked(x, 0.4, False) is x
    net = make(word_dropout=0.5).train()
    net.layers = torch.nn.ModuleList([Through()])
    torch.manual_seed(4)
    raw = net(torch.arange(V).repeat(3)[:, None].expand(-1, 2)).raw
    assert torch.equal(raw[:, 0], raw[:, 1])
    assert torch.equal(raw[:V], raw[V : 2 * V])
    gone = (raw[:V, 0] == 0).all(1)
    assert 0 < gone.sum() < V
    assert torch.allclose(raw[:V, 0][~gone], 2 * net.embedding.weight[~gone].repeat(1, 2)[:, :H])


def test_weight_drop_changes_every_step_and_is_saved_undropped(tmp_path):
    config = TrainConfig(
        hidden_size=12, steps=3, least_steps=3, warmup=1, batch_size=2, batch_rows=40, cell=CellSpec(weight_drop=0.5)
    )
    model = Generator(tokens="char", embedding=8, config=config).fit(TEXT)
    net = model.model_[0].train()
    ids = torch.randint(3, 9, (20, 2))
    torch.manual_seed(0)
    once, again = net(ids).raw, net(ids).raw
    assert not torch.equal(once, again)
    net.eval()
    assert torch.equal(net(ids).raw, net(ids).raw)
    model.save(tmp_path / "m.safetensors")
    other = Generator.load(tmp_path / "m.safetensors")
    assert other.config_.stack.cell.weight_drop == 0.5
    assert torch.equal(other.model_[0](ids).raw, net(ids).raw)
    assert other.get_params() | {"vocabulary": 0} == model.get_params() | {"vocabulary": 0}


def test_nats_are_those_of_one_long_reading():
    nets, ids = [make(1), make(2)], tokens(1300)
    probability = torch.stack([net(ids[:-1, None]).logits[:, 0].softmax(1) for net in nets]).mean(0)
    expected = -probability[torch.arange(1299), ids[1:]].log()
    with torch.no_grad():
        assert torch.allclose(torch.cat(list(nats(nets, ids))), expected, atol=1e-5)


def test_a_cache_is_what_the_paper_says():
    net, ids, cache = make(3), tokens(700), Cache(size=40, share=0.3, sharpness=0.7)
    with torch.no_grad():
        read = net(ids[:-1, None])
        log, raw = read.logits[:, 0].log_softmax(1), read.raw[:, 0]
        found = torch.cat(list(nats([net], ids, cache=cache)))
        for t in [0, 1, 5, 39, 40, 41, 511, 512, 600, 698]:
            p = float(log[t, ids[t + 1]].exp())
            window = range(max(0, t - 40), t)
            if window:
                weights = torch.tensor([0.7 * float(raw[t] @ raw[s]) for s in window]).softmax(0)
                recalled = sum(float(w) for w, s in zip(weights, window, strict=True) if ids[s + 1] == ids[t + 1])
                p = 0.7 * p + 0.3 * recalled
            assert float(found[t]) == pytest.approx(-math.log(p), abs=1e-4)


def test_dynamic_evaluation_learns_from_what_it_has_measured():
    net, ids = make(4), tokens(60).repeat(8)
    plain = torch.cat([part.detach() for part in nats([net], ids)])
    moving = copy.deepcopy(net).requires_grad_()
    found = torch.cat([part.detach() for part in nats([moving], ids, dynamic=Dynamic(rate=0.2, steps=10))])
    assert torch.allclose(found[:10], plain[:10], atol=1e-5)
    assert found[-60:].mean() < plain[-60:].mean() - 0.1
    by_hand = copy.deepcopy(net).requires_grad_()
    read = by_hand(ids[:10, None])
    loss = torch.nn.functional.cross_entropy(read.logits[:, 0], ids[1:11])
    gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
    norm = max(1.0, float(torch.stack([g.norm() for g in gradients]).norm()))
    with torch.no_grad():
        for p, g in zip(by_hand.parameters(), gradients, strict=True):
            p -= 0.2 * g / norm
        second = by_hand(ids[10:20, None], read.states).logits[:, 0].log_softmax(1)
    assert torch.allclose(found[10:20], -second[torch.arange(10), ids[11:21]], atol=1e-5)


def test_prompts_of_any_length_are_read_before_the_first_step():
    nets = [make(5), make(6)]
    prompts = [[1, 2, 3, 4], [5], [6, 7, 8, 9], [3, 3]]
    with torch.no_grad():
        decoder = GenerateDecoder(nets, prompts)
        decoder.keep(torch.tensor([3, 0, 1]))
        logs, _ = decoder.step(torch.tensor([3, 4, 5]))
        for row, k in zip(logs, [3, 0, 1], strict=True):
            ids = torch.tensor(prompts[k])[:, None]
            expected = torch.stack([net(ids).logits[-1, 0].softmax(0) for net in nets]).mean(0).log()
            assert torch.allclose(row, expected, atol=1e-5)


def test_streams_go_on_from_piece_to_piece_and_see_every_token():
    config = TrainConfig(batch_size=3, batch_rows=3 * 7, hidden_size=8, steps=9)
    model = Generator(tokens="char", embedding=4, config=TrainConfig(hidden_size=8, steps=1, batch_size=2)).fit(TEXT)
    ids = np.arange(3, 80) % 11 + 3
    task = GenerationTask(model.config_, ids, ids[:0], config, Regularisation(0.5, 0.25))
    net = task.model()
    rng, device = np.random.default_rng(0), torch.device("cpu")
    pieces = [task.batch(rng, device) for _ in range(4)]
    whole = torch.cat([p.tokens for p in pieces])
    assert whole.shape == (25, 3)
    assert torch.equal(torch.cat([p.truth for p in pieces])[:-1], whole[1:])
    assert torch.equal(whole.t().flatten(), torch.from_numpy(ids[task.shift : task.shift + 75]))
    net.eval()
    losses = [task.loss(net, p) for p in pieces]
    read = net(pieces[1].tokens, net(pieces[0].tokens).states)
    expected = torch.nn.functional.cross_entropy(read.logits.flatten(0, 1), pieces[1].truth.flatten())
    expected = expected + 0.5 * read.output.square().mean() + 0.25 * (read.raw[1:] - read.raw[:-1]).square().mean()
    assert float(losses[1].detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    again = GenerationTask(model.config_, ids, ids[:0], config, Regularisation())
    again.carry(task.carried())
    assert again.at == 25
    assert all(torch.equal(a, b) for a, b in zip(again.states[0], task.states[0], strict=True))
    task.batch(rng, device)
    assert task.states is None  # an epoch begins without a past


CONFIG = TrainConfig(
    hidden_size=48,
    steps=150,
    least_steps=150,
    batch_size=4,
    batch_rows=160,
    warmup=5,
    learning_rate=0.02,
    averaging=0.8,
    threads=1,
)


@pytest.fixture(scope="module")
def fitted() -> Generator:
    return Generator(tokens="char", embedding=64, dropout=0.0, config=CONFIG).fit(TEXT)


def test_a_text_is_learned_measured_and_continued(fitted):
    found = fitted.perplexity(TEXT[:480])
    assert found.characters == 480
    assert found.words == 120
    assert found.tokens == 481
    assert found.per_character < 1.3
    assert found.nats_per_character == pytest.approx(math.log(found.per_character))
    assert found.per_word == pytest.approx(math.exp(found.nats / 120))
    assert fitted.score(TEXT[:480]) == pytest.approx(-found.nats / 481)
    (made,) = fitted.sample(["the dog sat on "], length=9, sampling=Sampling(temperature=0))
    assert made[0][0] == "the log. "
    table = fitted.predict(pl.DataFrame({"text": ["the c", "x"]}), samples=2, length=5, seed=3)
    assert table.columns == ["prompt", "sample", "prediction", "logprob"]
    assert table["prompt"].to_list() == ["the c", "the c", "x", "x"]
    assert table["sample"].to_list() == [1, 2, 1, 2]
    assert table.equals(fitted.predict(["the c", "x"], samples=2, length=5, seed=3))


@pytest.mark.parametrize("again", [False, True])
def test_a_training_that_was_interrupted_goes_on_as_it_would_have(again, tmp_path):
    config = TrainConfig(hidden_size=8, steps=14, least_steps=14, batch_size=3, batch_rows=60, checkpoint_every=5)

    class StopError(Exception):
        pass

    def stop(event):
        if event.step == 8 and event.again == again:
            raise StopError

    def fit(**options) -> Generator:
        return Generator(tokens="char", embedding=4, config=config).fit(TEXT, **options)

    with pytest.raises(StopError):
        fit(checkpoint=tmp_path / "c", progress=stop)
    one, other = fit(), fit(checkpoint=tmp_path / "c", resume=True)
    for a, b in zip(one.model_[0].state_dict().values(), other.model_[0].state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_what_was_held_out_is_learned_in_a_second_training():
    text = TEXT[:600] + "猫" * 60
    for refit, counts in ((False, (600, 14)), (True, (660, 14))):
        config = TrainConfig(
            hidden_size=8,
            steps=14,
            least_steps=14,
            warmup=2,
            batch_size=3,
            batch_rows=60,
            holdout=60 / 660,
            refit=refit,
        )
        model = Generator(tokens="char", embedding=4, config=config).fit(text)
        assert ("猫" in model.config_.input.words.tokens) == refit
        assert (model.provenance_["tokens"] - 2, *model.provenance_["steps"]) == counts
        assert model.provenance_["metrics"]["validation_nats_per_token"][0] > 0


def test_long_texts_are_one_stream_and_long_prompts_are_read():
    words = Generator(tokens="char", config=TrainConfig(hidden_size=4, steps=1, batch_size=2)).fit(TEXT)
    ids = stream_of(words.config_.input.words, ["a" * 2**21, "t"])
    assert len(ids) == 2**21 + 4
    assert words.sample([TEXT[:3000]], length=2)[0][0][0] != ""


@pytest.mark.parametrize(
    ("make_", "sentence"),
    [
        (lambda: Generator().fit(""), "data, text 1: there is no text"),
        (lambda: Generator().fit(["ab", ""]), "data, text 2: there is no text"),
        (lambda: Generator().fit(pl.DataFrame({"txet": ["a"]})), "did you mean 'txet'"),
        (lambda: Generator(tokens="char").fit("a tiny text"), "tokens are too few for batch_size=64"),
        (lambda: Generator(dropout=1.0).fit(TEXT), r"dropout is a probability in \[0, 1\), got 1.0"),
        (lambda: Generator(config=TrainConfig(cell=CellSpec(decay=True))).fit(TEXT), "text has no clock"),
        (lambda: Generator().sample([""]), "not fitted yet"),
    ],
)
def test_mistakes_are_named(make_, sentence):
    with pytest.raises(CarouselError, match=sentence):
        make_()
