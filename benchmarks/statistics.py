"""Bootstrap intervals of any metric that is a function of a set of per-sample scores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transframer.task import Metric

LEVEL = 0.95
RESAMPLES = 1000
RESAMPLES_IF_SLOW = 200
BUDGET_S = 10.0

Summarise = Callable[[Sequence[Any]], Mapping[str, float]]


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap interval.

    Attributes:
        value: the metric over all samples; nan where it has nothing to judge.
        low: lower end of the 95 % percentile interval; nan where there is none, as with one sample.
        high: upper end.
        undefined: how many resamples had nothing to judge; they are left out of the interval.
    """

    value: float
    low: float
    high: float
    undefined: int = 0


def resample_indices(n: int, resamples: int, seed: int) -> np.ndarray:
    """Indices of n samples drawn with replacement, resamples x n, the first rows the same for any count."""
    return np.random.default_rng(seed).integers(0, n, (resamples, n))


def resamples_for(summarise: Summarise, scores: Sequence[Any]) -> int:
    """1000, or 200 where summarising so often would take longer than 10 s on this machine."""
    start = time.perf_counter()
    summarise(scores)
    return RESAMPLES if 2 * RESAMPLES * (time.perf_counter() - start) < BUDGET_S else RESAMPLES_IF_SLOW


def bootstrap(scores: Sequence[Any], summarise: Summarise, indices: np.ndarray) -> dict[str, Estimate]:
    """Every metric of a set of scores, with its percentile interval (Efron 1979).

    Args:
        scores: one per sample, of any type.
        summarise: scores -> metrics.
        indices: from `resample_indices`.

    >>> half = bootstrap([0.0, 1.0] * 50, lambda s: {"mean": sum(s) / len(s)}, resample_indices(100, 1000, 0))
    >>> half["mean"].value, abs(half["mean"].high - 0.598) < 0.02
    (0.5, True)
    """
    whole = summarise(scores)
    return _estimates(whole, _replicates(scores, summarise, indices, whole), indices)


def paired_bootstrap(
    model: Sequence[Any], floor: Sequence[Any], summarise: Summarise, indices: np.ndarray
) -> tuple[dict[str, Estimate], dict[str, Estimate], dict[str, Estimate]]:
    """The metrics of two predictors on the same samples, and of their difference, resampled together.

    Returns:
        Estimates of the model, of the floor, and of model - floor.
    """
    whole_model, whole_floor = summarise(model), summarise(floor)
    model_draws = _replicates(model, summarise, indices, whole_model)
    floor_draws = _replicates(floor, summarise, indices, whole_floor)
    # Two perfect scores (PSNR inf) differ by nothing that can be stated: inf - inf is nan on purpose.
    with np.errstate(invalid="ignore"):
        difference = {
            name: float(np.subtract(whole_model[name], whole_floor.get(name, math.nan)))
            for name in whole_model
        }
        draws = {name: model_draws[name] - floor_draws[name] for name in difference if name in floor_draws}
    return (
        _estimates(whole_model, model_draws, indices),
        _estimates(whole_floor, floor_draws, indices),
        _estimates(difference, draws, indices),
    )


def verdict(metric: Metric, model: Estimate, floor: float) -> str:
    """Whether the floor's value lies outside the model's interval, and on which side.

    Returns:
        "beats", "ties", "below", or "undefined" where there is no value or no interval.
    """
    if any(math.isnan(value) for value in (model.value, model.low, model.high, floor)):
        return "undefined"
    if model.low <= floor <= model.high:
        return "ties"
    return "beats" if (model.low > floor) == metric.higher_is_better else "below"


def _replicates(
    scores: Sequence[Any], summarise: Summarise, indices: np.ndarray, whole: Mapping[str, float]
) -> dict[str, np.ndarray]:
    rows = [summarise([scores[i] for i in row]) for row in indices]
    return {name: np.array([row.get(name, math.nan) for row in rows], dtype=np.float64) for name in whole}


def _estimates(
    whole: Mapping[str, float], draws: Mapping[str, np.ndarray], indices: np.ndarray
) -> dict[str, Estimate]:
    single = indices.shape[1] < 2  # resampling one sample always gives that sample: no interval at all
    return {name: _estimate(float(value), draws.get(name), single) for name, value in whole.items()}


def _estimate(value: float, draws: np.ndarray | None, single: bool) -> Estimate:
    if draws is None:
        return Estimate(value, math.nan, math.nan)
    defined = draws[~np.isnan(draws)]
    if not len(defined) or math.isnan(value) or single:
        return Estimate(value, math.nan, math.nan, len(draws) - len(defined))
    # No interpolation between order statistics: an infinite one (PSNR of a perfect frame) must stay inf.
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return Estimate(value, float(low), float(high), len(draws) - len(defined))
