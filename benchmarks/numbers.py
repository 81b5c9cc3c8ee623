"""Numbers of a benchmark as text for people."""

from __future__ import annotations

import math

from transframer.benchmarks.statistics import Estimate
from transframer.task import Metric


def number(value: float, reference: float | None = None) -> str:
    """A metric for people: three significant figures, at least; "n/a" for nan, the infinity sign for inf.

    Args:
        reference: a value whose decimals are used, so that an interval reads as one.

    >>> number(0.12345), number(21.337), number(1234.5), number(float("nan")), number(0.5, 12.0)
    ('0.123', '21.34', '1234', 'n/a', '0.50')
    """
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value if reference is None or not math.isfinite(reference) else reference)
    decimals = 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    return f"{value:.{decimals}f}"


def interval(estimate: Estimate | None) -> str:
    """A value with its interval; "none" where nothing was measured.

    >>> interval(Estimate(0.5, 0.4125, 0.6))
    '0.500 [0.412, 0.600]'
    """
    if estimate is None:
        return "none"
    ends = ", ".join(number(end, estimate.value) for end in (estimate.low, estimate.high))
    return f"{number(estimate.value)} [{ends}]" if not math.isnan(estimate.low) else number(estimate.value)


def times(ratio: float, higher_is_better: bool) -> str:
    """A ratio for people: per cent of a score, a multiple of an error.

    >>> times(0.932, True), times(1.0689, False), times(float("nan"), True)
    ('93 %', '1.07x', 'n/a')
    """
    if not math.isfinite(ratio):
        return number(ratio)
    return f"{100 * ratio:.0f} %" if higher_is_better else f"{ratio:.2f}x"


def arrow(higher_is_better: bool) -> str:
    """Which way is better."""
    return "↑" if higher_is_better else "↓"


def metric_name(headline: Metric) -> str:
    """The headline with its unit and the direction that is better."""
    unit = f" ({headline.unit})" if headline.unit else ""
    return f"{headline.name}{unit} {arrow(headline.higher_is_better)}"
