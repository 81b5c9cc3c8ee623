"""What coding alone costs the dense and photographic tasks on held-out scenes of the world at 64 px."""

from collections import defaultdict

import pytest
import torch

from transframer.codec import round_trips, token_count
from transframer.data.world import World
from transframer.tasks.colorization import Colorization
from transframer.tasks.depth_estimation import DepthEstimation
from transframer.tasks.frame_interpolation import FrameInterpolation
from transframer.tasks.optical_flow import OpticalFlow
from transframer.tasks.super_resolution import SuperResolution
from transframer.tasks.surface_normals import SurfaceNormals
from transframer.tasks.video_prediction import VideoPrediction
from transframer.tasks.view_synthesis import ViewSynthesis

# The mean headline that the coded truth must reach, the mean tokens it may take, the worst the floor must be.
GOALS = {
    DepthEstimation: (0.02, 240, 0.15),
    OpticalFlow: (0.2, 145, 2.0),
    ViewSynthesis: (28.0, 315, 20.0),
    VideoPrediction: (27.5, 250, 22.0),
    FrameInterpolation: (28.0, 200, 24.0),
    SurfaceNormals: (4.8, 240, 20.0),
    Colorization: (32.0, 95, 24.0),
    SuperResolution: (32.5, 125, 30.0),
}


def coded(episodes):
    """The episodes' targets, coded and decoded; a batch needs equally many context frames."""
    groups = defaultdict(list)
    for index, episode in enumerate(episodes):
        groups[len(episode.context)].append(index)
    frames, tokens = [None] * len(episodes), torch.zeros(len(episodes))
    for indices in groups.values():
        batch = [episodes[index] for index in indices]
        tokens[indices] = token_count(batch).float()
        for index, frame in zip(indices, round_trips(batch), strict=True):
            frames[index] = frame
    return frames, tokens


@pytest.mark.parametrize("task_type", GOALS)
def test_ceiling_tokens_and_floor(task_type):
    task = task_type()
    headline, higher = task.headline.name, task.headline.higher_is_better
    goal, most_tokens, poor = GOALS[task_type]
    samples = World("test", 0, 64).samples(range(48), task.sample_type, task.clip)
    episodes = [task.format(sample) for sample in samples]
    frames, tokens = coded(episodes)
    found = [task.decode(frame, episode) for frame, episode in zip(frames, episodes, strict=True)]
    scores = [task.score(prediction, sample) for prediction, sample in zip(found, samples, strict=True)]
    ceiling = task.summarise(scores)[headline]
    single = [task.summarise([score])[headline] for score in scores]
    floor = task.floor(samples)
    trivial = task.summarise(
        [
            task.score(floor(episode.without_target()), sample)
            for episode, sample in zip(episodes, samples, strict=True)
        ]
    )[headline]
    assert tokens.mean() <= most_tokens
    if higher:
        assert ceiling >= goal
        assert min(single) >= task.round_trip_bound
        assert trivial <= poor
    else:
        assert ceiling <= goal
        assert max(single) <= task.round_trip_bound
        assert trivial >= poor
