import doctest
import multiprocessing
import os
import time

import pytest
import torch
import toy

from transframer.errors import ConfigError, DataError
from transframer.training import mixture
from transframer.training.mixture import Mixture, StepBatches, batches

WEIGHTS = {"a": 1.0, "b": 2.5, "c": 0.5}


def counts(places):
    return {name: sum(place.task == name for place in places) for name in WEIGHTS}


def test_doctests():
    assert doctest.testmod(mixture).failed == 0


def test_a_step_is_a_function_of_seed_and_step():
    assert Mixture(WEIGHTS, 32, 1).places(7) == Mixture(WEIGHTS, 32, 1).places(7)
    assert Mixture(WEIGHTS, 32, 1).places(7) != Mixture(WEIGHTS, 32, 2).places(7)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_every_batch_and_every_run_has_its_shares(batch_size):
    plan = Mixture(WEIGHTS, batch_size, 3)
    total = dict.fromkeys(WEIGHTS, 0)
    for step in range(200):
        drawn = counts(plan.places(step))
        for name, weight in WEIGHTS.items():
            total[name] += drawn[name]
            assert abs(drawn[name] - batch_size * weight / 4) < 1
    for name, weight in WEIGHTS.items():
        assert abs(total[name] - 200 * batch_size * weight / 4) < 3


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_the_batch_and_each_scene_comes_once(world_size):
    plan = Mixture(WEIGHTS, 8, 0)
    seen = [p for step in range(50) for rank in range(world_size) for p in plan.slice(step, rank, world_size)]
    assert sorted(place.scene for place in seen) == list(range(400))
    assert set(seen) == {place for step in range(50) for place in plan.places(step)}


def test_no_residue_of_the_scene_index_sticks_to_a_task():
    plan = Mixture({name: 1.0 for name in "abcdefgh"}, 8, 0)
    residues = {(place.task, place.scene % 4) for step in range(100) for place in plan.places(step)}
    assert len(residues) == 8 * 4


def test_a_batch_that_does_not_divide_is_an_error():
    with pytest.raises(ConfigError, match="multiple of 3"):
        Mixture(WEIGHTS, 32).slice(0, 0, 3)


def stream(source, workers, first_step=0):
    plan = Mixture({"copy": 1.0, "negate": 2.0}, 6)
    dataset = StepBatches(plan, toy.TASKS, source, toy.ToyPredictor(), first_step=first_step)
    return batches(dataset, workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_planned_ones_in_order(workers):
    made = stream(toy.ToyWorld(), workers, first_step=5)
    plan = Mixture({"copy": 1.0, "negate": 2.0}, 6)
    for step in range(5, 9):
        batch = next(made)
        places = plan.places(step)
        assert batch.step == step
        assert batch.tasks == [place.task for place in places]
        levels = torch.tensor([(place.scene * 0.618) % 1.0 for place in places])
        torch.testing.assert_close(batch.batch.image, levels, atol=0.003, rtol=0)
        expected = torch.tensor([place.task == "negate" for place in places])
        assert torch.equal((batch.batch.image - batch.batch.target).abs() > 1e-6, expected & (levels != 0.5))
    made.close()


class Broken(toy.ToyWorld):
    def samples(self, indices, sample_type, clip):
        raise DataError("no such scene", field="index", expected="another one")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_reaches_the_user_as_it_was_raised(workers):
    with pytest.raises(DataError) as raised:
        next(stream(Broken(), workers))
    assert str(raised.value) == "index: no such scene\nexpected another one"
    assert not multiprocessing.active_children(), "a worker left over hangs the process at its exit"


class Fails(toy.ToyWorld):
    def samples(self, indices, sample_type, clip):
        return torch.zeros(3) + torch.zeros(4)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_torch_in_a_worker_is_shown_whole(workers):
    with pytest.raises(RuntimeError, match="The size of tensor a") as raised:
        next(stream(Fails(), workers))
    assert not workers or "in samples" in str(raised.value), "its traceback"
    del raised
    assert not multiprocessing.active_children()


class Dies(toy.ToyWorld):
    def samples(self, indices, sample_type, clip):
        os._exit(1)


class Hangs(toy.ToyWorld):
    def samples(self, indices, sample_type, clip):
        time.sleep(1000)


@pytest.mark.parametrize("source", [Dies(), Hangs()], ids=["dies", "hangs"])
def test_a_worker_that_dies_or_hangs_is_noticed_and_left_behind_by_none(source, monkeypatch):
    monkeypatch.setattr(mixture, "TIMEOUT_S", 1)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)  # how long workers may end
    with pytest.raises(DataError, match="a data worker hung or died"):
        next(stream(source, 1))
    assert not multiprocessing.active_children(), "a hung worker would hang the process at its exit"
