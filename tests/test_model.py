"""The model and its config: shapes known without torch, JSON there and back, starting weights, one forward pass."""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from carousel import CellSpec
from carousel.config import ModelConfig, StackConfig, from_json, to_json
from carousel.errors import ModelFileError
from carousel.heads.forecast import ForecastHead
from carousel.inputs.clock import Grid
from carousel.inputs.fitted import Column, TableInput
from carousel.inputs.table import Roles
from carousel.lstm import LSTM
from carousel.model import Batch, build, initialise, members_from
from carousel.train import TrainConfig

NUMBER, WORD = Column("n", "number", 1.0, 2.0), Column("w", "category", values=("a", "b", "c"))


def config(**changes: Any) -> ModelConfig:
    table = TableInput(
        roles=Roles("id", "t", ("y", "z"), ("n", "w"), ("s",), ("k",)),
        grid=Grid("even", 3600.0),
        stamps=True,
        context=9,
        horizon=5,
        seasons=(4, 7),
        level="mean",
        calendar=("hour_of_day",),
        features=(NUMBER, WORD),
        known=(replace(WORD, name="k"),),
        static=(replace(NUMBER, name="s"),),
    )
    made = ModelConfig("forecast", table, StackConfig(8), ForecastHead(width=6), seeds=2)
    return replace(made, **changes)


CELLS = [
    CellSpec(),
    CellSpec(bias=False),
    CellSpec(peephole=True, layer_norm=True, proj_size=3),
    CellSpec(coupled=True, decay=True),
]


def batch(of: ModelConfig, n: int = 3) -> Batch:
    g, table = torch.Generator().manual_seed(4), of.input
    c, h, k = table.context, table.horizon, table.targets
    embedded = {
        role: [x for x in getattr(table, role) if x.kind == "category"] for role in ("features", "known", "static")
    }
    width = {role: sum(x.width for x in columns) for role, columns in embedded.items()}

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    def codes(columns: list[Column], *shape: int) -> torch.Tensor:
        found = [torch.randint(x.codes, (n, *shape), generator=g) for x in columns]
        return torch.stack(found, -1) if found else torch.zeros((n, *shape, 0), dtype=torch.int64)

    return Batch(
        steps=numbers(n, c, table.step_size - width["features"] - width["known"]),
        step_codes=codes(embedded["features"] + embedded["known"], c),
        ahead=numbers(n, h, table.ahead_size - width["known"]),
        ahead_codes=codes(embedded["known"], h),
        static=numbers(n, table.static_size - width["static"]),
        static_codes=codes(embedded["static"]),
        base=numbers(n, h, k, table.bases),
        truth=numbers(n, h, k),
        elapsed=numbers(n, c).exp(),
        linear=numbers(n, c + 1, k),
    )


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_shapes_of_the_config_are_those_of_the_modules(cell: CellSpec, layers: int) -> None:
    of = config(stack=StackConfig(8, layers, 0.1, cell))
    made = {name: tuple(value.shape) for name, value in build(of).state_dict().items()}
    assert made == of.member_shapes()
    assert of.shapes() == {f"{k}.{name}": shape for k in range(2) for name, shape in made.items()}


@pytest.mark.parametrize("cell", CELLS)
def test_a_forward_pass_reads_every_part_of_its_batch(cell: CellSpec) -> None:
    of = config(stack=StackConfig(8, 1, 0.0, cell))
    torch.manual_seed(0)
    model = build(of).eval()
    for weight in model.parameters():  # nothing at zero, so that every path counts
        torch.nn.init.normal_(weight, std=0.3)
    given = batch(of)
    with torch.no_grad():
        out = model(given)
        assert out.shape == (3, 5, 2, 7)
        for name in Batch._fields:
            value = getattr(given, name)
            other = (value + 1) % 5 if value.dtype == torch.int64 else value * 1.5 + 0.3
            changed = model(given._replace(**{name: other}))
            unread = name in ("truth", "static_codes") or (name == "elapsed" and not cell.decay)
            assert torch.equal(changed, out) == unread, name
        alone = model(Batch(*(part[1:2] for part in given)))
    torch.testing.assert_close(alone, out[1:2])


def test_embeddings_go_where_their_columns_are() -> None:
    of = config()
    model, given = build(of).eval(), batch(of)
    assert [tuple(e.weight.shape) for e in model.input.embed] == [(5, WORD.width), (5, WORD.width)]
    found = model.input(given.steps, given.step_codes, model.input.steps)
    torch.testing.assert_close(found[..., -WORD.width :], model.input.embed[1].weight[given.step_codes[..., 1]])
    ahead = model.input(given.ahead, given.ahead_codes, model.input.ahead)
    torch.testing.assert_close(ahead[..., -WORD.width :], model.input.embed[1].weight[given.ahead_codes[..., 0]])


@pytest.mark.parametrize("coupled", [False, True])
def test_starting_weights(coupled: bool) -> None:
    torch.manual_seed(0)
    lstm = LSTM(5, 8, 2, coupled=coupled)
    initialise(lstm)
    gates = 3 if coupled else 4
    forget = 0 if coupled else 1
    for layer, width in ((0, 5), (1, 8)):
        recurrent = getattr(lstm, f"weight_hh_l{layer}").detach().view(gates, 8, 8)
        for gate in recurrent:
            torch.testing.assert_close(gate @ gate.T, torch.eye(8), atol=1e-5, rtol=0)
        bound = (6 / (width + gates * 8)) ** 0.5
        weight = getattr(lstm, f"weight_ih_l{layer}").detach()
        assert 0.9 * bound < weight.abs().max() <= bound
        bias = (getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")).detach().view(gates, 8)
        expected = torch.zeros(gates, 8)
        expected[forget] = 1
        assert torch.equal(bias, expected)


@pytest.mark.parametrize("coupled", [False, True])
def test_a_span_sets_memories_of_one_to_so_many_rows(coupled: bool) -> None:
    torch.manual_seed(0)
    lstm = LSTM(5, 400, coupled=coupled)
    initialise(lstm, span=101)
    gates = 3 if coupled else 4
    bias = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach().view(gates, 400)
    forget = bias[0 if coupled else 1].exp()
    assert 1 <= forget.min() < 3
    assert 98 < forget.max() <= 100
    assert 45 < forget.mean() < 56
    if not coupled:
        assert torch.equal(bias[0], -bias[1])
    assert not bias[2 - coupled :].any()


def test_members_come_back_from_named_arrays() -> None:
    of = config()
    made = [build(of), build(of)]
    arrays = {f"{k}.{n}": v.numpy().copy() for k, m in enumerate(made) for n, v in m.state_dict().items()}
    found = members_from(of, arrays)
    given = batch(of)
    for one, two in zip(made, found, strict=True):
        assert not two.training
        torch.testing.assert_close(one.eval()(given), two(given), rtol=0, atol=0)
    arrays["0.head.out.bias"][:] = 7
    assert not (found[0].head.out.bias == 7).any()


def test_configs_go_to_json_and_back() -> None:
    for cell in CELLS:
        of = config(stack=StackConfig(8, 2, 0.25, cell))
        assert ModelConfig.from_json(json.loads(json.dumps(of.to_json()))) == of
    trained = TrainConfig(dropout=0.5, cell=CELLS[2])
    assert from_json(TrainConfig, to_json(trained), "train") == trained


def paths(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [at, *itertools.chain.from_iterable(paths(value, (*at, key)) for key, value in items)]


def test_any_one_damage_to_the_json_is_refused_by_its_name() -> None:
    whole = config().to_json()
    checked = 0
    for path in paths(whole)[1:]:
        parent: Any = whole
        for key in path[:-1]:
            parent = parent[key]
        if not isinstance(parent, dict):
            continue
        field = path[-1]
        for damage in ("missing", "unknown", "type"):
            damaged = copy.deepcopy(whole)
            inner: Any = damaged
            for key in path[:-1]:
                inner = inner[key]
            if damage == "missing":
                del inner[field]
            elif damage == "unknown":
                inner["surprise"] = 1
            else:
                inner[field] = {"no": "such"}
            with pytest.raises(ModelFileError, match="surprise" if damage == "unknown" else str(field)):
                ModelConfig.from_json(damaged)
            checked += 1
    assert checked > 100


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("stack", "hidden_size"), True, "model.stack.hidden_size must be a whole number, got True"),
        (("stack", "hidden_size"), 0, "hidden_size must be at least 1"),
        (("stack", "dropout"), float("nan"), "model.stack.dropout must be finite"),
        (("stack", "cell", "zoneout_c"), 1.5, "zoneout_c is a probability"),
        (("task",), "predict", "model.task must be one of forecast"),
        (("input", "seasons"), [4, 0], r"seasons\[1\] must be at least 1"),
        (("input", "seasons"), 4, "model.input.seasons must be a list"),
        (("input", "features", 0, "kind"), "image", r"model.input.features\[0\].kind must be one of"),
        (("head", "quantiles"), [0.1, 0.9], "quantiles must ascend"),
        (("seeds",), 0, "seeds must be at least 1"),
    ],
)
def test_values_out_of_range_are_refused(path: tuple[Any, ...], value: Any, message: str) -> None:
    data = config().to_json()
    inner: Any = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ModelFileError, match=message):
        ModelConfig.from_json(data)


def test_configs_and_inputs_do_without_torch() -> None:
    code = (
        "import sys, carousel.config, carousel.modelfile, carousel.inputs.windows, carousel.inputs.table;"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_stack_refuses_what_makes_no_sense() -> None:
    for wrong in ({"hidden_size": 0}, {"hidden_size": 3, "num_layers": 0}, {"hidden_size": 3, "dropout": 1.0}):
        with pytest.raises(ValueError, match=r"at least|probability"):
            StackConfig(**wrong)
    assert np.prod(StackConfig(3).shapes(2)["weight_ih_l0"]) == 24
