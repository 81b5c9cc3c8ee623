"""Scenes rendered on the device: the batches of workers, in few calls, and nothing is left over."""

import dataclasses
import itertools
import shutil
import threading

import pytest
import small_runs
import torch
import toy

from transframer.data.world import World
from transframer.errors import ConfigError, DataError
from transframer.models.presets import PRESETS
from transframer.models.transframer import Transframer
from transframer.registry import get_task
from transframer.training import rendering
from transframer.training.config import TrainConfig
from transframer.training.loop import train
from transframer.training.mixture import Mixture, StepBatches
from transframer.training.rendering import DeviceWorld, rendered, training_batches

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
TASKS = ("object_detection", "optical_flow", "video_prediction", "view_synthesis")


@pytest.fixture(scope="module")
def predictor():
    tiny = dataclasses.replace(PRESETS["tiny"], encoder_widths=(32,), encoder_blocks=(1,), width=32)
    return Transframer(dataclasses.replace(tiny, tasks=TASKS, kinds=("rgb", "boxes", "flow")))


def dataset(predictor, source, first_step=0, batch_size=5):
    tasks = {name: get_task(name) for name in TASKS}
    plan = Mixture({**dict.fromkeys(TASKS, 1.0), "optical_flow": 2.0}, batch_size, 3)
    sources = source if isinstance(source, dict) else dict.fromkeys(TASKS, source)
    return StepBatches(plan, tasks, sources, predictor, first_step=first_step)


def take(stream, count):
    made = list(itertools.islice(stream, count))
    stream.close()
    return made


def assert_equal(one, other):
    assert type(one) is type(other)
    if dataclasses.is_dataclass(one) and hasattr(one, "__dict__"):
        assert_equal(vars(one), vars(other))
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, (tuple, list)):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_equal(mine, theirs)
    elif isinstance(one, torch.Tensor):
        assert one.device == other.device
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    else:
        assert one == other


@pytest.mark.parametrize("workers", [0, 2])
def test_the_batches_are_those_of_workers(predictor, monkeypatch, workers):
    monkeypatch.setattr(rendering, "PIECE_PX", 3 * 5 * 32 * 32)  # three steps of five episodes
    world = World("train", 4, 32)
    on_device = rendered(dict.fromkeys(TASKS, world), "device", CPU)
    made = take(training_batches(dataset(predictor, on_device, first_step=2), 0), 7)
    expected = take(training_batches(dataset(predictor, world, first_step=2), workers), 7)
    assert [batch.step for batch in made] == list(range(2, 9))
    assert_equal(made, expected)


def test_a_piece_is_rendered_in_one_call_per_task_and_the_next_one_meanwhile(predictor, monkeypatch):
    monkeypatch.setattr(rendering, "PIECE_PX", 4 * 8 * 32 * 32)
    asked, threads = [], set()

    class Counting(DeviceWorld):
        def samples(self, indices, sample_type, clip):
            asked.append(len(indices))
            threads.add(threading.current_thread().name)
            return super().samples(indices, sample_type, clip)

    made = take(training_batches(dataset(predictor, Counting("train", 0, 32), batch_size=8), 0), 4)
    assert len(made) == 4
    assert len(asked) == 2 * len(TASKS)  # of the piece taken and of the one after it
    assert sum(asked) == 2 * 4 * 8
    assert threads == {"render_0"}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("render")]


def test_a_batch_larger_than_a_piece_is_a_piece(predictor, monkeypatch):
    monkeypatch.setattr(rendering, "PIECE_PX", 1)
    made = take(training_batches(dataset(predictor, DeviceWorld("train", 0, 32)), 0), 2)
    assert [batch.step for batch in made] == [0, 1]


def test_an_error_reaches_the_user_as_it_was_raised_and_ends_the_thread(predictor):
    class Broken(DeviceWorld):
        def samples(self, indices, sample_type, clip):
            raise DataError("no such scene")

    with pytest.raises(DataError, match=r"^no such scene$"):
        next(training_batches(dataset(predictor, Broken("train", 0, 32)), 0))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("render")]


@pytest.mark.parametrize(
    ("render", "device", "where"),
    [("cpu", CUDA, None), ("device", CUDA, CUDA), ("device", CPU, CPU)],
)
def test_where_the_world_is_rendered(render, device, where):
    world = World("train", 5, (32, 48), min_box_share=0.1)
    (source,) = rendered({"a": world}, render, device).values()
    if where is None:
        assert source is world
    else:
        assert isinstance(source, DeviceWorld)
        assert vars(source) == {**vars(world), "device": where}


def test_data_are_read_by_workers():
    sources = {"a": World("train"), "b": toy.ToyWorld()}
    assert rendered(sources, "cpu", CUDA) == sources
    with pytest.raises(ConfigError, match=r"^render: 'device', but b learn"):
        rendered(sources, "device", CUDA)


def test_a_run_is_the_same_wherever_it_renders_and_goes_on_elsewhere(tmp_path, monkeypatch):
    small_runs.shrink(monkeypatch)
    monkeypatch.setattr(rendering, "PIECE_PX", 3 * 4 * 32 * 32)
    config = TrainConfig(
        tasks=["depth_estimation", "optical_flow"], steps=4, batch_size=4, size_px=32, workers=0,
        device="cpu", validations=1, validation_episodes=1, pictures=0, checkpoint_minutes=1e-9, keep=9,
    )  # fmt: skip
    straight = train(dataclasses.replace(config, out=tmp_path / "cpu"))
    stopped = train(dataclasses.replace(config, out=tmp_path / "device", render="device"))
    assert_equal(small_runs.weights(stopped, 4), small_runs.weights(straight, 4))
    for step in (3, 4):
        shutil.rmtree(stopped / f"checkpoints/step-{step:06d}")
    resumed = train(TrainConfig(resume=stopped, render="cpu"))
    assert_equal(small_runs.weights(resumed, 4), small_runs.weights(straight, 4))
