"""AdamW (Loshchilov & Hutter 2019) for the processor: torch.optim's own imports torch.compile, for a second."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["AdamW"]

BETAS = (0.9, 0.999)
EPS = 1e-8


class AdamW:
    """What `torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)` does to parameters, and its `state_dict`.

    `groups`: dicts of `params`, `weight_decay` and anything else; `lr` is set in each before a step.

    >>> weight = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = AdamW([{"params": [weight], "weight_decay": 0.5, "lr": 0.1}])
    >>> weight.grad = torch.tensor([3.0])
    >>> optimizer.step()
    >>> weight  # 1 - 0.1 * 0.5 * 1 for the decay, then - 0.1 for a first gradient of any size
    tensor([0.8500], requires_grad=True)
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = groups
        self._state: dict[int, dict[str, Tensor]] = {}  # by the parameter's number
        self._over: Tensor | None = None  # what the next step's gradients are divided by

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def clip(self, most: float) -> None:
        """The next step sees gradients scaled down to the norm `most` where theirs together is larger, as after
        `torch.nn.utils.clip_grad_norm_`, but without a pass over them of its own."""
        given = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if given:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(given)))
            self._over = ((norm + 1e-6) / most).clamp_(min=1.0).float()

    @torch.no_grad()
    def step(self) -> None:
        number = 0
        for group in self.param_groups:
            given = []
            for parameter in group["params"]:
                if parameter.grad is not None:
                    given.append((parameter, self._slots(number, parameter)))
                number += 1
            if not given:
                continue
            torch._fused_adamw_(
                [p for p, _ in given],
                [p.grad for p, _ in given],
                [slots["exp_avg"] for _, slots in given],
                [slots["exp_avg_sq"] for _, slots in given],
                [],
                self._count([slots["step"] for _, slots in given]),
                lr=group["lr"],
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=group["weight_decay"],
                eps=EPS,
                amsgrad=False,
                maximize=False,
                grad_scale=self._over,
            )
        self._over = None

    def state_dict(self) -> dict[str, Any]:
        return {"state": self._state, "param_groups": self.param_groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the slots of `state_dict`; the groups stay as they are."""
        self._state = {k: dict(slots) for k, slots in state["state"].items()}

    def _slots(self, number: int, parameter: Tensor) -> dict[str, Tensor]:
        if number not in self._state:
            self._state[number] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return self._state[number]

    @staticmethod
    def _count(steps: list[Tensor]) -> list[Tensor]:
        torch._foreach_add_(steps, 1)
        return steps
