"""A task, a source and a predictor so small that every number of a benchmark can be worked out by hand.

Sample i of the held-out set shows grey level 10 + i and asks for twice that. The predictor is wrong by
(i % 4) grey levels; the trivial answer is the mean of the training labels, 40.
"""

from dataclasses import dataclass
from typing import ClassVar, TypedDict

import pytest
import torch

from tests.benchmarks.toy_videos import FEATURES
from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.quality import benchmark_tasks
from transframer.benchmarks.sources import Source
from transframer.frames import Annotation, CodecSettings, Episode, Frame
from transframer.predictor import FramePredictor, Loss, Samples
from transframer.task import Metric, Task


class ToySample(TypedDict):
    images: torch.Tensor
    level: float


def grey(level):
    return torch.full((3, 16, 16), int(level), dtype=torch.uint8)


@dataclass(frozen=True)
class ToyTask(Task[float, float]):
    """Doubles a `grey level`."""

    name: ClassVar[str] = "toy_doubling"
    sample_type: ClassVar[type] = ToySample
    headline: ClassVar[Metric] = Metric("mae", higher_is_better=False, unit="levels")
    round_trip_bound: ClassVar[float] = 1.0

    def format(self, sample):
        query = Annotation("toy", codec=CodecSettings(100, "4:4:4"))
        target = Frame(grey(sample["level"]), query) if "level" in sample else None
        return Episode(self.name, (Frame(sample["images"][0]),), query, target)

    def decode(self, frame, episode):
        assert episode.target is None
        return float(frame.image.float().mean())

    def truth(self, sample):
        return float(sample["level"])

    def combine(self, predictions):
        return sum(predictions) / len(predictions)

    def floor(self, samples):
        level = sum(sample["level"] for sample in samples) / len(samples)
        return lambda episode: level

    def score(self, prediction, sample):
        return abs(prediction - sample["level"])

    def summarise(self, scores):
        """`mae` is the mean absolute error, `worst` the greatest."""
        return {"mae": sum(scores) / len(scores), "worst": float(max(scores))}

    def draw(self, sample, prediction):
        return grey(round(prediction))

    def write(self, prediction, stem, size):
        return []


class ToySource(Source):
    def __init__(self):
        self.asked_floor = []

    def held_out(self, task, n):
        return [{"images": grey(10 + i)[None], "level": 2.0 * (10 + i)} for i in range(n)]

    def floor_samples(self, task, n, measured):
        self.asked_floor.append(n)
        return [{"images": grey(20)[None], "level": 40.0} for _ in range(n)]

    def description(self, task):
        return {"source": "toy", "split": "test", "size_px": 16}


class ToyPredictor(FramePredictor):
    """Knows the answer but for (i % 4) levels, plus noise of one level up or down at temperature > 0."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.calls = []

    def collate(self, episodes):
        return list(episodes)

    def loss(self, batch, generator):
        nats = torch.zeros(len(batch))
        return Loss(self.weight.sum(), nats, nats.long(), {})

    def log_prob(self, episodes):
        return torch.tensor([-0.6931471805599453 * float(e.context[0].image[0, 0, 0]) for e in episodes])

    def sample(
        self,
        episodes,
        *,
        samples_per_query=1,
        temperature=1.0,
        top_p=1.0,
        estimate="mode",
        generator=None,
    ):
        rows = [episode for episode in episodes for _ in range(samples_per_query)]
        self.calls.append(len(rows))
        frames = []
        for episode in rows:
            assert episode.target is None
            level = int(episode.context[0].image[0, 0, 0])
            noise = 0
            if temperature > 0:
                noise = 2 * int(torch.randint(2, (), generator=generator)) - 1
            frames.append(Frame(grey(2 * level + (level - 10) % 4 + noise), episode.query))
        n = len(rows)
        return Samples(frames, torch.zeros(n), torch.full((n,), 7))


@pytest.fixture
def toy_task():
    return ToyTask()


@pytest.fixture
def toy_source():
    return ToySource()


@pytest.fixture
def toy_predictor():
    return ToyPredictor()


@pytest.fixture
def toy_config(tmp_path):
    """Settings with a function to change some of them."""

    def make(**changes):
        settings = {
            "run": tmp_path / "run",
            "samples": 8,
            "batch_size": 3,
            "floor_samples": 5,
            "device": "cpu",
        }
        return BenchmarkConfig(**{**settings, **changes})

    return make


@pytest.fixture
def toy_benchmark(toy_task, toy_source, toy_predictor, toy_config):
    """Runs a benchmark of toys, with changes to its parts and settings."""

    def run(task=toy_task, source=toy_source, predictor=toy_predictor, tasks=None, **changes):
        config = toy_config(**changes)
        return benchmark_tasks(config, predictor, tasks or [task], source, torch.device("cpu"))

    return run


@pytest.fixture
def feature_file(tmp_path):
    """A Python file of functions that return feature networks of videos."""
    path = tmp_path / "features.py"
    path.write_text(FEATURES)
    return path
