"""What a detector's C file holds beside the stack: its views of the rows, and how they are scored."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from carousel.export.c import emit
from carousel.export.c.plan import Plan
from carousel.export.c.record_sequence import Pushed
from carousel.export.c.text import array, braces, constants, number
from carousel.heads.detect import DetectHead, forecast_errors, score_rows
from carousel.inputs.sequence import SequenceInput

__all__ = ["answers", "tables", "values"]

Floats = NDArray[np.float64]


def places(plan: Plan) -> list[int]:
    """The scored columns among the number columns."""
    table, head = cast(SequenceInput, plan.config.input), cast(DetectHead, plan.config.head)
    names = [c.name for c in table.numbers]
    return [names.index(name) for name in head.columns]


def longest(head: DetectHead, of: str) -> int:
    return max((view.rows for view in head.views if view.of == of), default=1)


def values(plan: Plan) -> dict[str, Any]:
    """What the templates of sequences ask of a detector; harmless where the model is none."""
    head = plan.config.head
    if not isinstance(head, DetectHead):
        return {"detect": False, "history": False, "rest": False, "score": ""}
    history = head.reference == "history"
    rows = []
    for k, view in enumerate(head.views):
        named = [f"v{k}_{part}" for part in ("centre", "spread", "low", "high", "correlation")]
        plain = [str(view.rows), str(int(view.of == "value")), number(float(view.limit)), number(float(view.largest))]
        rows.append(braces([*plain, *named]))
    found = {
        "detect": True,
        "history": history,
        "rest": history and head.rest > 0,
        "scored": len(head.columns),
        "views": len(head.views),
        "error_rows": longest(head, "error"),
        "value_rows": longest(head, "value"),
        "view_table": emit.table_of("view VIEW[VIEWS]", rows),
        "name": plan.name,
        "NAME": plan.name.upper(),
    }
    return found | {
        "score": emit.template("score_float.c", found),
        "score_views": emit.template("score_views.c", found),
    }


def tables(plan: Plan) -> str:
    """Constants of the score; nothing for other models."""
    head = plan.config.head
    if not isinstance(head, DetectHead):
        return ""
    own = {"SCORED": len(head.columns), "VIEWS": len(head.views), "REST": head.rest}
    text = constants(own | {"ERROR_ROWS": longest(head, "error"), "VALUE_ROWS": longest(head, "value")})
    text += array("SCORED_COLUMN", np.array(places(plan), np.int32))
    text += array("KEPT", np.asarray(head.kept, np.float64)) + array("FLOOR", np.asarray(head.floor, np.float64))
    for k, view in enumerate(head.views):
        for part in ("centre", "spread", "low", "high", "correlation"):
            text += array(f"v{k}_{part}", np.asarray(getattr(view, part), np.float64))
    return text


def answers(plan: Plan, outputs: Floats, pushed: Pushed) -> Floats:
    """Score, anomaly and parts of every row [N, 2 + C], from the outputs [N, 2 C] of the head."""
    table, head = cast(SequenceInput, plan.config.input), cast(DetectHead, plan.config.head)
    own = places(plan)
    raw = pushed.numbers[:, own]
    scaled = np.stack([table.numbers[k].scaled(pushed.numbers[:, k]) for k in own], 1)
    found = score_rows(head, forecast_errors(head, outputs, scaled, pushed.offsets), raw, pushed.offsets)
    return np.concatenate([found.score[:, None], found.anomaly[:, None], found.parts], 1)
