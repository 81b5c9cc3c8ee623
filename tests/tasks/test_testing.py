"""The kit that tests tasks finds each fault of a task that has it, and passes one that has none."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from transframer import testing
from transframer.codec import round_trip
from transframer.data.world import World
from transframer.errors import DataError
from transframer.frames import Frame
from transframer.tasks.colorization import Colorization
from transframer.tasks.depth_estimation import DepthEstimation


@dataclass(frozen=True)
class Sound(DepthEstimation):
    pass


@pytest.fixture(scope="module")
def samples():
    return World("validation").samples(range(3), Sound.sample_type, Sound().clip)


def broken(name, method):
    return dataclass(frozen=True)(type("Broken", (Sound,), {name: method}))()


def leaking(self, sample):
    episode = DepthEstimation.format(self, sample)
    marked = episode.context[0].image.clone()
    marked[:, 0, 0] = 255 if "depth_m" in sample else 0
    return replace(episode, context=(Frame(marked),))


def stray_file(self, prediction, stem, size):
    (stem.parent / "stray").write_text("x")
    return DepthEstimation.write(self, prediction, stem, size)


FAULTS = {
    "bound": ("round_trip_bound", 0.001, "round_trip_bound 0.001"),
    "leak": ("format", leaking, "depend on the label"),
    "always a target": (
        "format",
        lambda self, sample: DepthEstimation.format(self, {"depth_m": torch.ones(64, 64), **sample}),
        "without labels gives a target",
    ),
    "other error": ("truth", lambda self, sample: sample["depth_m"], "KeyError, not a DataError"),
    "combine": ("combine", lambda self, all_of_them: all_of_them[0] * len(all_of_them), "combined"),
    "half uncertainty": ("pixel_error", lambda self, prediction, sample: None, "only one of"),
    "restless": (
        "uncertainty",
        lambda self, each, size=None: torch.ones(size or (64, 64)),
        "equal predictions are uncertain",
    ),
    "floor": (
        "floor",
        lambda self, given: lambda episode: torch.full(episode.size, torch.nan),
        "the floor's",
    ),
    "numpy metrics": (
        "summarise",
        lambda self, scores: {"abs_rel": np.float32(DepthEstimation.summarise(self, scores)["abs_rel"])},
        "not a float",
    ),
    "drawing": ("draw", lambda self, sample, prediction: prediction[None].expand(3, -1, -1), "not uint8"),
    "stray file": ("write", stray_file, "written"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(samples, fault):
    name, method, message = FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        testing.check_task(broken(name, method), samples)


def test_a_truth_that_is_not_the_best_answer_is_found(samples):
    @dataclass(frozen=True)
    class Off(Sound):
        def truth(self, sample):
            return super().truth(sample) * 1.1

        def score(self, prediction, sample):
            return Sound().score(prediction, sample)

    with pytest.raises(AssertionError, match=r"the truth scores 0\.1"):
        testing.check_task(Off(), samples)


def test_a_sound_task_passes_with_samples_of_its_own(samples):
    testing.check_task(Sound(), samples)


def test_a_task_that_shows_its_answer_is_found():
    @dataclass(frozen=True)
    class Transparent(Colorization):
        round_trip_bound = 0.0

        def format(self, sample):
            episode = super().format(sample)
            return replace(episode, context=(replace(episode.context[0], image=sample["images"][0]),))

    with pytest.raises(AssertionError, match="the context is the answer"):
        testing.check_task(Transparent())


def test_a_task_that_the_world_cannot_serve_says_so():
    class Odd(DepthEstimation.sample_type):
        thermal: object

    odd = broken("sample_type", Odd)
    with pytest.raises(DataError, match="the world has no thermal"):
        testing.check_task(odd)


def test_edges_are_those_of_the_fields_of_the_task(samples):
    (edge,) = testing.edge_samples(Sound(), samples[0]).values()
    assert edge["depth_m"].max() == 0
    assert torch.equal(edge["images"], samples[0]["images"])
    black = testing.edge_samples(Colorization(), {"images": samples[0]["images"], "target": None})["black"]
    assert black["images"].max() == black["target"].max() == 0


def test_equality_goes_into_episodes(samples):
    one, other = (Sound().format(sample) for sample in samples[:2])
    assert testing.same(one, one)
    assert not testing.same(one, other)
    assert not testing.same(one, one.without_target())
    assert not testing.same(round_trip(one), one.target)
    assert testing.same([torch.tensor([1.0])], [torch.tensor([1.0 + 1e-7])])
    assert not testing.same((1, 2), (1,))
