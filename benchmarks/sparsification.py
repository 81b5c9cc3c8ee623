"""Whether uncertainty foretells error: sparsification curves and the area between them and the oracle's.

The pixels of all samples are pooled, the most uncertain are removed first, and the mean error of those that
remain is followed (Ilg et al., Uncertainty Estimates and Multi-Hypotheses Networks for Optical Flow, 2018,
arXiv 1802.07095). The oracle removes the pixels of the largest error first; no order does better. In a random
order the mean error stays what it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from transframer.benchmarks.parts import Sparsification
from transframer.benchmarks.sources import naming
from transframer.benchmarks.statistics import bootstrap
from transframer.task import Metric, Sample, Task

REMOVED = tuple(step / 20 for step in range(20))
# Pixels whose ranks fall on one level count as tied, so that a resample is a sum of per-sample histograms
# instead of a sort; with so many levels the curve moves by less than its line is wide.
_LEVELS = 4096


def task_sparsification(
    task: Task,
    samples: Sequence[Sample],
    predictions: Sequence[Any],
    uncertainties: Sequence[Float[Tensor, "_ _"]],
    uncertainty_metric: Metric,
    indices: np.ndarray,
) -> Sparsification | None:
    """How well uncertainty foretells a task's errors.

    Args:
        uncertainties: one map per sample; none where one frame was drawn of each.
        indices: from `statistics.resample_indices`.

    Returns:
        None without uncertainties, for a task without errors at every pixel, or where no pixel is judged.
    """
    errors = []
    for index, (prediction, sample) in enumerate(zip(predictions, samples, strict=True)):
        with naming(task, index, "its errors"):
            error = task.pixel_error(prediction, sample) if uncertainties else None
        if error is None:
            return None
        errors.append(error)
    return sparsification(uncertainties, errors, uncertainty_metric, task.error_metric, indices)


def sparsification(
    uncertainties: Sequence[Float[Tensor, "_ _"]],
    errors: Sequence[Float[Tensor, "_ _"]],
    uncertainty_metric: Metric,
    error_metric: Metric,
    indices: np.ndarray,
) -> Sparsification | None:
    """The curves of a set of samples, and the AUSE with its bootstrap interval over samples.

    Pixels of equal uncertainty are removed together, in equal parts: the mean over all their orders.

    Args:
        uncertainties: one map per sample, h x w of its own size.
        errors: one map per sample, 0 or above, nan where a pixel is not judged.
        indices: from `statistics.resample_indices`.

    Returns:
        None where no pixel is judged.

    >>> import torch
    >>> error = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    >>> metric = Metric("error", False)
    >>> one = np.zeros((1, 1), dtype=int)
    >>> found = sparsification([error.square()], [error], metric, metric, one)
    >>> [round(found.by_uncertainty[place], 6) for place in (0, 5, 10, 15)]  # 0, 25, 50 and 75 % removed
    [2.5, 2.0, 1.5, 1.0]
    >>> found.ause.value
    0.0
    """
    error = [each.double().cpu().numpy().ravel() for each in errors]
    uncertainty = [each.double().cpu().numpy().ravel() for each in uncertainties]
    judged = [~np.isnan(each) for each in error]
    sample = np.repeat(np.arange(len(error)), [each.sum() for each in judged])
    if not len(sample):
        return None
    pooled_error = np.concatenate([each[keep] for each, keep in zip(error, judged, strict=True)])
    pooled_order = np.concatenate([each[keep] for each, keep in zip(uncertainty, judged, strict=True)])
    orders = [
        _histograms(values, pooled_error, sample, len(error)) for values in (pooled_order, pooled_error)
    ]

    def curves(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        by_uncertainty, oracle = (_curve(counts @ pixels, counts @ sums) for pixels, sums in orders)
        return by_uncertainty, oracle

    def areas(rows: Sequence[int]) -> dict[str, float]:
        counts = np.bincount(rows, minlength=len(error)).astype(np.float64)
        by_uncertainty, oracle = curves(counts)
        if not oracle[0] > 0:
            return {"ause": math.nan}
        return {"ause": _area(by_uncertainty - oracle) / float(oracle[0])}

    by_uncertainty, oracle = curves(np.ones(len(error)))
    scale = float(oracle[0])
    return Sparsification(
        uncertainty=uncertainty_metric,
        error=error_metric,
        removed=list(REMOVED),
        by_uncertainty=by_uncertainty.tolist(),
        oracle=oracle.tolist(),
        ause=bootstrap(range(len(error)), areas, indices)["ause"],
        ause_random=_area(oracle[0] - oracle) / scale if scale > 0 else math.nan,
        pixels=len(sample),
    )


def _histograms(
    values: np.ndarray, errors: np.ndarray, sample: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and summed errors, samples x levels; level 0 holds the greatest values."""
    distinct, place, count = np.unique(-values, return_inverse=True, return_counts=True)
    if len(distinct) > _LEVELS:
        before = np.cumsum(count) - count
        _, place = np.unique((before * _LEVELS // len(values))[place], return_inverse=True)
    levels = int(place.max()) + 1
    cell = sample * levels + place
    pixels, sums = (np.bincount(cell, weight, n * levels) for weight in (None, errors))
    return pixels.reshape(n, levels).astype(np.float64), sums.reshape(n, levels)


def _curve(pixels: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Mean error of the pixels that remain, for each share of `REMOVED`.

    Args:
        pixels: of each level, in the order of removal.
        sums: of their errors.
    """
    total = pixels.sum()
    if not total:
        return np.full(len(REMOVED), np.nan)
    # From the end, so that the few pixels of small error that remain last are not a difference of large sums.
    kept_pixels = np.concatenate([[0.0], pixels[::-1].cumsum()])
    kept_errors = np.concatenate([[0.0], sums[::-1].cumsum()])
    kept = (1 - np.array(REMOVED)) * total
    return np.interp(kept, kept_pixels, kept_errors) / kept


def _area(curve: np.ndarray) -> float:
    """Under a curve over `REMOVED`, by the trapezoidal rule."""
    return float(np.trapezoid(curve, REMOVED))
