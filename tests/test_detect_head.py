"""The detect head's scores against a literal restatement, and a stream's against a table's, bit for bit."""

import itertools
import math

import numpy as np
import pytest

from carousel.heads.detect import DetectHead, DetectState, View, forecast_errors, score_rows, window_means
from carousel.heads.detect_fit import best_threshold, fit_view
from carousel.heads.tail import tail_limit

OFFSETS = np.array([0, 23, 24, 24, 61])


def random_view(rng: np.random.Generator, of: str, rows: int, size: int = 3) -> View:
    mixed = rng.normal(size=(size, 2 * size))
    correlation = np.corrcoef(mixed) * 0.8 + 0.2 * np.eye(size)
    low = rng.normal(size=size)
    return View(
        of,
        rows,
        tuple(rng.normal(size=size).tolist()),
        tuple((0.5 + rng.random(size)).tolist()),
        tuple(tuple(row) for row in correlation.tolist()),
        tuple(low.tolist()),
        tuple((low + 0.5 + rng.random(size)).tolist()),
        limit=1.5,
        largest=1.2,
    )


def random_rows(seed: int, missing: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs [N, 6], values as the model counts them [N, 3] and as they are [N, 3], with gaps in both alike."""
    rng = np.random.default_rng(seed)
    scaled = rng.normal(size=(61, 3)) * 2
    scaled[rng.random(scaled.shape) < missing] = np.nan
    scaled[[5, 30]] = np.nan  # rows without any value
    return rng.normal(size=(61, 6)).astype(np.float32), scaled, scaled * [3.0, 1.0, 0.2] + [1.0, 2.0, 3.0]


def head_of(seed: int = 0, **more: object) -> DetectHead:
    rng = np.random.default_rng(seed)
    views = tuple(random_view(rng, of, rows) for of, rows in (("error", 1), ("error", 4), ("value", 5), ("value", 1)))
    return DetectHead("forecast", ("a", "b", "c"), floor=(0.3, 0.2, 0.1), keep=(0.9, 1.0, 0.3), views=views, **more)


def literal_scores(head: DetectHead, outputs: np.ndarray, scaled: np.ndarray, values: np.ndarray) -> list[float]:
    """Of one sequence, in plain loops over rows, views and columns."""
    size, found = 3, []
    last, errors = [0.0] * size, []
    forecast = None
    largest = [view.largest for view in head.views]
    low, high = [list(view.low) for view in head.views], [list(view.high) for view in head.views]
    held, left = 1.0, 0
    for t in range(len(values)):
        if forecast is None:
            errors.append([math.nan] * size)
        else:
            errors.append([(scaled[t, c] - forecast[0][c]) / forecast[1][c] for c in range(size)])
        best = 0.0
        for k, view in enumerate(head.views):
            rows = (errors if view.of == "error" else values[: t + 1].tolist())[max(0, t + 1 - view.rows) :]
            seen = [[row[c] for row in rows if not math.isnan(row[c])] for c in range(size)]
            columns = [c for c in range(size) if seen[c]]
            if head.reference == "history" and view.of == "value":
                score = 0.0
                for c in columns:
                    if len(seen[c]) == view.rows:
                        mean = sum(seen[c]) / view.rows
                        half = (high[k][c] - low[k][c]) / 2
                        score = max(score, abs(mean - (low[k][c] + high[k][c]) / 2) / half)
                        low[k][c], high[k][c] = min(low[k][c], mean), max(high[k][c], mean)
            elif columns:
                d = [
                    (sum(seen[c]) / len(seen[c]) - view.centre[c])
                    / view.spread[c]
                    * math.sqrt(len(seen[c]) / view.rows)
                    for c in columns
                ]
                inverse = np.linalg.inv([[view.correlation[i][j] for j in columns] for i in columns])
                distance = math.sqrt(np.array(d) @ inverse @ np.array(d) / len(columns))
                score = distance / (largest[k] if head.reference == "history" else view.limit)
                largest[k] = max(largest[k], distance)
            else:
                score = 0.0
            best = max(best, score)
        if head.reference == "history" and head.rest:
            if best > held:
                held, left = best, head.rest
            else:
                left = max(left - 1, 0)
                held = held if left else 1.0
                best = min(best, 1.0)
        found.append(math.nan if np.isnan(values[t]).all() else best)
        last = [last[c] if math.isnan(scaled[t, c]) else scaled[t, c] for c in range(size)]
        raw = outputs[t].astype(float)
        scale = [max(math.log1p(math.exp(raw[3 + c])) + 0.01, head.floor[c]) for c in range(size)]
        forecast = [head.keep[c] * last[c] + raw[c] for c in range(size)], scale
    return found


REFERENCES = [{}, {"reference": "history"}, {"reference": "history", "rest": 6}]


@pytest.mark.parametrize("more", REFERENCES)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_scores_are_those_of_the_definition(more: dict, missing: float) -> None:
    head = head_of(**more)
    outputs, scaled, values = random_rows(1, missing)
    errors = forecast_errors(head, outputs, scaled, OFFSETS)
    found = score_rows(head, errors, values, OFFSETS)
    for a, b in itertools.pairwise(OFFSETS):
        expected = literal_scores(head, outputs[a:b], scaled[a:b], values[a:b])
        np.testing.assert_allclose(found.score[a:b], expected, rtol=1e-9)
    assert np.isnan(found.score[[5, 30]]).all()
    assert not found.anomaly[[5, 30]].any()
    assert (found.anomaly == (np.nan_to_num(found.score) >= head.threshold)).all()


@pytest.mark.parametrize("more", REFERENCES)
def test_a_stream_scores_as_the_table_does_bit_for_bit(more: dict) -> None:
    head = head_of(2, **more)
    outputs, scaled, values = random_rows(3)
    errors = forecast_errors(head, outputs, scaled, OFFSETS)
    table = score_rows(head, errors, values, OFFSETS)
    for a, b in itertools.pairwise(OFFSETS):
        state = DetectState(head)
        for t in range(a, b):
            row = state.step(outputs[t], scaled[t], values[t])
            np.testing.assert_array_equal(row.score[0], table.score[t])
            np.testing.assert_array_equal(row.parts[0], table.parts[t])
            assert row.view[0] == table.view[t]
            assert row.anomaly[0] == table.anomaly[t]


def test_mutants_of_the_definition_are_seen() -> None:
    """The literal restatement tells wrong forecasts and wrong windows apart from right ones."""
    head, (outputs, scaled, values) = head_of(), random_rows(1, 0.0)
    one = np.array([0, len(values)])
    right = score_rows(head, forecast_errors(head, outputs, scaled, one), values, one).score
    late = np.vstack([outputs[1:], outputs[:1]])  # the forecast of a row later
    wrong = score_rows(head, forecast_errors(head, late, scaled, one), values, one).score
    expected = literal_scores(head, outputs, scaled, values)
    np.testing.assert_allclose(right, expected, rtol=1e-9)
    assert not np.allclose(wrong, expected, rtol=1e-3)


def test_window_means_leave_out_what_is_missing() -> None:
    values = np.array([[1.0], [np.nan], [3.0], [np.nan], [np.nan], [5.0]])
    means, known = window_means(values, np.array([0, 4, 6]), 2)
    np.testing.assert_array_equal(means[:, 0], [1.0, 1.0, 3.0, 3.0, np.nan, 5.0])
    np.testing.assert_array_equal(known[:, 0], [1, 1, 1, 1, 0, 1])


def test_parts_name_the_column_that_is_off() -> None:
    view = View("value", 1, (0.0, 0.0), (1.0, 1.0), ((1.0, 0.0), (0.0, 1.0)), (0.0, 0.0), (1.0, 1.0), 1.0, 1.0)
    distance, parts = view.distance(np.array([[0.0, 4.0]]), np.ones((1, 2), np.int64))
    assert distance[0] == pytest.approx(math.sqrt(16 / 2))
    assert parts[0].tolist() == [0.0, 16.0]


def test_an_unlikely_pair_of_likely_values_is_far() -> None:
    """Mahalanobis' distance sees what no column shows alone."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=2000)
    values = np.stack([x, x + 0.1 * rng.normal(size=2000)], 1)
    every, none = np.ones(2000, bool), np.zeros(2000, bool)
    view = fit_view("value", 1, values, np.array([0, 2000]), none, every, 1e-3)
    means, known = np.array([[1.5, 1.5], [1.5, -1.5]]), np.ones((2, 2), np.int64)
    distance, _ = view.distance(means, known)
    assert distance[0] < view.limit < distance[1]


def test_rows_learned_from_are_stretched_to_those_held_out() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(size=900) * 0.1, rng.normal(size=100)])[:, None]
    learned = np.arange(1000) < 900
    view = fit_view("error", 1, values, np.array([0, 1000]), learned, ~learned, 1e-2)
    one = np.array([[1.0]])
    unit = float(view.distance(one, np.ones((1, 1), np.int64))[0][0])
    assert 1.8 < view.limit / unit < 3.5  # of a standard normal 2.58, not a tenth of it


def test_a_constant_column_and_one_that_is_never_observed_can_be_fitted() -> None:
    values = np.stack([np.full(100, 7.0), np.full(100, np.nan), np.arange(100.0) % 3], 1)
    every, none = np.ones(100, bool), np.zeros(100, bool)
    view = fit_view("value", 3, values, np.array([0, 100]), none, every, 1e-3)
    assert all(s > 0 for s in view.spread)
    known = np.array([[3, 0, 3]])
    usual, odd = (view.distance(np.array([[v, np.nan, 1.0]]), known)[0][0] for v in (7.0, 8.0))
    assert usual <= view.limit < odd


@pytest.mark.parametrize("name", ["exponential", "normal", "student"])
def test_the_tail_limit_is_near_the_true_quantile(name: str) -> None:
    from scipy import stats

    found, true = [], {"exponential": -math.log(1e-3), "normal": stats.norm.isf(5e-4), "student": stats.t.isf(5e-4, 3)}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        drawn = {"exponential": rng.exponential(size=2000), "normal": abs(rng.normal(size=2000))}
        drawn["student"] = abs(rng.standard_t(3, size=2000))
        found.append(tail_limit(drawn[name], 1e-3))
    assert np.median(found) == pytest.approx(true[name], rel=0.12)


def test_the_tail_limit_of_few_and_of_equal_scores() -> None:
    assert tail_limit(np.arange(50.0), 1e-3) == 49.0
    assert tail_limit(np.ones(500), 1e-3) == 1.0
    assert tail_limit(np.arange(1000.0), 0.5) == pytest.approx(499.5)


def test_the_best_threshold_has_the_highest_f1() -> None:
    rng = np.random.default_rng(5)
    labels = rng.random(300) < 0.2
    scores = (rng.normal(size=300) + 2 * labels).round(1)

    def f1(threshold: float) -> float:
        flags = scores >= threshold
        return 2 * float((flags & labels).sum()) / float(flags.sum() + labels.sum())

    best = best_threshold(scores, labels)
    assert f1(best) == pytest.approx(max(f1(t) for t in np.unique(scores)))


def test_heads_refuse_what_does_not_fit_together() -> None:
    with pytest.raises(ValueError, match="autoencoder needs window"):
        DetectHead("autoencoder", ("a",), floor=(1.0,))
    with pytest.raises(ValueError, match="floor must be 2 positive"):
        DetectHead("forecast", ("a", "b"), floor=(1.0,))
    with pytest.raises(ValueError, match="every view must be of 1 columns"):
        DetectHead("forecast", ("a",), floor=(1.0,), views=head_of().views)
    with pytest.raises(ValueError, match="at least one number column"):
        DetectHead("forecast", ())
    with pytest.raises(ValueError, match="no form for streams"):
        DetectState(DetectHead("autoencoder", ("a",), 4, 8, 2, floor=(1.0,)))
