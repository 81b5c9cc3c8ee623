import math

import numpy as np
import pytest

from transframer.benchmarks.statistics import (
    Estimate,
    bootstrap,
    paired_bootstrap,
    resample_indices,
    resamples_for,
    verdict,
)
from transframer.task import Metric

LOWER, HIGHER = Metric("error", higher_is_better=False), Metric("accuracy", higher_is_better=True)


def mean(scores):
    return {"mean": sum(scores) / len(scores)}


def test_interval_of_a_mean_is_the_closed_form_one():
    scores = np.random.default_rng(1).normal(3.0, 2.0, 400).tolist()
    found = bootstrap(scores, mean, resample_indices(400, 1000, seed=0))["mean"]
    half_width = 1.96 * np.std(scores) / math.sqrt(400)
    assert found.value == pytest.approx(np.mean(scores))
    assert found.low == pytest.approx(np.mean(scores) - half_width, abs=0.15 * half_width)
    assert found.high == pytest.approx(np.mean(scores) + half_width, abs=0.15 * half_width)


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for trial in range(200):
        found = bootstrap(rng.normal(0, 1, 60).tolist(), mean, resample_indices(60, 200, trial))["mean"]
        hits += found.low <= 0 <= found.high
    assert 0.89 <= hits / 200 <= 0.99


def test_paired_interval_of_correlated_scores_is_that_of_their_differences():
    rng = np.random.default_rng(3)
    floor = rng.normal(0, 10, 300)
    model = floor + rng.normal(1, 0.5, 300)
    indices = resample_indices(300, 500, 0)
    _, _, difference = paired_bootstrap(model.tolist(), floor.tolist(), mean, indices)
    alone = bootstrap((model - floor).tolist(), mean, indices)["mean"]
    assert difference["mean"].value == pytest.approx(alone.value)
    assert (difference["mean"].low, difference["mean"].high) == pytest.approx((alone.low, alone.high))
    assert difference["mean"].low > 0  # each alone has an interval ten times as wide, which holds 0


def test_fewer_resamples_are_the_first_ones():
    assert (resample_indices(7, 1000, 4)[:200] == resample_indices(7, 200, 4)).all()


def test_resamples_with_nothing_to_judge_are_counted_and_left_out():
    def share(scores):
        judged = [score for score in scores if score is not None]
        return {"share": sum(judged) / len(judged) if judged else math.nan}

    found = bootstrap([1.0, None, None, None], share, resample_indices(4, 400, 0))["share"]
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    assert found.undefined == pytest.approx(400 * 0.75**4, rel=0.25)


def test_infinite_scores_stay_infinite():
    found = bootstrap([math.inf, 20.0], lambda s: {"best": max(s)}, resample_indices(2, 200, 0))["best"]
    assert (found.value, found.low, found.high) == (math.inf, 20.0, math.inf)


def test_one_sample_has_no_interval():
    found = bootstrap([5.0], mean, resample_indices(1, 200, 0))["mean"]
    assert found.value == 5.0
    assert math.isnan(found.low)
    assert verdict(LOWER, found, 9.0) == "undefined"


@pytest.mark.parametrize(
    ("metric", "floor", "expected"),
    [
        (HIGHER, 0.3, "beats"),
        (HIGHER, 0.45, "ties"),
        (HIGHER, 0.7, "below"),
        (LOWER, 0.7, "beats"),
        (LOWER, 0.6, "ties"),
        (LOWER, 0.3, "below"),
        (LOWER, math.nan, "undefined"),
    ],
)
def test_verdict_by_the_side_on_which_the_floor_lies(metric, floor, expected):
    assert verdict(metric, Estimate(0.5, 0.4, 0.6), floor) == expected


def test_slow_metrics_are_resampled_less_often(monkeypatch):
    clock = iter([0.0, 1e-4, 0.0, 0.1])
    monkeypatch.setattr("transframer.benchmarks.statistics.time.perf_counter", lambda: next(clock))
    assert [resamples_for(mean, [1.0]), resamples_for(mean, [1.0])] == [1000, 200]
