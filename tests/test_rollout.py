"""Rollouts with a predictor that tells what it was asked, and whose next frame is the latest, brighter."""

from dataclasses import replace

import pytest
import torch

from transframer.codec import code_episodes
from transframer.errors import ConfigError, DataError
from transframer.frames import Frame
from transframer.predictor import FramePredictor, Memory, Samples
from transframer.registry import get_task
from transframer.rollout import Rollout, window_of

SIZE = 16
TASK = get_task("video_prediction")


class Brighter(FramePredictor):
    """Adds 3 to the latest frame, and at a temperature 0 to 6 more."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def collate(self, episodes):
        raise NotImplementedError

    def loss(self, batch, generator):
        raise NotImplementedError

    def log_prob(self, episodes):
        raise NotImplementedError

    def sample(self, episodes, *, temperature=1.0, generator=None, **settings):
        self.asked.append(([e.context for e in episodes], {"temperature": temperature, **settings}))
        frames = []
        for episode in episodes:
            more = 3
            if temperature:
                more += int(torch.randint(7, (), generator=generator))
            frames.append(Frame(episode.context[-1].image + more, episode.query))
        return Samples(frames, torch.zeros(len(frames)), torch.ones(len(frames), dtype=torch.long))


class Counts(Memory):
    def __init__(self):
        self.calls = torch.tensor(0)

    def state(self):
        return {"calls": self.calls.clone()}

    def load(self, state):
        self.calls = state["calls"]


class Remembering(Brighter):
    def memory(self, window):
        return Counts()

    def sample(self, episodes, *, memory, **settings):
        memory.calls += 1
        return super().sample(episodes, **settings)


def prompts(videos=2, frames=2):
    levels = 20 * torch.arange(videos)[:, None] + torch.arange(frames)
    return levels[:, :, None, None, None].expand(-1, -1, 3, SIZE, SIZE).to(torch.uint8)


def levels(frames):
    return frames[:, 0, 0, 0].tolist()


def test_each_frame_is_drawn_from_the_latest_window():
    predictor = Brighter()
    rollout = Rollout(predictor, TASK, prompts(), window=3, temperature=0.0, top_p=0.5)
    assert [levels(rollout.next_frames()) for _ in range(3)] == [[4, 24], [7, 27], [10, 30]]
    contexts = [[[int(f.image[0, 0, 0]) for f in c] for c in call] for call, _ in predictor.asked]
    assert contexts == [[[0, 1], [20, 21]], [[0, 1, 4], [20, 21, 24]], [[1, 4, 7], [21, 24, 27]]]
    assert [f.annotation.time for f in predictor.asked[2][0][0]] == [-2, -1, 0]
    assert predictor.asked[0][1] == {"temperature": 0.0, "top_p": 0.5, "estimate": TASK.estimate}
    assert rollout.drawn == 3
    assert window_of(TASK) == 3


def test_what_is_read_again_is_the_frame_as_coded():
    """A faint pattern on an estimate, below a quantisation step, would otherwise stay and grow."""

    class Patterned(Brighter):
        def sample(self, episodes, **settings):
            samples = super().sample(episodes, **settings)
            for frame in samples.frames:
                frame.image[:, ::2, ::2] += 1
            coded = [replace(e, target=frame) for e, frame in zip(episodes, samples.frames, strict=True)]
            return replace(samples, grid=code_episodes(coded) if self.tells else None)

    for tells in (True, False):
        predictor = Patterned()
        predictor.tells = tells
        rollout = Rollout(predictor, TASK, prompts(), temperature=0.0)
        for _ in range(3):
            frames = rollout.next_frames()
        even = bool((frames == frames[:, :1, :1, :1]).all())
        assert even == tells


def test_a_long_prompt_counts_by_its_latest_frames():
    predictor = Brighter()
    Rollout(predictor, TASK, prompts(frames=9), temperature=0.0).next_frames()
    assert [int(f.image[0, 0, 0]) for f in predictor.asked[0][0][0]] == [6, 7, 8]


def test_a_seed_gives_the_same_videos_and_each_step_its_own_draws():
    def drawn(seed, steps=4):
        rollout = Rollout(Brighter(), TASK, prompts(), seed=seed)
        return [levels(rollout.next_frames()) for _ in range(steps)]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    one, two = (torch.tensor(video).diff().tolist() for video in zip(*drawn(0, 12), strict=True))
    assert one != two, "videos differ"
    assert len(set(one)) > 1, "and so do steps"


@pytest.mark.parametrize("predictor", [Brighter, Remembering])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(predictor):
    whole = Rollout(predictor(), TASK, prompts(), seed=2)
    frames = [whole.next_frames() for _ in range(6)]
    first = Rollout(predictor(), TASK, prompts(), seed=2)
    for _ in range(3):
        first.next_frames()
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    first.next_frames()
    second = Rollout(predictor(), TASK, prompts(), seed=2)
    second.load(state)
    assert second.drawn == 3
    assert all(torch.equal(second.next_frames(), frame) for frame in frames[3:])
    if predictor is Remembering:
        assert second.memory.calls == 6


@pytest.mark.parametrize("name", ["depth_estimation", "frame_interpolation", "optical_flow"])
def test_a_task_that_predicts_no_next_frame(name):
    task = get_task(name)
    frames = prompts(frames=task.context_images[1])
    with pytest.raises(ConfigError, match=f"{name} does not predict the next frame"):
        Rollout(Brighter(), task, frames)


def test_nothing_to_start_from_and_impossible_windows():
    with pytest.raises(DataError, match="no frame to start from"):
        Rollout(Brighter(), TASK, prompts(frames=0))
    with pytest.raises(ConfigError, match="a window of 33 frames"):
        Rollout(Brighter(), TASK, prompts(), window=33)
