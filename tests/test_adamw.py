"""Our AdamW against torch's own, step by step, with groups, missing gradients and a state that is taken over."""

from __future__ import annotations

import torch
from torch import nn

from carousel.adamw import AdamW


def pair() -> tuple[nn.Module, AdamW, nn.Module, torch.optim.AdamW]:
    ours, theirs = (nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).double() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())

    def groups(net: nn.Module) -> list[dict[str, object]]:
        weights = [p for p in net.parameters() if p.ndim > 1]
        biases = [p for p in net.parameters() if p.ndim == 1]
        return [
            {"params": weights, "weight_decay": 0.3, "lr": 0.01},
            {"params": biases, "weight_decay": 0.0, "lr": 0.02},
        ]

    return ours, AdamW(groups(ours)), theirs, torch.optim.AdamW(groups(theirs), betas=(0.9, 0.999), eps=1e-8)


def advance(nets: list[nn.Module], optimizers: list[AdamW | torch.optim.AdamW], steps: int) -> None:
    for step in range(steps):
        x = torch.randn(7, 5, dtype=torch.float64)
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * 0.9
            (net[0](x) if step % 3 == 2 else net(x)).square().sum().backward()  # type: ignore[index]
            optimizer.step()


def test_steps_equal_those_of_torch() -> None:
    ours, optimizer, theirs, oracle = pair()
    advance([ours, theirs], [optimizer, oracle], 20)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_state_taken_over_goes_on_bit_for_bit() -> None:
    whole, first, _, _ = pair()
    advance([whole], [first], 5)
    again, second, _, _ = pair()
    again.load_state_dict(whole.state_dict())
    state = {k: {name: v.clone() for name, v in slots.items()} for k, slots in first.state_dict()["state"].items()}
    second.load_state_dict({"state": state, "param_groups": []})
    for group, other in zip(first.param_groups, second.param_groups, strict=True):
        other["lr"] = group["lr"]
    torch.manual_seed(7)
    advance([whole, again], [first, second], 4)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_clipping_equals_that_of_torch() -> None:
    ours, optimizer, theirs, oracle = pair()
    for net in (ours, theirs):
        net.float()
    rng = torch.Generator().manual_seed(3)
    for most in (1e-3, 0.5, 1e6, 0.02):
        x = torch.randn(7, 5, generator=rng)
        for net, one in ((ours, optimizer), (theirs, oracle)):
            one.zero_grad()
            net(x).square().sum().backward()
        optimizer.clip(most)
        nn.utils.clip_grad_norm_(theirs.parameters(), most)
        optimizer.step()
        oracle.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-9)


def test_clipping_without_gradients_does_nothing() -> None:
    ours, optimizer, _, _ = pair()
    before = [p.clone() for p in ours.parameters()]
    optimizer.clip(1.0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), before, strict=True))
