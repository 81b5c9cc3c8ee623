import dataclasses
from pathlib import Path

import pytest
import torch

from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.sources import MotorcycleSource, WorldSource, source_for
from transframer.data.datasets.motorcycle import Motorcycle
from transframer.errors import ConfigError
from transframer.registry import get_task
from transframer.training.config import TrainConfig


def test_world_serves_test_scenes_and_fits_floors_on_others():
    source, task = WorldSource(0, 32), get_task("depth_estimation")
    held_out, training = source.held_out(task, 3), source.floor_samples(task, 3, ())
    assert len(held_out) == len(training) == 3
    for one, other in zip(held_out, training, strict=True):
        assert not torch.equal(one["images"], other["images"])
    again = source.held_out(task, 2)
    assert all(torch.equal(a["images"], b["images"]) for a, b in zip(again, held_out, strict=False))
    assert source.description(task)["split"] == "test"


@pytest.mark.parametrize("name", ["depth_estimation", "optical_flow", "view_synthesis"])
def test_motorcycle_serves_the_tasks_it_has_labels_for(name):
    samples = MotorcycleSource(0, 32).held_out(get_task(name), 2)
    assert len(samples) == 2
    assert get_task(name).format(samples[0]).target is not None


def test_motorcycle_refuses_other_tasks_and_names_those_it_serves():
    with pytest.raises(ConfigError) as caught:
        MotorcycleSource(0, 32).held_out(get_task("semantic_segmentation"), 1)
    for name in ("depth_estimation", "optical_flow", "view_synthesis"):
        assert name in str(caught.value)
    assert "video_prediction" not in str(caught.value)


def test_source_follows_the_option():
    assert isinstance(source_for(BenchmarkConfig(Path("run")), TrainConfig()), WorldSource)
    pair = BenchmarkConfig(Path("run"), data="motorcycle", seed=3)
    assert source_for(pair, TrainConfig(size_px=48)) == MotorcycleSource(3, 48)


def test_a_run_of_the_pair_and_whom_it_is_compared_with_are_measured_on_its_test_part():
    pair = BenchmarkConfig(Path("run"), data="motorcycle")
    learned = source_for(pair, TrainConfig(data="motorcycle", size_px=32))
    other = source_for(dataclasses.replace(pair, data_format="motorcycle"), TrainConfig(size_px=32))
    task = get_task("depth_estimation")
    samples = learned.held_out(task, 0)
    assert len(samples) == len(Motorcycle("motorcycle", "test", task.clip))
    assert all(
        torch.equal(one["depth_m"], two["depth_m"])
        for one, two in zip(samples, other.held_out(task, 0), strict=True)
    )
