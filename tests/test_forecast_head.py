"""Windows, the head's read-out and calibration, and the module's loss, against plain loops over rows."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from carousel.errors import DataError
from carousel.heads.forecast import DEFAULT_QUANTILES, ForecastHead, calibrate, read_out
from carousel.heads.forecast_net import ForecastNet, pinball
from carousel.inputs.fitted import Column, TableInput, fit_columns
from carousel.inputs.table import Roles, Series, read_table
from carousel.inputs.windows import Rows

H, C, M = 5, 9, 4
ROLES = Roles("id", "t", ("y", "z"), ("f", "colour"), ("size", "kind"), ("price", "holiday"))


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    rng = np.random.default_rng(7)
    parts = []
    for name, length in (("a", 40), ("b", 23), ("c", 7), ("d", 1)):
        y = rng.normal(10, 3, length).round(3)
        y[rng.random(length) < 0.2] = np.nan
        parts.append(
            pl.DataFrame(
                {
                    "id": [name] * length,
                    "t": np.arange(length) + 100,
                    "y": np.where(np.arange(length) == 0, 5.0, y),
                    "z": rng.normal(size=length).cumsum(),
                    "f": rng.normal(3, 2, length),
                    "colour": rng.choice(["red", "blue", "green"], length),
                    "price": rng.normal(size=length),
                    "holiday": rng.choice(["yes", "no"], length),
                    "size": [float(length)] * length,
                    "kind": ["x" if name < "c" else "w"] * length,
                }
            ).with_columns(pl.col("y").fill_nan(None))
        )
    return pl.concat(parts)


@pytest.fixture(scope="module")
def series(frame: pl.DataFrame) -> Series:
    return read_table(frame, ROLES)


@pytest.fixture(scope="module")
def config(series: Series) -> TableInput:
    every, all_series = np.arange(len(series.time)), np.arange(len(series.ids))
    return TableInput(
        roles=ROLES,
        grid=series.grid,
        stamps=False,
        context=C,
        horizon=H,
        seasons=(M, 7),
        level="mean",
        calendar=(),
        features=fit_columns(series, "features", every),
        known=fit_columns(series, "known", every),
        static=fit_columns(series, "static", all_series),
    )


def plain_window(series: Series, b: int, at: int, config: TableInput) -> dict[str, np.ndarray]:
    """One window of target y by loops over rows: level, spread, scaled values, ages, lags, bases, truth."""
    begin, end = series.offsets[b], series.offsets[b + 1]
    y = {k: series.target[k, 0] for k in range(begin, end)}

    def value(k: int) -> float:
        return y.get(k, np.nan)

    seen = [k for k in range(begin, at + 1) if np.isfinite(value(k))]
    inside = [value(k) for k in seen if k > at - C]
    last = value(seen[-1])
    level = np.mean(inside) if inside else last
    changes = [abs(value(k) - value(j)) for j, k in itertools.pairwise(seen)]
    running = np.mean(changes) if changes else 0.0
    spread = np.mean([abs(v - level) for v in inside]) if len(inside) > 1 else 0.0
    floor = 1e-4 * max(np.mean(np.abs(inside)) if inside else 0.0, abs(last)) + 1e-9
    spread = max(spread, 0.1 * running, floor)

    def scaled(v: float) -> float:
        return (v - level) / spread

    context = range(at - C + 1, at + 1)
    found: dict[str, list] = {"value": [], "seen": [], "age": [], "before": [], "base": [], "truth": []}
    for k in context:
        before = [j for j in seen if j <= k]
        found["value"].append(scaled(value(k)) if np.isfinite(value(k)) else 0)
        found["seen"].append(float(np.isfinite(value(k))))
        found["age"].append(np.log1p(k - before[-1]) / 3 if before else -1)
        lag = value(k - M)
        found["before"].append(scaled(lag) if np.isfinite(lag) else 0)
    known = [k for k in context if k in seen] or [at]
    filled = np.interp(context, known, [scaled(value(k)) if k in seen else scaled(last) for k in known])
    away = (level - np.mean([value(k) for k in seen])) / (10 * spread)
    found["linear"] = [*np.clip(filled, -100, 100), np.clip(away, -1, 1)]
    for h in range(1, H + 1):
        bases = [scaled(last), 0.0]
        for m in config.seasons:
            seasons = -(-h // m)
            lag, anchor = value(at + h - m * seasons), value(seen[-1] - m)
            bases.append(scaled(lag if np.isfinite(lag) else last))
            sure = np.isfinite(lag) and np.isfinite(anchor)
            bases.append(scaled(lag + seasons * (last - anchor)) if sure else scaled(last))
        found["base"].append(bases)
        found["truth"].append(scaled(value(at + h)))
    return {k: np.array(v) for k, v in found.items()} | {"level": level, "spread": spread}


def test_windows_equal_a_loop_over_rows(series: Series, config: TableInput) -> None:
    rows = Rows(series, config)
    origins = np.arange(len(series.time))
    made = rows.gather(rows.place(origins))
    which = np.searchsorted(series.offsets, origins, side="right") - 1
    for i, (b, at) in enumerate(zip(which, origins, strict=True)):
        want = plain_window(series, int(b), int(at), config)
        np.testing.assert_allclose(made.level[i, 0], want["level"], rtol=1e-12)
        np.testing.assert_allclose(made.spread[i, 0], want["spread"], rtol=1e-9)
        np.testing.assert_allclose(made.steps[i, :, 0], want["value"], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(made.steps[i, :, 2], want["seen"])
        np.testing.assert_allclose(made.steps[i, :, 4], want["age"], rtol=1e-6)
        np.testing.assert_allclose(made.linear[i, :, 0], want["linear"], rtol=1e-5, atol=1e-5)
        before = np.clip(want["before"], -100, 100)
        np.testing.assert_allclose(made.steps[i, :, 8], before, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(made.base[i, :, 0], want["base"], rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(made.truth[i, :, 0], want["truth"], rtol=1e-5, atol=1e-5)


def test_a_window_depends_on_nothing_after_its_origin(frame: pl.DataFrame, series: Series, config: TableInput) -> None:
    origin = 20  # in series a
    later = (pl.col("id") != "a") | (pl.col("t") > 100 + origin)
    changed = frame.with_columns(
        *(pl.when(later).then(pl.col(n) * 7 + 1).otherwise(pl.col(n)).alias(n) for n in ("y", "z", "f")),
        colour=pl.when(later).then(pl.lit("red")).otherwise(pl.col("colour")),
    )
    a, b = (Rows(s, config) for s in (series, read_table(changed, ROLES)))
    at = a.place(np.array([origin]))
    one, two = a.gather(at), b.gather(at)
    for name in one._fields:
        same = np.array_equal(getattr(one, name), getattr(two, name), equal_nan=True)
        assert same != (name == "truth"), name


def test_covariates_ahead_are_the_known_ones(series: Series, config: TableInput) -> None:
    rows = Rows(series, config)
    made = rows.gather(rows.place(np.array([20])))
    price = config.known[0]
    scaled = (series.known[21 : 21 + H, 0] - price.mean) / price.scale
    lags = 4 * 2 * len(config.seasons)
    np.testing.assert_allclose(made.ahead[0, :, lags], scaled, rtol=1e-5)
    np.testing.assert_array_equal(made.ahead[0, :, lags + 1], np.ones(H))
    words = [series.categories["holiday"][int(k)] for k in series.known[21 : 21 + H, 1]]
    assert [config.known[1].values[c - 2] for c in made.ahead_codes[0, :, 0]] == words


def test_categories_unseen_and_missing_have_codes_of_their_own(frame: pl.DataFrame, config: TableInput) -> None:
    strange = frame.with_columns(
        colour=pl.when(pl.col("t") == 101)
        .then(pl.lit("purple"))
        .when(pl.col("t") == 102)
        .then(None)
        .otherwise(pl.col("colour"))
    )
    rows = Rows(read_table(strange, ROLES), config)
    made = rows.gather(rows.place(np.array([8])))
    assert made.step_codes[0, 1, 0] == 1
    assert made.step_codes[0, 2, 0] == 0
    assert made.step_codes[0, 0, 0] >= 2


def test_columns_of_another_kind_than_in_training_are_refused(frame: pl.DataFrame, config: TableInput) -> None:
    numbers = read_table(frame.with_columns(colour=pl.lit(3)), ROLES)
    with pytest.raises(DataError, match="column 'colour': it held text in training and holds numbers here"):
        Rows(numbers, config)
    text = read_table(frame.with_columns(f=pl.lit("high")), ROLES)
    with pytest.raises(DataError, match="column 'f': it held numbers in training and holds text here"):
        Rows(text, config)


def test_scalers_come_from_training_rows_only(series: Series) -> None:
    column = fit_columns(series, "features", np.arange(10))[0]
    np.testing.assert_allclose(column.mean, series.features[:10, 0].mean())
    np.testing.assert_allclose(column.scale, series.features[:10, 0].std())
    assert column == Column("f", "number", column.mean, column.scale)


def test_uneven_rows_carry_their_elapsed_time() -> None:
    time = np.array([0.0, 1, 3, 3.5, 7, 8, 9, 10.25, 11])
    s = read_table(pl.DataFrame({"t": time, "y": np.arange(9.0)}), Roles(None, "t", ("y",)))
    config = TableInput(s.roles, s.grid, False, 4, 2, (), "last", (), (), (), ())
    rows = Rows(s, config)
    made = rows.gather(rows.place(np.array([5, 8])))
    assert s.step == 1
    np.testing.assert_allclose(made.elapsed, [[2, 0.5, 3.5, 1], [1, 1, 1.25, 0.75]])
    np.testing.assert_allclose(made.steps[..., -1], np.log1p(made.elapsed), rtol=1e-6)
    np.testing.assert_allclose(np.expm1(made.ahead[..., -1]), [[1, 2.25], [1, 2]], rtol=1e-6)
    np.testing.assert_allclose(np.expm1(3 * made.steps[..., 2]), 0, atol=1e-6)
    np.testing.assert_allclose(rows.time[-2:], [12, 13])


def head_net(head: ForecastHead, targets: int = 2) -> ForecastNet:
    torch.manual_seed(1)
    return ForecastNet(head, state=6, static=3, ahead=4, context=C, horizon=H, targets=targets, bases=4).double()


def head_input(targets: int = 2) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(2)
    shapes = ((3, 9), (3, H, 4), (3, C + 1, targets), (3, H, targets, 4))
    return tuple(torch.randn(*s, generator=g, dtype=torch.float64) for s in shapes)


def test_a_fresh_head_starts_from_the_mean_of_the_naive_forecasts_and_never_crosses() -> None:
    net, inputs = head_net(ForecastHead()), head_input()
    with torch.no_grad():
        out = net(*inputs)
        assert (out.diff(dim=-1) > 0).all()
        net.out.weight.zero_()
        net.gate.weight.zero_()
        net.gate.bias.zero_()
        out = net(*inputs)
    torch.testing.assert_close(out[..., 3], inputs[3].mean(-1))
    step = np.log1p(np.exp(-1.0))  # softplus(-1)
    torch.testing.assert_close(out[..., 4] - out[..., 3], torch.full((3, H, 2), step, dtype=torch.float64))
    torch.testing.assert_close(out[..., 3] - out[..., 0], torch.full((3, H, 2), 3 * step, dtype=torch.float64))


def test_the_linear_path_reads_each_target_by_itself() -> None:
    net, (state, ahead, linear, base) = head_net(ForecastHead()), head_input()
    with torch.no_grad():
        before = net(state, ahead, linear, base)
        net.linear.weight[2, 3] = 5.0
        after = net(state, ahead, linear, base)
    moved = (after - before)[..., 3]
    torch.testing.assert_close(moved[:, 2], 5 * linear[:, 3])
    assert moved[:, [0, 1, 3, 4]].abs().max() == 0


def test_shapes_of_the_config_are_those_of_the_module() -> None:
    head = ForecastHead(width=16)
    net = ForecastNet(head, state=6, static=3, ahead=4, context=C, horizon=H, targets=2, bases=4)
    found = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert found == head.shapes(state=6, static=3, ahead=4, context=C, horizon=H, targets=2, bases=4)


def test_pinball_equals_its_definition() -> None:
    rng = np.random.default_rng(5)
    predicted, truth, weight = rng.normal(size=(4, 7, 2, 3)), rng.normal(size=(4, 7, 2)), rng.random((4, 2))
    truth[rng.random(truth.shape) < 0.3] = np.nan
    truth[0, :, 1] = np.nan
    levels = (0.1, 0.5, 0.8)
    total = 0.0
    for n in range(4):
        for k in range(2):
            losses = []
            for h in range(7):
                if np.isfinite(truth[n, h, k]):
                    errors = [truth[n, h, k] - p for p in predicted[n, h, k]]
                    losses.append(np.mean([max(q * e, (q - 1) * e) for q, e in zip(levels, errors, strict=True)]))
            total += weight[n, k] * (np.mean(losses) if losses else 0)
    made = pinball(
        *(torch.from_numpy(a) for a in (predicted, truth, weight)), torch.tensor(levels, dtype=torch.float64)
    )
    np.testing.assert_allclose(float(made), total / 8, rtol=1e-12)


def test_read_out_goes_back_to_the_targets_units_and_ascends() -> None:
    rng = np.random.default_rng(6)
    scaled = np.sort(rng.normal(size=(3, H, 2, 7)), -1)
    level, spread = rng.normal(size=(3, 2)), rng.random((3, 2)) + 0.5
    plain = read_out(ForecastHead(), scaled, level, spread)
    np.testing.assert_allclose(plain, scaled * spread[:, None, :, None] + level[:, None, :, None])
    head = ForecastHead(factors=(2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0))
    wide = read_out(head, scaled, level, spread)
    np.testing.assert_allclose(wide[..., 3], plain[..., 3])
    np.testing.assert_allclose(wide[..., 6] - wide[..., 3], 3 * (plain[..., 6] - plain[..., 3]))
    assert (np.diff(wide, axis=-1) >= 0).all()


def test_calibration_gives_intervals_the_coverage_they_claim() -> None:
    rng = np.random.default_rng(8)
    size = rng.random((500, H, 1)) + 0.5  # known to the forecaster, up to one wrong factor
    truth = 2.5 * size * rng.normal(size=(500, H, 1))
    truth[rng.random(truth.shape) < 0.1] = np.nan
    normal = np.array([-1.645, -1.282, -0.674, 0, 0.674, 1.282, 1.645])
    scaled = size[..., None] * normal
    head = calibrate(ForecastHead(), scaled[:400], truth[:400], independent=400)
    np.testing.assert_allclose(head.factors, [2.5, 2.5, 2.5, 1, 2.5, 2.5, 2.5], rtol=0.12)
    fan = read_out(head, scaled[400:], np.zeros((100, 1)), np.ones((100, 1)))
    seen = np.isfinite(truth[400:])
    for low, high, share in ((0, 6, 0.9), (1, 5, 0.8), (2, 4, 0.5)):
        inside = (fan[..., low] <= truth[400:]) & (truth[400:] <= fan[..., high])
        assert abs(inside[seen].mean() - share) < 0.06


def test_few_independent_windows_widen_the_intervals() -> None:
    rng = np.random.default_rng(9)
    truth, scaled = rng.normal(size=(200, H, 1)), np.broadcast_to([-1.0, 0, 1], (200, H, 1, 3))
    head = replace(ForecastHead(), quantiles=(0.05, 0.5, 0.95), factors=(1.0, 1.0, 1.0))
    many, few = (calibrate(head, scaled, truth, n).factors[2] for n in (200, 4))
    np.testing.assert_allclose(many, 1.645, rtol=0.1)
    np.testing.assert_allclose(few, 1.96, rtol=0.05)  # 95 % instead of 90 % of the normal distribution
    assert few > many
    assert calibrate(head, scaled[:1], truth[:1], 1) == head
    assert calibrate(head, 9 * scaled, truth, 200).factors == (1.0, 1.0, 1.0)  # wide ones are not drawn in


@pytest.mark.parametrize(
    "fields",
    [
        {"quantiles": (0.1, 0.9), "factors": (1.0, 1.0)},
        {"quantiles": (0.5, 0.1), "factors": (1.0, 1.0)},
        {"quantiles": (0.0, 0.5), "factors": (1.0, 1.0)},
        {"factors": (1.0,)},
        {"width": 0},
    ],
)
def test_heads_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        ForecastHead(**fields)
    assert DEFAULT_QUANTILES[ForecastHead().median] == 0.5


def test_the_size_of_a_series_does_not_change_its_scaled_windows(series: Series, config: TableInput) -> None:
    at = np.array([20, 39, 50, 66])
    plain = Rows(series, config)
    windows = plain.gather(plain.place(at))
    for factor in (2.0**-40, 2.0**-70, 2.0**40):
        rows = Rows(replace(series, target=series.target * factor), config)
        found = rows.gather(rows.place(at))
        np.testing.assert_allclose(found.spread, windows.spread * factor, rtol=1e-12)
        np.testing.assert_allclose(found.steps, windows.steps, rtol=1e-6)
    flat = Rows(replace(series, target=np.where(np.isnan(series.target), np.nan, 3e-12)), config)
    spread = flat.gather(flat.place(at)).spread
    np.testing.assert_allclose(spread, 3e-16 + 3e-17, rtol=1e-9)
    zero = Rows(replace(series, target=np.where(np.isnan(series.target), np.nan, 0.0)), config)
    assert (zero.gather(zero.place(at)).spread == 1e-9).all()
