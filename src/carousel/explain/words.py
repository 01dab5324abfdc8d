"""What was found, in sentences and as plain values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from carousel.explain.gradients import Flow
from carousel.explain.memory import describe

if TYPE_CHECKING:
    from carousel.explain.study import Explanation

__all__ = ["as_dict", "findings", "flow_sentence", "through_sentence"]


def findings(found: Explanation) -> list[str]:
    """The most important, a sentence each: memory, units, gradients, attribution."""
    return [*_memory(found), *_units(found), flow_sentence(found), *_attribution(found)]


def _memory(found: Explanation) -> list[str]:
    halves = np.concatenate([m.half_life for m in found.memories])
    pace = found.subject.pace
    endless = int(np.isinf(halves).sum())
    middle = describe(float(np.median(halves)), pace)
    text = f"Half of the {len(halves)} units keep half of what they hold for {middle} or more"
    top = float(np.sort(halves)[-1])
    if endless:
        text += f"; {endless} never forget{'s' if endless == 1 else ''} (infinite half-life)."
    else:
        text += f", the slowest for {describe(top, pace)}."
    made = [text]
    if found.influence is not None:
        half = found.influence.half
        older = f"rows more than {pace.describe(half)} older matter" if half else "all rows before it matter"
        if found.influence.lasts:
            older = f"even those {pace.describe(half)} older, the oldest that were replaced, do not matter"
        made.append(
            f"Replacing the row that matters most moves the answer by {found.influence.change.max():.1%} of"
            f" {found.influence.scale}; {older} less than half as much."
        )
    return made


def _units(found: Explanation) -> list[str]:
    one = {"follows": "follows {}", "trend": "goes with time", "event": "answers to {}", "counter": "counts {}"}
    many = {"follows": "follow {}", "trend": "go with time", "event": "answer to {}", "counter": "count {}"}
    one["cycle"], many["cycle"] = "goes with a cycle of {}", "go with a cycle of {}"
    kinds: dict[tuple[str, str], int] = {}
    for roles in found.roles:
        for role in roles:
            if role.kind != "none":
                kinds[role.kind, role.of] = kinds.get((role.kind, role.of), 0) + 1
    if not kinds:
        return ["No unit follows a single thing; what they know is spread over many."]
    top = sorted(kinds.items(), key=lambda pair: -pair[1])[:4]
    parts = [f"{count} {(one if count == 1 else many)[kind].format(of)}" for (kind, of), count in top]
    total = sum(layer.units for layer in found.layers)
    return [
        f"Of {total} units {sum(kinds.values())} can be read by"
        f" {'itself' if sum(kinds.values()) == 1 else 'themselves'}: {_joined(parts)}."
    ]


def flow_sentence(found: Explanation) -> str:
    """The ratio of gradient norms far from the loss and beside it, of the model and of the plain RNN."""
    lags = len(found.flows.model.h)
    far = 100 if lags > 100 else lags - 1
    if far < 2:
        return "The sequences are too short to speak of gradients far back."
    parts = [f"{_ratio(found.flows.model, far)} in this model"]
    parts += [f"{_ratio(one, far)} in {one.name}" for one in found.flows.twins]
    return f"Gradient norm at lag {far} to that at lag 1: {', '.join(parts)}."


def _ratio(flow: Flow, far: int) -> str:
    value = flow.ratio(far)
    return "not measurable" if value is None else f"{value:.1e}" if value < 0.01 or value > 100 else f"{value:.2f}"


def _attribution(found: Explanation) -> list[str]:
    shares = list(found.attribution.shares.items())
    parts = [f"{name} {share:.0%}" if share >= 0.01 else f"{name} less than 1 %" for name, share in shares[:4]]
    test = found.attribution.deletion
    verdict = "passes" if test.trusted else "does not pass"
    text = f"The deletion test {verdict} ({test.lead:.1f} standard errors before random order)"
    if len(shares) > 1:
        what = "What the LSTM adds to the answer" if found.subject.aside else "The answer"
        text = f"{what} rests on {_joined(parts)}. {text}"
    return [through_sentence(found) + f"{text}."]


def through_sentence(found: Explanation) -> str:
    """How much of the answer goes through the LSTM, where other ways lead past it; ends with a space."""
    through = found.attribution.through
    if not found.subject.aside or through is None:
        return ""
    return f"{through:.0%} of the answer's spread goes through the LSTM, the rest past it ({found.subject.aside}). "


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def as_dict(found: Explanation) -> dict[str, Any]:
    """Plain JSON values; what is infinite is null."""
    subject, attribution = found.subject, found.attribution
    test = attribution.deletion
    return {
        "model": found.model,
        "data": {
            "source": subject.title,
            "sequences": len(subject.lengths),
            "steps": int(subject.lengths.sum()),
            "longest": int(subject.lengths.max()),
            "notes": subject.notes,
        },
        "answer": subject.answer,
        "findings": findings(found),
        "advice": found.advice,
        "layers": [
            {
                "name": layer.name,
                "half_life_steps": [_plain(v) for v in m.half_life.tolist()],
                "decay_half_life_steps": None if m.fading is None else [_plain(v) for v in m.fading.tolist()],
                "mean_forget_gate": m.forget.tolist(),
                "roles": [role._asdict() for role in roles],
                "health": h._asdict(),
            }
            for layer, m, roles, h in zip(found.layers, found.memories, found.roles, found.health, strict=True)
        ],
        "influence": None
        if found.influence is None
        else {"lag": found.influence.lag.tolist(), "change": found.influence.change.tolist()},
        "gradients": {
            "of": found.flows.loss,
            "twin_steps": found.flows.steps,
            "missing": found.flows.missing,
            "flows": [
                {
                    "name": flow.name,
                    "h": flow.h.tolist(),
                    "c": None if flow.c is None else flow.c.tolist(),
                    "lag_100_to_lag_1": flow.ratio(),
                }
                for flow in (found.flows.model, *found.flows.twins)
            ],
        },
        "attribution": {
            "shares": attribution.shares,
            "through": attribution.through,
            "deletion": {
                "fractions": test.fractions.tolist(),
                "attributed": test.attributed.tolist(),
                "random": test.random.tolist(),
                "lead": test.lead,
                "trusted": test.trusted,
            },
        },
        "cpu_seconds": found.seconds,
    }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
