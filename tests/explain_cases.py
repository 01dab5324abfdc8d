"""A model that counts, built by hand: what is known about it is what `explain` has to find."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import torch

from carousel import Classifier, TrainConfig

TINY = TrainConfig(steps=4, least_steps=4, hidden_size=4, evaluate_every=2, warmup=1, width=0)


def events(count: int = 24, length: int = 60) -> pl.DataFrame:
    """Sequences of a rare event, what it is worth, and noise; the label says whether there were many events."""
    rng = np.random.default_rng(4)
    frames = []
    for k in range(count):
        n = length - int(rng.integers(0, 20))
        event = (rng.random(n) < (0.05 if k % 2 else 0.15)).astype(float)
        frames.append(
            pl.DataFrame(
                {
                    "who": [f"s{k:02d}"] * n,
                    "event": event,
                    "noise": rng.normal(size=n),
                    "many": ["no" if k % 2 else "yes"] * n,
                }
            )
        )
    return pl.concat(frames)


@cache
def counting() -> Classifier:
    """Unit 0 adds 1 for each event and forgets nothing, and its state decides; `noise` is not looked at."""
    model = Classifier("many", id="who", features=["event", "noise"], config=TINY).fit(events())
    net, (channel, _) = model.model_[0], model.config_.input.numbers
    with torch.no_grad():
        lstm = net.stack
        for weight in lstm.parameters():
            weight.mul_(0.3)
        lstm.weight_ih_l0[:, 1] = 0.0
        for weight in (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0):
            weight[0::4] = 0.0
        lstm.weight_ih_l0[0, 0] = 40 * channel.scale  # the input gate opens at an event, and only then
        lstm.bias_ih_l0[0] = 40 * channel.mean - 20
        lstm.bias_ih_l0[4] = 40.0  # the forget gate never closes
        lstm.bias_ih_l0[8] = 0.2  # what an event adds
        lstm.bias_ih_l0[12] = 40.0
        net.head.out.weight.zero_()
        net.head.out.weight[:, 0] = torch.tensor([-3.0, 3.0])
    return model
