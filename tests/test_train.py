"""The training loop: its schedule, early stopping, seeds, and checkpoints that resume bit for bit."""

from __future__ import annotations

import math
import os
import pickle
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from carousel import CarouselError, CellSpec
from carousel.checkpoint import stage_of
from carousel.train import Event, Interrupted, Result, TrainConfig, _Loop, train

SMALL = TrainConfig(steps=23, batch_size=8, warmup=5, evaluate_every=4, patience=0, checkpoint_every=3)


class Regression:
    """A small net with dropout, so that both generators matter; `signals` are sent to the process at given batches."""

    def __init__(self, *, metrics: list[float] | None = None, signals: dict[int, int] | None = None) -> None:
        self.metrics, self.signals, self.batches = metrics, signals or {}, 0
        self.seen: list[dict[str, Tensor]] = []

    examples = 100

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 7), nn.Dropout(0.3), nn.Tanh(), nn.Linear(7, 1))

    def rate(self, name: str) -> float:
        return 0.5 if name == "3.weight" else 1.0

    def batch(self, rng: np.random.Generator, device: torch.device) -> Tensor:
        self.batches += 1
        if self.batches in self.signals:
            os.kill(os.getpid(), self.signals[self.batches])
        return torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32)).to(device)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return (model(batch)[:, 0] - batch.sum(1)).square().mean()

    def metric(self, model: nn.Module, device: torch.device) -> float | None:
        assert not model.training
        self.seen.append({k: v.clone() for k, v in model.state_dict().items()})
        if self.metrics is not None:
            return self.metrics[len(self.seen) - 1]
        grid = torch.linspace(-1, 1, 30).reshape(10, 3)
        return float(self.loss(model, grid))


def same(a: Result, b: Result) -> bool:
    pairs = zip(a.members, b.members, strict=True)
    return a.metrics == b.metrics and a.steps == b.steps and all(torch.equal(x[k], y[k]) for x, y in pairs for k in x)


def test_one_seed_gives_one_result_and_leaves_the_users_generator_alone() -> None:
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    first = train(Regression(), SMALL, seeds=2)
    assert torch.equal(torch.rand(3), expected)
    torch.rand(100)
    assert same(first, train(Regression(), SMALL, seeds=2))
    assert not torch.equal(first.members[0]["0.weight"], first.members[1]["0.weight"])
    alone = train(Regression(), TrainConfig(**{**vars(SMALL), "seed": 1}))
    assert torch.equal(alone.members[0]["0.weight"], first.members[1]["0.weight"])


def test_training_learns() -> None:
    task = Regression()
    result = train(task, TrainConfig(steps=400, batch_size=8, learning_rate=0.02, warmup=10, dropout=0.0))
    untrained = task.loss(task.model().eval(), torch.linspace(-1, 1, 30).reshape(10, 3)).item()
    assert result.metrics[0] is not None
    assert result.metrics[0] < 0.1 * untrained


def test_the_best_weights_are_restored_and_patience_stops() -> None:
    task = Regression(metrics=[5.0, 3.0, 4.0, 2.0, 6.0, 7.0, 1.0])
    config = TrainConfig(**{**vars(SMALL), "steps": 100, "patience": 2})
    result = train(task, config)
    assert len(task.seen) == 6
    assert (result.metrics, result.steps) == ([2.0], [16])
    assert all(torch.equal(result.members[0][k], task.seen[3][k]) for k in task.seen[3])


def test_the_mean_of_evaluated_weights_is_judged_beside_each_and_survives_resuming(tmp_path: Path) -> None:
    #                        4, then 8 and its mean with 4, then 12 and its mean with 8 and 4, of which the last is best
    task = Regression(metrics=[5.0, 4.0, 6.0, 7.0, 1.0, *[9.0] * 40])
    config = TrainConfig(**{**vars(SMALL), "checkpoints": 3, "averaging": 0.0})
    result = train(task, config)
    assert (result.metrics, result.steps) == ([1.0], [12])
    single = [task.seen[k] for k in (0, 1, 3)]
    for name, value in result.members[0].items():
        assert torch.equal(task.seen[2][name], torch.stack([one[name] for one in single[:2]]).mean(0))
        assert torch.equal(value, torch.stack([one[name] for one in single]).mean(0))
        assert not torch.equal(value, single[2][name])
    whole = train(Regression(), config, checkpoint=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(Regression(signals={11: signal.SIGINT}), config, checkpoint=tmp_path / "c")
    assert same(whole, train(Regression(), config, checkpoint=tmp_path / "c", resume=True))


def test_without_held_out_data_the_last_average_stays() -> None:
    task = Regression()
    task.metric = lambda model, device: task.seen.append(dict(model.state_dict()))  # type: ignore[method-assign,func-returns-value]
    result = train(task, TrainConfig(**{**vars(SMALL), "averaging": 0.0}))
    assert (result.metrics, result.steps) == ([None], [23])


def test_the_schedule_warms_up_and_follows_a_cosine() -> None:
    loop = _Loop(Regression(), TrainConfig(steps=110, warmup=10, learning_rate=1.0), 0, 1, None)
    found = []
    for at in (0, 4, 9, 10, 60, 110):
        loop.at = at
        found.append(loop.rate())
    np.testing.assert_allclose(found, [0.1, 0.5, 1.0, 1.0, 0.505, 0.01])


def test_parameters_have_their_own_rates_and_biases_do_not_decay() -> None:
    loop = _Loop(Regression(), TrainConfig(learning_rate=1.0, warmup=0, weight_decay=0.3), 0, 1, None)
    loop.step()
    found = sorted((g["lr"], g["weight_decay"], len(g["params"])) for g in loop.optimizer.param_groups)
    assert found == [(0.5, 0.3, 1), (1.0, 0.0, 2), (1.0, 0.3, 1)]


def test_clipping_bounds_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = _Loop(Regression(), TrainConfig(**{**vars(SMALL), "clip": 1e-3}), 0, 1, None)
    norms = []
    step = loop.optimizer.step
    monkeypatch.setattr(
        loop.optimizer,
        "step",
        lambda: (step(), norms.append(torch.cat([p.grad.flatten() for p in loop.plain.parameters()]).norm())),
    )
    loop.step()
    np.testing.assert_allclose(float(norms[0]), 1e-3, rtol=1e-3)


@pytest.mark.parametrize("at", [1, 3, 11, 22, 24, 40])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_resumes_bit_for_bit(tmp_path: Path, at: int, signum: int) -> None:
    whole = train(Regression(), SMALL, seeds=2, checkpoint=tmp_path / "whole")
    path = tmp_path / "stopped"
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted, match=signal.Signals(signum).name) as caught:
        train(Regression(signals={at: signum}), SMALL, seeds=2, checkpoint=path)
    assert signal.getsignal(signum) == before
    assert isinstance(caught.value, KeyboardInterrupt)
    assert (caught.value.signum, caught.value.checkpoint) == (signum, path)
    assert same(whole, train(Regression(), SMALL, seeds=2, checkpoint=path, resume=True))


def test_a_killed_training_resumes_from_its_last_checkpoint(tmp_path: Path) -> None:
    whole = train(Regression(), SMALL)

    class Killed(Regression):
        def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
            if self.batches == 17:
                raise MemoryError
            return super().loss(model, batch)

    with pytest.raises(MemoryError):
        train(Killed(), SMALL, checkpoint=tmp_path / "c")
    task = Regression()
    assert same(whole, train(task, SMALL, checkpoint=tmp_path / "c", resume=True))
    assert task.batches == 23 - 15


def test_a_second_signal_acts_at_once(tmp_path: Path) -> None:
    class Twice(Regression):
        def batch(self, rng: np.random.Generator, device: torch.device) -> Tensor:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            return super().batch(rng, device)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            train(Twice(), SMALL, checkpoint=tmp_path / "c")
    finally:
        signal.signal(signal.SIGINT, before)
    assert not isinstance(caught.value, Interrupted)


def test_checkpoints_of_another_training_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with pytest.raises(Interrupted):
        train(Regression(signals={5: signal.SIGINT}), SMALL, seeds=2, checkpoint=path, fingerprint="a", stage={"n": 1})
    assert stage_of(path) == {"n": 1}
    content = path.read_bytes()

    def refused(text: str, config: TrainConfig = SMALL, **given: Any) -> None:
        with pytest.raises(CarouselError, match=text):
            train(Regression(), config, checkpoint=path, resume=True, **given)

    refused(r"its learning_rate is 0\.002, not 0\.1", TrainConfig(**{**vars(SMALL), "learning_rate": 0.1}), seeds=2)
    refused("it trains 2 seeds, not 1", fingerprint="a")
    refused("its data or columns differ", seeds=2, fingerprint="b")
    path.write_bytes(content[:1000])
    refused("damaged", seeds=2, fingerprint="a")
    path.write_bytes(pickle.dumps({"model": 1}))
    refused("no checkpoint, or it is damaged", seeds=2, fingerprint="a")
    path.unlink()
    refused("there is no checkpoint", seeds=2, fingerprint="a")
    with pytest.raises(CarouselError, match="resume needs a checkpoint"):
        train(Regression(), SMALL, resume=True)


def test_a_loss_that_is_not_finite_says_so() -> None:
    task = Regression()
    task.loss = lambda model, batch: model(batch).sum() * math.nan  # type: ignore[method-assign]
    with pytest.raises(CarouselError, match="no longer finite at step 1; lower learning_rate"):
        train(task, SMALL)


def test_devices_that_are_not_there_are_refused() -> None:
    with pytest.raises(CarouselError, match="accelerator 'abacus' with precision '32-true' cannot be used here"):
        train(Regression(), TrainConfig(**{**vars(SMALL), "accelerator": "abacus"}))


def test_mixed_precision_trains_and_keeps_whole_weights() -> None:
    result = train(Regression(), TrainConfig(**{**vars(SMALL), "precision": "bf16-mixed"}))
    assert all(value.dtype == torch.float32 for value in result.members[0].values())
    assert not same(result, train(Regression(), SMALL))


def test_threads_are_set_for_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    before = torch.get_num_threads()
    train(Regression(), TrainConfig(**{**vars(SMALL), "threads": 3}))
    train(Regression(), SMALL)
    assert counts == [3, before, before, before]


def test_progress_tells_every_step() -> None:
    events: list[Event] = []
    train(Regression(), SMALL, seeds=2, progress=events.append)
    assert [(e.member, e.step) for e in events] == [(m, s) for m in (0, 1) for s in range(1, 24)]
    assert all((e.total, e.members) == (23, 2) and e.rate > 0 for e in events)
    assert events[2].metric is None
    assert events[3].metric == events[3].best


def test_settings_are_read_as_their_types() -> None:
    made = TrainConfig().with_settings(
        ["hidden_size=32", "learning_rate=1e-4", "refit=false", "level=last", "cell.peephole=true", "zoneout_c=0.1"]
    )
    assert (made.hidden_size, made.learning_rate, made.refit, made.level) == (32, 1e-4, False, "last")
    assert made.cell == CellSpec(peephole=True, zoneout_c=0.1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("hidden_sise=3", "no setting 'hidden_sise'; did you mean hidden_size"),
        ("hidden_size", "has no value; write it as name=value"),
        ("hidden_size=big", "must be a whole number, got 'big'"),
        ("learning_rate=fast", "must be a number, got 'fast'"),
        ("refit=maybe", "must be true or false, got 'maybe'"),
        ("level=median", "level must be one of last, mean, got 'median'"),
        ("precision=7-bit", "precision must be one of 32-true, bf16-mixed, 16-mixed, got '7-bit'"),
        ("steps=0", "steps must be at least 1, got 0"),
        ("dropout=1.5", r"dropout must be in \[0, 1\), got 1\.5"),
        ("cell.zoneout_c=2", "zoneout_c is a probability"),
        ("learning_rate=nan", "learning_rate must be positive, got nan"),
        ("weight_decay=nan", "weight_decay must be at least 0, got nan"),
        ("linear_rate=1e300", r"linear_rate must be at most 1000, got 1e\+300"),
        ("learning_rate=1e300", r"learning_rate must be at most 1000, got 1e\+300"),
        ("epochs=1e300", r"epochs must be at most 1e\+09, got 1e\+300"),
        ("seed=99999999999999999999", f"seed must be at most {2**62}, got 99999999999999999999"),
        ("batch_size=99999999999999999999", "batch_size must be at most 2147483647, got 99999999999999999999"),
        ("num_layers=1001", "num_layers must be at most 1000, got 1001"),
        ("cell.proj_size=64", r"cell\.proj_size must be smaller than hidden_size \(64\), got 64"),
        ("threads=100000", f"threads is 100000, more than the processors of this machine .{os.cpu_count()}.; set at"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: str, message: str) -> None:
    with pytest.raises(CarouselError, match=message):
        TrainConfig().with_settings([setting])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 16.5}, "hidden_size must be a whole number, got 16.5"),
        ({"steps": True}, "steps must be a whole number, got True"),
        ({"clip": "1"}, "clip must be a number, got '1'"),
        ({"refit": 1}, "refit must be true or false, got 1"),
        ({"accelerator": None}, "accelerator must be text, got None"),
        ({"cell": {"peephole": True}}, "cell must be a CellSpec, got {'peephole': True}"),
        ({"level": 3}, "level must be one of last, mean, got 3"),
    ],
)
def test_fields_of_a_wrong_type_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TrainConfig(**fields)


def test_more_threads_than_processors_are_refused_where_it_trains_but_not_where_a_model_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    made = TrainConfig(**{**vars(SMALL), "threads": 3})
    with pytest.raises(CarouselError, match=r"threads is 3, more than the processors of this machine \(2\); set at mo"):
        train(Regression(), made)


def test_the_largest_choices_still_train() -> None:
    edge = {"seed": 2**62, "clip": 1e9, "recency": 1e9, "ridge": 1e9, "epochs": 1e9, "linear_rate": 1000}
    made = train(Regression(), TrainConfig(**{**vars(SMALL), **edge}), seeds=2)
    assert all(torch.isfinite(value).all() for weights in made.members for value in weights.values())


def test_bfloat16_trains_as_float32_does_and_resumes(tmp_path: Path) -> None:
    config = TrainConfig(**{**vars(SMALL), "precision": "bf16-mixed", "accelerator": "cpu"})
    whole = train(Regression(), config, checkpoint=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(Regression(signals={11: signal.SIGINT}), config, checkpoint=tmp_path / "c")
    assert same(whole, train(Regression(), config, checkpoint=tmp_path / "c", resume=True))
    plain = train(Regression(), TrainConfig(**{**vars(SMALL), "accelerator": "cpu"}))
    assert not same(whole, plain)
    for name, weight in whole.members[0].items():
        torch.testing.assert_close(weight, plain.members[0][name], rtol=0, atol=0.02)
