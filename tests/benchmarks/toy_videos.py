"""Videos and a predictor whose rollouts can be worked out by hand.

A video is a grey ramp across the picture, 4 levels per pixel, that brightens by one level a frame. The
predictor repeats the latest frame and adds `error` levels, so that the frame `step` ahead is wrong by
step * (1 - error) levels.
"""

import torch

from transframer.benchmarks.sources import Source
from transframer.frames import Frame
from transframer.predictor import FramePredictor, Loss, Samples
from transframer.registry import get_task

TASK = get_task("video_prediction")


def ramp(level, slope=4):
    return (level + slope * torch.arange(16)).clamp(0, 255).byte().expand(3, 16, 16)


class Videos(Source):
    """Video i starts at level 20 + i; one level brighter in each frame."""

    def held_out(self, task, n):
        samples = []
        for video in range(n):
            frames = torch.stack([ramp(20 + video + t) for t in range(task.clip.frames)])
            context, target = task.clip.context[0], task.clip.target[0]
            samples.append({"images": frames[list(context)], "target": frames[target]})
        return samples

    def floor_samples(self, task, n, measured):
        return []

    def description(self, task):
        return {"source": "ramps", "split": "test", "size_px": 16}


class Repeats(FramePredictor):
    """The latest frame, `error` levels brighter; at temperature 1 one of its rows is random."""

    def __init__(self, error=0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([float(error)]))
        self.calls = []

    def collate(self, episodes):
        return list(episodes)

    def loss(self, batch, generator):
        return Loss(self.weight.sum(), torch.zeros(len(batch)), torch.zeros(len(batch)).long(), {})

    def log_prob(self, episodes):
        return -torch.ones(len(episodes))

    def sample(
        self, episodes, *, samples_per_query=1, temperature=1.0, top_p=1.0, estimate="mode", generator=None
    ):
        self.calls.append((len(episodes), len(episodes[0].context), temperature))
        frames = []
        for episode in episodes:
            image = episode.context[-1].image + int(self.weight)
            if temperature > 0:
                image[:, 5] = torch.randint(256, (3, 16), generator=generator).byte()
            frames.append(Frame(image, episode.query))
        count = len(episodes)
        return Samples(frames, torch.zeros(count), torch.full((count,), 3))


FEATURES = """
import torch

def colours():
    return lambda videos: videos.mean((2, 3, 4))

def red():
    return lambda videos: videos[:, :1].mean((2, 3, 4))

def everything():
    def features(videos):
        assert videos.dtype == torch.float32
        assert videos.is_contiguous()
        return videos.flatten(1)
    return features

def number():
    return 3

def flat():
    return lambda videos: videos.mean()

def infinite():
    return lambda videos: videos.flatten(1) / 0.0

def picky():
    def features(videos):
        raise RuntimeError("kernel larger than the input")
    return features
"""


def random_videos(k, seed, top=256):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, top, (k, 4, 3, 8, 6), dtype=torch.uint8, generator=generator)
