"""Works out the golden numbers of the cell with plain Python floats: `python tests/golden/make.py` writes the files.

Nothing of carousel, NumPy or torch is used here, and the gate order and every equation are written out by hand, one
unit at a time, so that a mistake in the code under test cannot be a mistake here as well. The equations are those of
the sources named in CellSpec; sigma and softplus are written as the textbook has them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

HERE = Path(__file__).parent
INPUT, HIDDEN, PROJECTION = 2, 3, 2
LENGTHS = [1, 7, 4]  # sorting them is not its own inverse, so that the two indices of packing cannot be confused
CASES = ["plain", "peephole", "projection", "layer_norm", "coupled", "decay", "no_bias", "clip", "everything"]


def sigma(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z))


def softplus(z: float) -> float:
    return math.log(1.0 + math.exp(z))


def dot(a: list[float], b: list[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True))


def normalised(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / len(values)
    return [(v - mean) / math.sqrt(variance + 0.00001) for v in values]


class Numbers:
    """Three-digit numbers between -1 and 1 from a multiplicative generator (Park & Miller 1988)."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def one(self) -> float:
        self.state = self.state * 48271 % 2147483647
        return round(2.0 * self.state / 2147483647 - 1.0, 3)

    def many(self, count: int) -> list[float]:
        return [self.one() for _ in range(count)]

    def table(self, rows: int, columns: int) -> list[list[float]]:
        return [self.many(columns) for _ in range(rows)]


def build(case: str, seed: int) -> dict:
    """The spec, random weights, ragged input, states and gaps of one case, and what a cell must answer."""
    everything = case == "everything"
    on = {name: everything or case == name for name in CASES}
    spec: dict = {}
    for name in ("peephole", "layer_norm", "coupled", "decay"):
        if on[name]:
            spec[name] = True
    if on["projection"]:
        spec["proj_size"] = PROJECTION
    if on["clip"]:
        spec["cell_clip"] = 0.4
    if case == "no_bias":
        spec["bias"] = False
    gates = 3 if on["coupled"] else 4
    output = PROJECTION if on["projection"] else HIDDEN
    numbers = Numbers(seed)
    weights: dict = {
        "weight_ih": numbers.table(gates * HIDDEN, INPUT),
        "weight_hh": numbers.table(gates * HIDDEN, output),
    }
    if case != "no_bias":
        weights["bias_ih"] = numbers.many(gates * HIDDEN)
        weights["bias_hh"] = numbers.many(gates * HIDDEN)
    if on["projection"]:
        weights["weight_hr"] = numbers.table(PROJECTION, HIDDEN)
    if on["peephole"]:
        weights["weight_ch"] = numbers.many((gates - 1) * HIDDEN)
    if on["layer_norm"]:
        weights["norm_ih"] = numbers.many(gates * HIDDEN)
        weights["norm_hh"] = numbers.many(gates * HIDDEN)
        weights["norm_c"] = numbers.many(HIDDEN)
        weights["norm_bias_c"] = numbers.many(HIDDEN)
    if on["decay"]:
        weights["decay_rate"] = numbers.many(HIDDEN)
    rows = sum(LENGTHS)
    made = {
        "spec": spec,
        "weights": weights,
        "lengths": LENGTHS,
        "x": [[2.0 * v for v in row] for row in numbers.table(rows, INPUT)],
        "h0": numbers.table(len(LENGTHS), output),
        "c0": numbers.table(len(LENGTHS), HIDDEN),
        "elapsed": [round(abs(v) + 0.1, 3) for v in numbers.many(rows)] if on["decay"] else None,
    }
    made["forward"] = answers(made, backward=False)
    made["reverse"] = answers(made, backward=True)
    return made


def answers(made: dict, backward: bool) -> dict:
    """y, i, f, g, o, c of every row, in the rows' order, and the last states of every sequence."""
    rows = sum(made["lengths"])
    found: dict = {name: [None] * rows for name in ("y", "i", "f", "g", "o", "c")}
    found |= {"h_n": [], "c_n": []}
    start = 0
    for b, length in enumerate(made["lengths"]):
        h, c = made["h0"][b], made["c0"][b]
        order = range(start, start + length)
        for row in reversed(order) if backward else order:
            gap = None
            if made["elapsed"] is not None and not backward:
                gap = made["elapsed"][row]
            elif made["elapsed"] is not None:  # since the row visited before, which is the next one in time
                gap = made["elapsed"][row + 1] if row + 1 < start + length else 0.0
            h, c, gates = one_step(made["spec"], made["weights"], made["x"][row], h, c, gap)
            for name, value in {"y": h, "c": c, **gates}.items():
                found[name][row] = value
        found["h_n"].append(h)
        found["c_n"].append(c)
        start += length
    return found


def one_step(
    spec: dict, weights: dict, x: list[float], h: list[float], c: list[float], gap: float | None
) -> tuple[list[float], list[float], dict]:
    n = HIDDEN
    if gap is not None:
        c = [c[k] * math.exp(-gap * softplus(weights["decay_rate"][k])) for k in range(n)]

    from_input = [dot(row, x) for row in weights["weight_ih"]]
    from_state = [dot(row, h) for row in weights["weight_hh"]]
    if spec.get("layer_norm"):
        from_input = [v * gain for v, gain in zip(normalised(from_input), weights["norm_ih"], strict=True)]
        from_state = [v * gain for v, gain in zip(normalised(from_state), weights["norm_hh"], strict=True)]
    z = [p + q for p, q in zip(from_input, from_state, strict=True)]
    if spec.get("bias", True):
        z = [v + p + q for v, p, q in zip(z, weights["bias_ih"], weights["bias_hh"], strict=True)]

    peep = weights.get("weight_ch")
    new_c, new_h = [0.0] * n, [0.0] * n
    i, f, g, o = [0.0] * n, [0.0] * n, [0.0] * n, [0.0] * n
    for k in range(n):
        if spec.get("coupled"):  # stored: forget, candidate, output; peepholes of forget, output
            z_f, z_g, z_o = z[k], z[n + k], z[2 * n + k]
            p_f, p_o = (peep[k], peep[n + k]) if peep else (0.0, 0.0)
            f[k] = sigma(z_f + p_f * c[k])
            i[k] = 1.0 - f[k]
        else:  # stored: input, forget, candidate, output; peepholes of input, forget, output
            z_i, z_f, z_g, z_o = z[k], z[n + k], z[2 * n + k], z[3 * n + k]
            p_i, p_f, p_o = (peep[k], peep[n + k], peep[2 * n + k]) if peep else (0.0, 0.0, 0.0)
            i[k] = sigma(z_i + p_i * c[k])
            f[k] = sigma(z_f + p_f * c[k])
        g[k] = math.tanh(z_g)
        new_c[k] = f[k] * c[k] + i[k] * g[k]
        if spec.get("cell_clip"):
            new_c[k] = max(-spec["cell_clip"], min(spec["cell_clip"], new_c[k]))
        o[k] = sigma(z_o + p_o * new_c[k])

    seen = new_c
    if spec.get("layer_norm"):
        seen = [
            v * gain + offset
            for v, gain, offset in zip(normalised(new_c), weights["norm_c"], weights["norm_bias_c"], strict=True)
        ]
    new_h = [o[k] * math.tanh(seen[k]) for k in range(n)]
    if spec.get("proj_size"):
        new_h = [dot(row, new_h) for row in weights["weight_hr"]]
    return new_h, new_c, {"i": i, "f": f, "g": g, "o": o}


def main() -> None:
    for number, case in enumerate(CASES):
        text = json.dumps(build(case, seed=1000 + 77 * number), indent=None, separators=(",", ":"))
        (HERE / f"{case}.json").write_text(text.replace('],"', '],\n"').replace('},"', '},\n"') + "\n")


if __name__ == "__main__":
    main()
