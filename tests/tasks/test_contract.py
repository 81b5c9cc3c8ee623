"""Every registered task keeps the contract: a new one is tested by being registered."""

import functools

import pytest

from transframer import testing as contract
from transframer.registry import get_task, task_names

NAMES = task_names()
samples_of = functools.cache(lambda name: contract.world_samples(get_task(name)))
EDGES = [
    (name, edge) for name in NAMES for edge in contract.edge_samples(get_task(name), samples_of(name)[0])
]


@pytest.fixture(params=NAMES)
def task(request):
    return get_task(request.param)


@pytest.fixture
def samples(task):
    return samples_of(task.name)


def test_the_built_in_tasks_are_registered():
    assert len(NAMES) >= 12


@pytest.mark.parametrize(("count", "size"), [(48, 64), (16, (64, 96))], ids=["square", "wide"])
def test_coded_truth_meets_the_bound(task, count, size):
    contract.check_round_trip(task, contract.world_samples(task, count, size))


@pytest.mark.parametrize(("name", "edge"), EDGES)
def test_coded_truth_of_edge_samples(name, edge):
    task = get_task(name)
    contract.check_edge(task, contract.edge_samples(task, samples_of(name)[0])[edge], edge)


def test_without_labels_there_is_no_target(task, samples):
    contract.check_inference(task, samples[0])


def test_truth_without_labels_is_an_error_of_ours(task, samples):
    contract.check_missing_truth(task, samples[0])


def test_nothing_scores_better_than_the_truth(task, samples):
    contract.check_truth_is_best(task, samples[0])


def test_equal_predictions_combine_to_themselves(task, samples):
    contract.check_combine(task, samples[0])


def test_draws_that_agree_are_certain_and_the_truth_has_no_error(task, samples):
    contract.check_uncertainty(task, samples[0])


def test_floor_needs_no_target_and_fits_any_size(task, samples):
    contract.check_floor(task, samples, contract.world_samples(task, 2, (48, 80)))


def test_metrics_hold_the_headline(task, samples):
    contract.check_metrics(task, samples)


def test_pictures_are_images(task, samples):
    contract.check_drawing(task, samples[0])


def test_writing_gives_the_files_it_names(task, samples, tmp_path):
    contract.check_writing(task, samples[0], tmp_path)
