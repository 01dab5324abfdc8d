"""What an ONNX file says of its model: tasks, columns, categories and their codes, units, fingerprints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from carousel.config import ModelConfig, to_json
from carousel.export.onnx_graph import State
from carousel.inputs.fitted import FIRST, MISSING, UNSEEN
from carousel.inputs.text import BEGIN, END, TURN

__all__ = ["metadata"]


def metadata(
    config: ModelConfig, provenance: Mapping[str, Any], fingerprint: str, states: Mapping[str, State]
) -> dict[str, str]:
    """One JSON document under the key `carousel`.

    `codes` say how a category enters: 0 is missing, 1 was never seen in training, those of `values` follow from 2 on; a
    hashed one is 2 + FNV-1a (32 bits, of the UTF-8 bytes) modulo `buckets`. `fingerprint` is the SHA-256 of the model
    file that was exported, `data` that of what the model was trained on. Of texts `tokenizer` is the
    JSON of the `tokenizers` library; ids of its tokens follow those of the marks. `state` says of every state its
    shape and with what it is filled at first, null being NaN.
    """
    table = config.input
    found: dict[str, Any] = {"task": config.task, "fingerprint": fingerprint, "data": provenance.get("data")}
    found["versions"] = provenance.get("versions")
    # NaN is no JSON
    fills = {name: None if np.isnan(state.begin) else state.begin for name, state in states.items()}
    found["state"] = {name: {"shape": list(state.shape), "begin": fills[name]} for name, state in states.items()}
    if config.task in ("generate", "translate"):
        found["marks"] = {"begin": BEGIN, "end": END, "turn": TURN}
        both = (
            {"vocabulary": table.words} if config.task == "generate" else {"source": table.source, "target": table.out}
        )
        found |= {name: to_json(words) for name, words in both.items()}
        if getattr(table, "turns", 0):  # of a dialogue so many are read, each after `turn` or, one's own, after `begin`
            found["turns"] = table.turns
        return {"carousel": json.dumps(found, ensure_ascii=False)}
    found |= {"roles": to_json(table.roles), "codes": {}}
    for column in table.embedded:
        rule = {"buckets": column.buckets} if getattr(column, "buckets", 0) else {"values": list(column.values)}
        found["codes"][column.name] = {"missing": MISSING, "unseen": UNSEEN, "first": FIRST} | rule
    clock = "seconds since 1970-01-01 UTC" if table.stamps else "numbers, or rows where there is no time column"
    found["time"] = {"unit": clock}
    if config.task == "forecast":
        found["time"] |= {"grid": table.grid.kind, "step": table.grid.step, "zone": table.grid.zone}
        found |= {"horizon": table.horizon, "reach": table.reach, "quantiles": list(config.head.quantiles)}
    else:
        found["time"] |= {"step": table.unit, "zone": table.zone}
        found["head"] = to_json(config.head)
    return {"carousel": json.dumps(found, ensure_ascii=False)}
