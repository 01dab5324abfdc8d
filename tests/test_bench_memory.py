"""The networks that are compared see the past alone and have as many parameters; learning counts; results resume."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from carousel import cli
from carousel.bench import memory, memory_claims, memory_learn, memory_trials
from carousel.bench.memory_digits import SeenDigits, _moved, digit_tasks
from carousel.bench.memory_learn import Effort, Learnt, as_tensors, judge, learn, loss_of, shown, updates
from carousel.bench.memory_nets import KINDS, VARIANTS, build, chrono, parameters, size_for
from carousel.bench.memory_trials import Trial, quick, trials
from carousel.bench.store import Store
from carousel.datasets import Adding, Counting, EmbeddedReber, Parity
from carousel.errors import CarouselError
from carousel.lstm import LSTM
from carousel.ragged import Ragged


def batch(lengths: tuple[int, ...] = (9, 1, 7, 4), width: int = 3) -> Ragged:
    offsets = torch.tensor([0, *np.cumsum(lengths)])
    return Ragged(torch.randn(int(offsets[-1]), width), offsets)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_depends_on_its_own_sequence_up_to_itself(kind: str) -> None:
    torch.manual_seed(0)
    net = build(kind, inputs=3, outputs=2, size=8, span=9)
    x = batch()
    asked = torch.tensor([5])  # the sixth step of the first sequence
    before = net(x, asked)
    changed = x.values.clone()
    changed[6:] += 1.0  # its later rows, and all other sequences
    torch.testing.assert_close(net(x.with_values(changed), asked), before)
    changed = x.values.clone()
    changed[0] += 1.0
    assert not torch.allclose(net(x.with_values(changed), asked), before, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_do_not_see_their_batch(kind: str) -> None:
    torch.manual_seed(1)
    net, x = build(kind, inputs=3, outputs=2, size=8), batch()
    whole = net(x, torch.arange(len(x.values)))
    alone = torch.cat([net(x[b : b + 1], torch.arange(int(x.lengths[b]))) for b in range(len(x))])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_give_equal_numbers_of_parameters(kind: str) -> None:
    wanted = parameters(build("LSTM", inputs=8, outputs=5, size=48))
    size = size_for(kind, 8, 5, wanted)
    assert parameters(build(kind, inputs=8, outputs=5, size=size)) == pytest.approx(wanted, rel=0.1)


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(CarouselError, match=r"no network 'LMU' to compare; choose from LSTM, peephole LSTM"):
        build("LMU", inputs=1, outputs=1, size=4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_chrono_starts_with_memories_up_to_the_span(variant: str) -> None:
    torch.manual_seed(2)
    lstm = LSTM(3, 400, **VARIANTS[variant])
    chrono(lstm, 101)
    gates = lstm.spec.gates
    bias = dict(zip(gates, (lstm.bias_ih_l0 + lstm.bias_hh_l0).view(len(gates), 400).detach(), strict=True))
    spans = bias["f"].exp()  # f / (1 - f): steps
    assert 1 <= spans.min() < 5
    assert 95 < spans.max() <= 100
    assert spans.mean() == pytest.approx(50.5, abs=5)
    if "i" in bias:
        torch.testing.assert_close(bias["i"], -bias["f"])
    for gate in "go":
        assert not bias[gate].any()


def test_the_update_gate_of_a_gru_starts_alike() -> None:
    gru = build("GRU", inputs=3, outputs=2, size=300, span=101).body.layer
    reset, update, new = (gru.bias_ih_l0 + gru.bias_hh_l0).view(3, 300).detach()
    assert not reset.any()
    assert not new.any()
    assert 95 < update.exp().max() <= 100


def test_symbols_are_learned_from_what_followed_and_judged_by_what_is_legal() -> None:
    given = EmbeddedReber().draw(40, np.random.default_rng(3))
    seen = shown("symbols", given)
    assert (seen.answer.sum(1) == 1).all()
    assert given.answer[seen.answer].all()
    inner = np.setdiff1d(np.arange(len(given.x.values)), given.x.offsets[1:] - 1)
    assert (seen.answer[inner].argmax(1) == given.x.values[inner + 1].argmax(1)).all()
    assert (given.answer.sum(1) == 2).any()
    classes = Parity(longest=9).draw(5, np.random.default_rng(0))
    assert shown("class", classes) is classes


def test_losses_against_their_definitions() -> None:
    output = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]])
    logs = output.log_softmax(1)
    assert loss_of("class", output, torch.tensor([1, 0])) == pytest.approx(float(-(logs[0, 1] + logs[1, 0]) / 2))
    legal = torch.tensor([[True, True, False], [False, False, True]])
    expected = -((logs[0, 0] + logs[0, 1]) / 2 + logs[1, 2]) / 2
    assert loss_of("symbols", output, legal) == pytest.approx(float(expected))
    assert loss_of("number", output, torch.zeros(2, 3)) == pytest.approx(15 / 6)


class _Oracle(torch.nn.Module):
    """Adds the marked numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.off = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: Ragged, at: torch.Tensor) -> torch.Tensor:
        marked = torch.where(x.values[:, 1] == 1, x.values[:, 0], 0.0)
        sums = torch.zeros(len(x)).index_add(0, x.sequence, marked)
        return (0.5 + sums / 4 + self.off)[:, None]


def test_judging_knows_right_from_wrong() -> None:
    given, net = Adding(30).draw(50, np.random.default_rng(1)), _Oracle()
    right, error = judge(net, "number", given)
    assert right == 1.0
    assert error == pytest.approx(0.0, abs=1e-10)
    net.off.data += 0.1
    right, error = judge(net, "number", given)
    assert right == 0.0
    assert error == pytest.approx(0.01, rel=1e-4)
    assert net.training


@pytest.mark.parametrize("rows", [1, 40, 100])
def test_judging_in_pieces_is_judging_at_once(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    for task in (EmbeddedReber(), Adding(30), Parity(longest=9, every_step=True)):
        net = build("LSTM", inputs=task.inputs, outputs=task.outputs, size=6)
        given = task.draw(30, np.random.default_rng(2))
        monkeypatch.setattr(memory_learn, "ROWS", 10**9)
        right, error = judge(net, task.kind, given, tolerance=0.3)
        monkeypatch.setattr(memory_learn, "ROWS", rows)
        assert judge(net, task.kind, given, tolerance=0.3) == (right, pytest.approx(error))


def test_learning_counts_sequences_and_asks_twice() -> None:
    task, asked = Adding(30), []

    def good(right: float, error: float) -> bool:
        asked.append(error)
        return len(asked) in (2, 4, 5)  # once by luck, then twice in a row

    torch.manual_seed(0)
    net = build("LSTM", inputs=2, outputs=1, size=4)
    found = learn(net, task, Effort(batch=10, budget=500, check=50), seed=1, good=good, fresh=20)
    assert found.success
    assert len(asked) == 5
    assert found.sequences == 150
    assert found.error == asked[-1]
    lost = learn(net, task, Effort(batch=10, budget=75, check=50), seed=1, good=lambda r, e: False, fresh=20)
    assert not lost.success
    assert lost.sequences == 80
    assert lost.seconds > 0


def test_a_loss_that_is_no_number_ends_a_run() -> None:
    net = build("LSTM", inputs=2, outputs=1, size=4)
    with torch.no_grad():
        net.answer.weight.fill_(math.nan)
    found = learn(net, Adding(30), Effort(batch=10, budget=500, check=50), seed=1, good=lambda r, e: False, fresh=20)
    assert not found.success
    assert found.sequences == 50


def test_the_rate_warms_up_and_fades() -> None:
    rates = []
    net = build("LSTM", inputs=2, outputs=1, size=4)

    class Spy:
        def __init__(self, groups: list[dict[str, object]]) -> None:
            self.groups = groups

        def zero_grad(self) -> None:
            pass

        def step(self) -> None:
            rates.append(self.groups[0]["lr"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("carousel.bench.memory_learn.AdamW", Spy)
        for seen in updates(net, "number", Adding(24).stream(5, 0), Effort(0.1, batch=5, budget=300, fade=True)):
            if seen >= 300:
                break
    assert rates[0] == pytest.approx(0.005)
    assert max(rates) == pytest.approx(0.1, rel=0.3)
    assert rates[-1] == pytest.approx(0.01, rel=0.05)


def test_an_lstm_learns_to_add_and_to_keep_parity() -> None:
    for task, test, effort, good in (
        (Adding(30), Adding(30), Effort(1e-2, 20, 10_000, 500), lambda right, error: error < 0.01),
        (
            Parity(longest=20, every_step=True),
            Parity(shortest=100, longest=100),
            Effort(1e-2, 32, 20_000, 500),
            lambda right, error: right == 1.0,
        ),
    ):
        torch.manual_seed(0)
        net = build("LSTM", inputs=2, outputs=task.outputs, size=24, span=30 if task.kind == "number" else 0)
        assert learn(net, task, effort, seed=0, good=good, test=test, fresh=100).success


def test_digits_are_moved_by_whole_and_half_pixels() -> None:
    image = np.zeros((1, 8, 8), np.float32)
    image[0, 3, 4] = 1.0
    down = _moved(image, np.array([[1.0, 0.0]]))
    assert down[0, 4, 4] == 1.0
    assert down.sum() == 1.0
    half = _moved(image, np.array([[0.0, -0.5]]))
    assert half[0, 3, 3] == half[0, 3, 4] == 0.5
    edge = np.zeros((1, 8, 8), np.float32)
    edge[0, 0, 7] = 1.0
    assert _moved(edge, np.array([[0.0, 1.0]])).sum() == 0.0  # out of the picture, and not back on the other side
    np.testing.assert_array_equal(_moved(image, np.zeros((1, 2))), image)


def test_digits_held_out_are_not_trained_on() -> None:
    train, test = digit_tasks()
    assert len(train.labels) == 1438
    assert len(test.draw(1, np.random.default_rng(0)).answer) == 359
    seen, held = digit_tasks(validate=True)
    assert len(seen.labels) + len(held.labels) == 1438
    pictures = {one.tobytes() for one in seen.images}
    assert sum(one.tobytes() in pictures for one in held.images) == 0
    drawn = train.draw(6, np.random.default_rng(0))
    assert drawn.x.lengths.tolist() == [64] * 6
    still = SeenDigits(train.images, train.labels, shift=0.0, noise=0.0).draw(6, np.random.default_rng(0))
    first = still.x[0].reshape(8, 8)
    assert any(np.allclose(first, one) for one in train.images)


def test_a_store_goes_on_where_it_stopped(tmp_path) -> None:
    place = tmp_path / "deep" / "memory.json"
    store = Store(place, {"cpu": "abacus"})
    store.get("cells")["adding"] = {"error": math.nan, "right": 0.12345678}
    store.write()
    again = Store(place)
    assert again.get("cells") == {"adding": {"error": None, "right": 0.123457}}
    assert again.get("machine") == {"cpu": "abacus"}
    for text in ("[1]", "{", '{"cells": 3}'):
        place.write_text(text)
        with pytest.raises(CarouselError, match=r"memory\.json: these are no results of this measurement"):
            Store(place)


def tiny(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, int]]:
    """The quick tasks with runs that cost nothing; gives a list of those that were made."""
    made: list[tuple[str, float, int]] = []

    def run(trial: Trial, kind: str, size: int, rate: float, seed: int) -> Learnt:
        made.append((kind, rate, seed))
        fails = kind == "plain RNN" or (rate == 1e-3 and seed == 0)
        return Learnt(
            not fails, 4000 if fails else round(1000 * (1 + 100 * rate)), 0.5, 0.5, math.nan if fails else 0.1
        )

    monkeypatch.setattr(memory, "_run", run)
    return made


def test_networks_are_tuned_alike_and_only_other_seeds_are_reported(monkeypatch, tmp_path) -> None:
    made = tiny(monkeypatch)
    monkeypatch.setattr(memory, "trials", lambda: {"adding": quick()["adding"]})
    (found,) = memory.measure(["adding"], seeds=3, out=tmp_path)
    assert len(made) == len(KINDS) * (3 + 3)
    for kind in KINDS:
        assert [seed for k, _, seed in made if k == kind] == [0, 0, 0, 1, 2, 3]
        cell = found.cells["adding"][kind]
        assert len(cell["runs"]) == 3
        assert cell["rate"] == (1e-3 if kind == "plain RNN" else 3e-3)
    text = (tmp_path / "memory.md").read_text()
    assert (
        "| adding | 30 steps, squared error < 0.01 | 3 of 3 | 3 of 3 | 3 of 3 | 3 of 3 | 3 of 3 | 0 of 3 | 3 of 3 |"
        in text
    )
    assert "| 1,300 | 1,300 | 1,300 | 1,300 | 1,300 | – | 1,300 |" in text
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "memory-adding.png").exists()  # no claim was measured

    made.clear()
    memory.measure(["adding"], seeds=3, out=tmp_path)
    assert not made
    memory.measure(["adding"], seeds=4, out=tmp_path)
    assert [seed for _, _, seed in made] == [4] * len(KINDS)
    made.clear()
    shorter = {"adding": dataclasses.replace(quick()["adding"], budget=1_000)}
    monkeypatch.setattr(memory, "trials", lambda: shorter)
    memory.measure(["adding"], seeds=1, out=tmp_path)
    assert len(made) == len(KINDS) * 4


def test_losses_of_the_plain_lstm_are_said() -> None:
    def runs(*spent: int | None) -> dict[str, object]:
        return {"runs": [{"success": s is not None, "sequences": s or 9, "error": 0.1, "seconds": 1.0} for s in spent]}

    row = {
        "LSTM": runs(500, None),
        "GRU": runs(700, 900),
        "plain RNN": runs(None, None),
        "Transformer": runs(600, None),
    }
    found = memory.Memory({"copy": row}, {}, {"copy": "repeat"}, {})
    assert found.verdict() == ["copy: GRU better than the plain LSTM (more runs, or fewer sequences)."]


def test_a_claim_holds_or_is_broken() -> None:
    learned, lost = {"success": True}, {"success": False}
    claims = memory_claims.claims()
    assert claims["reber"].holds([learned] * 30)
    assert claims["reber"].holds([learned] * 29 + [lost]) is False
    assert claims["adding-1000"].holds([learned] * 4 + [lost])
    assert claims["adding-200-rnn"].holds([lost] * 9)
    assert claims["adding-200-rnn"].holds([lost] * 2) is None  # too early to tell
    assert claims["reber"].holds([learned] * 3) is None
    assert claims["adding-200-rnn"].holds([lost, learned]) is False
    assert claims["adding-200-rnn"].holds([lost] * 8 + [learned]) is False
    assert claims["adding-100-rnn"].holds([lost]) is None
    assert claims["adding-100"].effort.budget == 20_000
    assert claims["adding-1000"].effort.budget <= 250_000
    assert claims["adding-1000"].recompute > 0
    assert claims["adding-200-rnn"].effort.budget == claims["adding-200"].effort.budget
    assert claims["parity"].train.longest == claims["arithmetic"].train.longest == 40
    assert claims["parity"].test.longest == claims["arithmetic"].test.longest == 500
    wanted = parameters(build("LSTM", inputs=8, outputs=5, size=claims["arithmetic"].size))
    other = build("Transformer", inputs=8, outputs=5, size=claims["arithmetic-transformer"].size)
    assert parameters(other) == pytest.approx(wanted, rel=0.1)


def test_claims_run_once_and_say_what_they_found(tmp_path) -> None:
    task = Adding(24)
    claim = memory_claims.Claim(
        "LSTM, adding, 24 steps", task, task, Effort(1e-2, 20, 200, 100), seeds=2, least=1, size=4, right=None, last=50
    )
    store, said = Store(tmp_path / "m.json"), []
    known = {
        "adding-24": claim,
        "adding-24-rnn": dataclasses.replace(claim, kind="plain RNN", rates=(1e-3, 1e-2), fails=True),
    }
    memory_claims.measure(store, known, said.append)
    found = store.get("claims")
    assert [(run["rate"], run["seed"]) for run in found["adding-24-rnn"]["runs"]] == [
        (1e-3, 0),
        (1e-2, 0),
        (1e-3, 1),
        (1e-2, 1),
    ]
    assert [run["sequences"] for run in found["adding-24"]["runs"]] == [200, 200]
    assert found["adding-24"]["holds"] is False
    assert found["adding-24-rnn"]["holds"] is True
    assert "**no**" in said[0]
    seconds = json.loads((tmp_path / "m.json").read_text())["claims"]["adding-24"]["runs"][0]["seconds"]
    memory_claims.measure(Store(tmp_path / "m.json"), known)
    again = json.loads((tmp_path / "m.json").read_text())["claims"]["adding-24"]["runs"][0]["seconds"]
    assert seconds == again
    assert memory_claims.table(found)[2].startswith("| LSTM, adding, 24 steps | 200 | 1 of 2 | 0 of 2 | – |")


def test_every_task_can_be_drawn_and_answered_by_every_network() -> None:
    for name, trial in trials(30).items():
        rng = np.random.default_rng(0)
        given, asked = trial.train.draw(3, rng), trial.test.draw(3, rng)
        assert (trial.train.inputs, trial.train.outputs) == (trial.test.inputs, trial.test.outputs), name
        net = build("LSTM", inputs=trial.train.inputs, outputs=trial.train.outputs, size=4, span=trial.span)
        for part in (given, asked):
            x, at, answer = as_tensors(part)
            assert math.isfinite(float(loss_of(trial.train.kind, net(x, at), answer).detach())), name
    assert trials()["counting"].train == Counting(2)
    assert "budget" not in trials()["adding"].plan
    assert trials()["adding"].plan != trials(50)["adding"].plan


def test_the_command_refuses_what_it_cannot_do(capsys) -> None:
    for arguments, said in (
        (["bench", "memory", "cake"], "there is no task 'cake'; choose from claims, adding,"),
        (["bench", "memory", "claims", "--seeds", "3"], "claims say themselves how many seeds they need"),
        (["bench", "layer", "--quick"], "--quick is about memory"),
        (["bench", "memory", "--hidden", "8"], "--hidden is not about memory"),
        (["bench", "memory", "--out", "a.md"], "a.md: memory writes several files; name a folder."),
    ):
        assert cli.run(arguments) == 2
        assert said in capsys.readouterr().err


def test_the_command_writes_json_and_files(monkeypatch, tmp_path, capsys) -> None:
    tiny(monkeypatch)
    monkeypatch.setattr(memory_claims, "quick", dict)
    assert cli.run(["bench", "memory", "--quick", "--json", "--out", str(tmp_path)]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert set(found["cells"]) == {"adding", "embedded-reber", "parity"}
    assert all(len(row["LSTM"]["runs"]) == 1 for row in found["cells"].values())
    assert {one.name for one in tmp_path.iterdir()} == {"memory-quick.json", "memory-quick.md", "memory-quick.png"}
    assert memory_trials.quick().keys() == found["cells"].keys()
