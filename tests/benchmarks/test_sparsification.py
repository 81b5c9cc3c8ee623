"""Sparsification curves and AUSE against sorting by brute force and numbers worked out by hand."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from transframer.benchmarks import sparsification as module
from transframer.benchmarks.curves import sparsification_curve
from transframer.benchmarks.report import html_report
from transframer.benchmarks.results import TaskResult
from transframer.benchmarks.sparsification import REMOVED, sparsification
from transframer.benchmarks.statistics import resample_indices
from transframer.benchmarks.tables import footnotes, markdown
from transframer.task import Metric

SPREAD, ERROR = Metric("spread", False, "px"), Metric("end-point error", False, "px")


def measured(uncertainties, errors, resamples=50):
    indices = resample_indices(len(errors), resamples, 0)
    return sparsification(uncertainties, errors, SPREAD, ERROR, indices)


def brute_force(order, error):
    """Sorts, cuts and averages; exact where no two are tied and every share is whole pixels."""
    ranked = error[np.argsort(order, kind="stable")]  # ascending, so the head is kept
    return [ranked[: round((1 - share) * len(ranked))].mean() for share in REMOVED]


def maps(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(10, 10, generator=generator) for _ in range(n)]


def test_curves_are_those_of_sorting_all_pixels_together():
    errors, uncertainties = maps(seed=1), maps(seed=2)
    found = measured(uncertainties, errors)
    error, order = (torch.stack(each).numpy().ravel() for each in (errors, uncertainties))
    assert found.by_uncertainty == pytest.approx(brute_force(order, error))
    assert found.oracle == pytest.approx(brute_force(error, error))
    gap = np.array(found.by_uncertainty) - found.oracle
    area = sum((gap[i] + gap[i + 1]) / 2 * 0.05 for i in range(19))
    assert found.ause.value == pytest.approx(area / error.mean())
    assert (found.removed, found.pixels) == (list(REMOVED), 600)


def test_four_pixels_by_hand():
    # Errors 0 0 0 8, mean 2. The uncertain one is right: 8 is left until the last.
    found = measured([torch.tensor([[3.0, 2.0, 1.0, 0.0]])], [torch.tensor([[0.0, 0.0, 0.0, 8.0]])])
    assert found.by_uncertainty[0] == found.oracle[0] == 2
    assert found.by_uncertainty[5] == pytest.approx(8 / 3)  # 3 of 4 pixels remain
    assert found.by_uncertainty[10] == pytest.approx(4)
    assert found.by_uncertainty[15] == pytest.approx(8)
    assert found.oracle[2] == pytest.approx((8 - 4 * 0.1 * 8) / 3.6)  # a part of the worst pixel is removed
    assert found.oracle[5:] == [0] * 15


def test_perfect_uncertainty_has_no_sparsification_error():
    errors = maps()
    for monotone in (lambda e: e, lambda e: 3 * e + 1, torch.sqrt):
        found = measured([monotone(error) for error in errors], errors)
        assert found.ause.value == pytest.approx(0, abs=1e-12)
        assert found.ause.low == pytest.approx(0, abs=1e-12)
        assert found.ause.high == pytest.approx(0, abs=1e-12)


def test_random_uncertainty_comes_out_as_expected_and_reversed_is_worst():
    errors = maps(40)
    rng = maps(40, seed=5)
    found = measured(rng, errors)
    assert found.ause.low < found.ause_random < found.ause.high
    # Errors are uniform in 0 to 1, so the oracle's curve is (1 - x) / 2 and the random one 1 / 2.
    assert found.ause_random == pytest.approx(0.95**2 / 2, abs=0.01)
    worst = measured([-error for error in errors], errors).ause.value
    assert worst > 1.5 * found.ause.value


def test_equal_uncertainty_is_a_random_order_and_its_interval_is_no_wider():
    errors = maps()
    found = measured([torch.zeros(10, 10)] * 6, errors)
    assert found.by_uncertainty == pytest.approx([found.by_uncertainty[0]] * 20)
    assert found.ause.value == pytest.approx(found.ause_random)


def test_pixels_that_are_not_judged_count_nowhere():
    errors, uncertainties = maps(2), maps(2, seed=3)
    errors[0][:5] = math.nan
    errors.append(torch.full((4, 4), math.nan))
    uncertainties.append(torch.ones(4, 4))
    found = measured(uncertainties, errors)
    error, order = (
        torch.cat([first[5:].flatten(), second.flatten()]).numpy()
        for first, second, _ in (errors, uncertainties)
    )
    assert found.pixels == 150
    expected = brute_force(order, error)
    assert found.by_uncertainty[::2] == pytest.approx(expected[::2])  # 10 % of 150 are whole pixels
    assert found.ause.undefined == sum(set(row) == {2} for row in resample_indices(3, 50, 0).tolist())
    assert measured([torch.ones(2, 2)], [torch.full((2, 2), math.nan)]) is None


def test_interval_is_that_of_pooling_each_resample():
    errors, uncertainties = maps(5, seed=1), maps(5, seed=2)
    indices = resample_indices(5, 20, 0)
    found = sparsification(uncertainties, errors, SPREAD, ERROR, indices)
    areas = [
        measured([uncertainties[i] for i in row], [errors[i] for i in row], 1).ause.value for row in indices
    ]
    low, high = np.quantile(areas, [0.025, 0.975], method="inverted_cdf")
    assert (found.ause.low, found.ause.high) == pytest.approx((low, high))


def test_levels_move_the_curve_by_next_to_nothing(monkeypatch):
    errors = maps(30, seed=1)
    uncertainties = [error + noise for error, noise in zip(errors, maps(30, seed=2), strict=True)]
    exact = measured(uncertainties, errors)
    monkeypatch.setattr(module, "_LEVELS", 400)
    coarse = measured(uncertainties, errors)
    assert coarse.by_uncertainty == pytest.approx(exact.by_uncertainty, rel=5e-3)
    assert coarse.ause.value == pytest.approx(exact.ause.value, abs=2e-3)


def test_nothing_wrong_leaves_nothing_to_judge():
    found = measured(maps(2), [torch.zeros(10, 10)] * 2)
    assert found.by_uncertainty == [0] * 20
    assert math.isnan(found.ause.value)
    assert math.isnan(found.ause_random)


@pytest.fixture
def dense_task(toy_task):
    @dataclass(frozen=True)
    class Dense(type(toy_task)):
        """Is more uncertain where it is more wrong: the samples, of one error each, are ranked rightly."""

        uncertainty_metric: ClassVar[Metric] = SPREAD
        error_metric: ClassVar[Metric] = ERROR

        def uncertainty(self, predictions, size=None):
            mean = sum(predictions) / len(predictions)
            return torch.full((4, 4), float((round(mean) - 20) % 2))

        def pixel_error(self, prediction, sample):
            return torch.full((4, 4), abs(prediction - sample["level"]))

    return Dense()


def test_benchmark_measures_it_where_several_frames_are_drawn(toy_benchmark, dense_task):
    (single,) = toy_benchmark(task=dense_task)
    assert single.sparsification is None
    (several,) = toy_benchmark(task=dense_task, samples_per_query=16)
    found = several.sparsification
    assert found.pixels == 8 * 16
    assert found.by_uncertainty[0] == pytest.approx(several.main.model.value)
    assert found.ause.low <= found.ause.value <= found.ause.high
    assert {picture.uncertainty_unit for picture in several.pictures} == {"px"}
    assert {picture.uncertainty_max for picture in several.pictures} <= {0.0, 1.0}


def test_task_without_errors_of_pixels_shows_the_spread_of_its_frames(toy_benchmark):
    (result,) = toy_benchmark(samples_per_query=4)
    assert result.sparsification is None
    assert {picture.uncertainty_unit for picture in result.pictures} == {"grey levels"}


def test_result_is_read_back_and_older_ones_have_none(toy_benchmark, dense_task):
    (result,) = toy_benchmark(task=dense_task, samples_per_query=4)
    record = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert TaskResult.from_json(record) == result
    del record["sparsification"]
    for picture in record["pictures"]:
        del picture["uncertainty_name"], picture["uncertainty_unit"]
    older = TaskResult.from_json(record)
    assert older.sparsification is None
    assert older.metrics == result.metrics


def test_report_and_table_say_it(toy_benchmark, dense_task, tmp_path):
    (result,) = toy_benchmark(task=dense_task, samples_per_query=4)
    page = html_report([result, dataclasses.replace(result, task="other")], "command", tmp_path)
    assert page.count("Sparsification: the mean error") == 2
    assert "Uncertainty: spread over the 4 frames drawn." in page
    assert "0 to 1 px" in page
    table = markdown([result], "command")
    assert "## Uncertainty" in table
    assert "| toy_doubling | spread | end-point error |" in table
    assert any("AUSE" in note for note in footnotes([result]))
    assert "## Uncertainty" not in markdown(toy_benchmark(), "command")


def test_curve_names_its_axes_and_lines_in_the_colours_of_the_page():
    svg = sparsification_curve(measured(maps(seed=1), maps(seed=2)))
    assert svg.startswith("<svg")
    for said in ("% of pixels removed", "end-point error (px)", "oracle", "random order", "var(--accent)"):
        assert said in svg
    assert "<g id" not in svg
