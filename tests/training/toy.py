"""A source, two tasks and a predictor that train in milliseconds; as a script, a run under torchrun."""

import json
import math
import signal
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, TypedDict

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from transframer.frames import Annotation, Episode, Frame
from transframer.predictor import FramePredictor, Loss, Samples
from transframer.task import Metric, Task
from transframer.training.checkpoint import load_config
from transframer.training.config import TrainConfig
from transframer.training.distributed import ranks
from transframer.training.loop import fit, settle

SIZE = 16


class Grey(TypedDict):
    images: torch.Tensor
    level: float


class ToyWorld:
    """Sample i is grey; its level, from 0 to 1, is a function of i. Remembers what it was asked for."""

    def __init__(self):
        self.asked = []

    def samples(self, indices, sample_type, clip):
        self.asked += list(indices)
        levels = [(i * 0.618) % 1.0 for i in indices]
        return [
            {"images": torch.full((1, 3, SIZE, SIZE), round(255 * level), dtype=torch.uint8), "level": level}
            for level in levels
        ]


@dataclass(frozen=True)
class Copy(Task):
    """The target repeats the image."""

    name: ClassVar[str] = "copy"
    sample_type: ClassVar[type] = Grey
    headline: ClassVar[Metric] = Metric("error", False)
    round_trip_bound: ClassVar[float] = 0.01

    def format(self, sample):
        target = Frame(self.target(sample["images"][0]), Annotation(self.name))
        return Episode(self.name, (Frame(sample["images"][0]),), target.annotation, target)

    def target(self, image):
        return image

    def decode(self, frame, episode):
        return frame.image.float().mean().item() / 255

    def truth(self, sample):
        return sample["level"]

    def combine(self, predictions):
        return sum(predictions) / len(predictions)

    def floor(self, samples):
        return lambda episode: 0.5

    def score(self, prediction, sample):
        return abs(prediction - sample["level"])

    def summarise(self, scores):
        return {"error": sum(scores) / len(scores)}

    def draw(self, sample, prediction):
        return torch.full((3, SIZE, SIZE), round(255 * min(max(prediction, 0), 1)), dtype=torch.uint8)

    def write(self, prediction, stem, size):
        return []


@dataclass(frozen=True)
class Negate(Copy):
    """The target is the image's negative."""

    name: ClassVar[str] = "negate"

    def target(self, image):
        return 255 - image


TASKS = {"copy": Copy(), "negate": Negate()}


@dataclass
class ToyBatch:
    image: torch.Tensor
    target: torch.Tensor
    task: torch.Tensor

    def to(self, device):
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class ToyPredictor(FramePredictor):
    """The target's mean grey as a normal of unit variance around a small network's output."""

    def __init__(self, dropout=0.1, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(len(TASKS), 8)
        self.hidden = nn.Linear(9, 16)
        self.norm = nn.LayerNorm(16)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(16, 1)

    def collate(self, episodes):
        grey = [
            torch.tensor([frame.image.float().mean() / 255 for frame in frames])
            for frames in ([e.context[0] for e in episodes], [(e.target or e.context[0]) for e in episodes])
        ]
        return ToyBatch(*grey, torch.tensor([list(TASKS).index(e.task) for e in episodes]))

    def mean(self, batch):
        x = torch.cat([batch.image[:, None], self.embedding(batch.task)], 1)
        return self.out(self.dropout(self.norm(torch.relu(self.hidden(x)))))[:, 0]

    def nats(self, batch):
        return 0.5 * (self.mean(batch) - batch.target) ** 2 + 0.5 * math.log(2 * math.pi)

    def loss(self, batch, generator):
        nats = self.nats(batch)
        return Loss(nats.mean(), nats.detach(), torch.ones_like(batch.task), {"value": nats.detach()})

    @torch.no_grad()
    def log_prob(self, episodes):
        return -self.nats(self.collate(episodes))

    @torch.no_grad()
    def sample(
        self, episodes, *, samples_per_query=1, temperature=1.0, top_p=1.0, estimate="mode", generator=None
    ):
        episodes = [episode for episode in episodes for _ in range(samples_per_query)]
        levels = (self.mean(self.collate(episodes)).clamp(0, 1) * 255).round().to(torch.uint8)
        frames = [
            Frame(level.expand(3, SIZE, SIZE).clone(), e.query)
            for level, e in zip(levels, episodes, strict=True)
        ]
        return Samples(frames, torch.zeros(len(frames)), torch.ones(len(frames), dtype=torch.int64))

    def save_pretrained(self, folder):
        save_file(self.state_dict(), Path(folder) / "model.safetensors")
        (Path(folder) / "config.json").write_text("{}")

    @classmethod
    def from_pretrained(cls, folder):
        model = cls()
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
        return model


def run(config, predictor=None, source=None):
    """`fit` on the toys, as `train` would call it."""
    with ranks("cpu") as group:
        return run_in(group, config, predictor or ToyPredictor(), source or ToyWorld())


def run_in(group, config, predictor, source):
    """The same in a group of processes that was joined before."""
    if config.resume:
        config = config.over(load_config(config.resume))
    config = settle(config, group, list(TASKS))
    tasks = {name: TASKS[name] for name in config.tasks}
    return fit(config, predictor, tasks, source, ToyWorld(), group)


class Interrupted(ToyPredictor):
    """Gets a signal in the middle of a step, counted from 1."""

    def __init__(self, step, number, **options):
        super().__init__(**options)
        self.left, self.number = step, number

    def loss(self, batch, generator):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)
        return super().loss(batch, generator)


def main():
    """Trains as the JSON settings say, once straight and once with a stop of the last rank at step 3.

    Each rank leaves what it ended with in FOLDER.
    """
    config, folder = TrainConfig.from_dict(json.loads(sys.argv[1])), Path(sys.argv[2])
    straight, source, code = ToyPredictor(dropout=0.0), ToyWorld(), 0
    with ranks("cpu") as group:  # once: to leave and join again under one launcher is a race
        run_in(group, config, straight, source)
        stopped = ToyPredictor(dropout=0.0)
        if group.rank == group.world_size - 1:
            stopped = Interrupted(3, signal.SIGTERM, dropout=0.0)
        try:
            run_in(group, replace(config, out=folder / "stopped"), stopped, ToyWorld())
        except SystemExit as stop:
            code = stop.code
        resumed = ToyPredictor(dropout=0.0, seed=1)
        run_in(group, TrainConfig(resume=folder / "stopped"), resumed, ToyWorld())
    ended = {"straight": straight.state_dict(), "resumed": resumed.state_dict(), "code": code}
    torch.save(ended | {"asked": source.asked}, folder / f"rank{group.rank}.pt")


if __name__ == "__main__":
    main()
