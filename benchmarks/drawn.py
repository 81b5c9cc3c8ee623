"""What a model draws for the held-out samples of a task, and how long that takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from transframer.answers import Draws, draw, exact_answers
from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.protocol import fingerprint
from transframer.benchmarks.sources import Material, naming
from transframer.frames import Episode
from transframer.predictor import FramePredictor
from transframer.task import Metric
from transframer.tasks.uncertainty import colour_deviation

_COLOURS = Metric("standard deviation of the frame", False, "grey levels")


@dataclass
class Drawn:
    """What sampling the model gave, per sample; uncertainties are empty where one frame was drawn of each."""

    predictions: list[Any] = field(default_factory=list)
    uncertainties: list[Tensor] = field(default_factory=list)
    uncertainty_metric: Metric = _COLOURS
    tokens: int = 0
    seconds: float = 0.0


def draw_all(
    material: Material, predictor: FramePredictor, config: BenchmarkConfig, device: torch.device
) -> Drawn:
    """A prediction for every sample of a task.

    Raises:
        TransframerError: a sample that cannot be predicted, naming its index.
    """
    task, episodes = material.task, material.episodes
    sampling = config.sampling(task.draws)
    temperature = sampling.temperature
    # One stream per task, so that a task measured alone draws the same frames as among others.
    seed = int(fingerprint(task.name, config.seed)[:15], 16)

    def fresh() -> torch.Generator | None:
        return torch.Generator(device).manual_seed(seed) if temperature > 0 else None

    def sampled(asked: Sequence[Episode], generator: torch.Generator | None) -> list[Draws]:
        several = draw(
            predictor,
            task,
            asked,
            samples_per_query=sampling.samples_per_query,
            temperature=temperature,
            top_p=config.top_p,
            generator=generator,
            batch_size=config.batch_size,
        )
        return list(several)

    drawn, generator = Drawn(), fresh()
    for batch in batches(len(episodes), max(1, config.batch_size // sampling.samples_per_query)):
        asked = [episodes[i].without_target() for i in batch]
        begins = batch.start == 0  # what a first call compiles and loads is the time of no frame
        if temperature == 0:
            with naming(task, batch, "the posterior"):
                if begins:
                    exact_answers(predictor, task, asked[:1])
                start = clock(device)
                exact = exact_answers(predictor, task, asked)
            if exact is not None:
                drawn.seconds += clock(device) - start
                drawn.predictions += exact
                continue
        with naming(task, batch, "sampling"):
            if begins:
                sampled(asked[:1], fresh())
            start = clock(device)
            several = sampled(asked, generator)
            drawn.seconds += clock(device) - start
        for index, episode, draws in zip(batch, asked, several, strict=True):
            drawn.tokens += int(draws.tokens.sum())
            with naming(task, index, "decoding"):
                predictions = [task.decode(frame, episode) for frame in draws.frames]
                drawn.predictions.append(task.combine(predictions))
                if len(predictions) > 1:
                    own = task.uncertainty(predictions)
                    if own is None:
                        own = colour_deviation([frame.image for frame in draws.frames])
                    else:
                        drawn.uncertainty_metric = task.uncertainty_metric
                    drawn.uncertainties.append(own)
    return drawn


def batches(n: int, size: int) -> list[range]:
    """The places 0 to n - 1 in ranges of a size, the last of which may be shorter.

    >>> batches(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def clock(device: torch.device) -> float:
    """Seconds by the wall clock, when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
