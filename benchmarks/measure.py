"""Measures one task: predictions, scores, likelihood and cost of a model on held-out samples."""

from __future__ import annotations

import inspect
import math
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from transframer.answers import draw, exact_answers
from transframer.benchmarks.codec import ceiling
from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.pictures import choose, data_uri
from transframer.benchmarks.protocol import digest, fingerprint
from transframer.benchmarks.results import MetricResult, Picture, TaskResult
from transframer.benchmarks.sources import Material, naming
from transframer.benchmarks.sparsification import task_sparsification
from transframer.benchmarks.statistics import bootstrap, paired_bootstrap, resample_indices, resamples_for
from transframer.codec import round_trips
from transframer.errors import DataError
from transframer.frames import Episode
from transframer.predictor import FramePredictor
from transframer.task import Metric, Sample, Task
from transframer.tasks.drawing import heat
from transframer.tasks.uncertainty import colour_deviation
from transframer.training.tally import peak_memory_mib

RANDOM_PICTURES = 3
_COLOURS = Metric("standard deviation of the frame", False, "grey levels")


@dataclass
class _Drawn:
    """What sampling the model gave, per sample; uncertainties are empty where one frame was drawn of each."""

    predictions: list[Any] = field(default_factory=list)
    uncertainties: list[Tensor] = field(default_factory=list)
    uncertainty_metric: Metric = _COLOURS
    tokens: int = 0
    seconds: float = 0.0


@torch.no_grad()
def measure(
    material: Material,
    predictor: FramePredictor,
    config: BenchmarkConfig,
    protocol: dict[str, Any],
    device: torch.device,
) -> TaskResult:
    """Everything a benchmark says about one task.

    Args:
        protocol: the stamp of this measurement.

    Raises:
        TransframerError: a sample that cannot be predicted or scored, naming its index; none is skipped.
    """
    task, samples, episodes = material.task, material.samples, material.episodes
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    drawn = _draw(material, predictor, config, device)
    trivial = task.floor(material.floor_samples)
    floors = []
    for index, episode in enumerate(episodes):
        with naming(task, index, "the floor"):
            floors.append(trivial(episode.without_target()))
    scores = _scores(task, drawn.predictions, samples)
    floor_scores = _scores(task, floors, samples)
    indices = resample_indices(len(samples), resamples_for(task.summarise, scores), config.seed)
    model, floor, difference = paired_bootstrap(scores, floor_scores, task.summarise, indices)
    best, target_tokens = ceiling(task, samples)
    bits = _bits(task, predictor, episodes, config.batch_size)
    name = task.headline.name
    per_sample = [float(task.summarise([score])[name]) for score in scores]
    return TaskResult(
        task=task.name,
        headline=task.headline,
        metrics={
            key: MetricResult(
                model=value,
                floor=floor[key].value if key in floor else math.nan,
                difference=difference[key],
                ceiling=float(best.get(key, math.nan)),
            )
            for key, value in model.items()
        },
        resamples=len(indices),
        bits_per_frame=bootstrap(bits, _mean, indices)["mean"],
        tokens_per_frame=drawn.tokens / (len(samples) * config.samples_per_query),
        target_tokens_per_frame=float(target_tokens),
        seconds_per_frame=drawn.seconds / (len(samples) * config.samples_per_query),
        per_sample=per_sample,
        definitions=_definitions(task),
        protocol=protocol,
        digest=digest(protocol),
        peak_memory_bytes=round(peak_memory_mib() * 2**20),
        peak_accelerator_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
        pictures=_pictures(material, drawn, floors, per_sample, floor_scores, config.seed),
        sparsification=task_sparsification(
            task, samples, drawn.predictions, drawn.uncertainties, drawn.uncertainty_metric, indices
        ),
    )


def _draw(
    material: Material, predictor: FramePredictor, config: BenchmarkConfig, device: torch.device
) -> _Drawn:
    task, episodes = material.task, material.episodes
    temperature = config.sampling_temperature
    # One stream per task, so that a task measured alone draws the same frames as among others.
    seed = int(fingerprint(task.name, config.seed)[:15], 16)
    generator = torch.Generator(device).manual_seed(seed) if temperature > 0 else None
    drawn = _Drawn()
    for batch in _batches(len(episodes), max(1, config.batch_size // config.samples_per_query)):
        asked = [episodes[i].without_target() for i in batch]
        if temperature == 0:
            with naming(task, batch, "the posterior"):
                start = _clock(device)
                exact = exact_answers(predictor, task, asked)
            if exact is not None:
                drawn.seconds += _clock(device) - start
                drawn.predictions += exact
                continue
        with naming(task, batch, "sampling"):
            start = _clock(device)
            several = list(
                draw(
                    predictor,
                    task,
                    asked,
                    samples_per_query=config.samples_per_query,
                    temperature=temperature,
                    top_p=config.top_p,
                    generator=generator,
                    batch_size=config.batch_size,
                )
            )
            drawn.seconds += _clock(device) - start
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


def _bits(task: Task, predictor: FramePredictor, episodes: Sequence[Episode], batch_size: int) -> list[float]:
    bits: list[float] = []
    for batch in _batches(len(episodes), batch_size):
        with naming(task, batch, "log_prob"):
            bits += (-predictor.log_prob([episodes[i] for i in batch]).double() / math.log(2)).tolist()
    for index, value in enumerate(bits):
        if not math.isfinite(value):
            with naming(task, index, "log_prob"):
                raise DataError(f"{value} bits", expected="a finite likelihood of the true target")
    return bits


def _scores(task: Task, predictions: Sequence[Any], samples: Sequence[Sample]) -> list[Any]:
    scores = []
    for index, (prediction, sample) in enumerate(zip(predictions, samples, strict=True)):
        with naming(task, index, "scoring"):
            scores.append(task.score(prediction, sample))
    return scores


def _pictures(
    material: Material,
    drawn: _Drawn,
    floors: Sequence[Any],
    per_sample: Sequence[float],
    floor_scores: Sequence[Any],
    seed: int,
) -> list[Picture]:
    task = material.task

    def alone(score: Any) -> float:
        return float(task.summarise([score])[task.headline.name])

    pictures = []
    for index, why in choose(per_sample, task.headline.higher_is_better, RANDOM_PICTURES, seed):
        sample, episode = material.samples[index], material.episodes[index]
        with naming(task, index, "drawing"):
            best = task.decode(round_trips([episode])[0], episode.without_target())
            spread = drawn.uncertainties[index] if drawn.uncertainties else None
            pictures.append(
                Picture(
                    index=index,
                    chosen_as=why,
                    scores={
                        "model": per_sample[index],
                        "floor": alone(floor_scores[index]),
                        "ceiling": alone(task.score(best, sample)),
                    },
                    context=[data_uri(frame.image) for frame in episode.context],
                    times=[*(frame.annotation.time for frame in episode.context), episode.query.time],
                    truth=data_uri(task.draw(sample, task.truth(sample))),
                    model=data_uri(task.draw(sample, drawn.predictions[index])),
                    floor=data_uri(task.draw(sample, floors[index])),
                    ceiling=data_uri(task.draw(sample, best)),
                    uncertainty=None if spread is None else data_uri(heat(spread)),
                    uncertainty_max=0.0 if spread is None else float(spread.max()),
                    uncertainty_name=drawn.uncertainty_metric.name,
                    uncertainty_unit=drawn.uncertainty_metric.unit,
                )
            )
    return pictures


def _batches(n: int, size: int) -> list[range]:
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def _mean(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values)}


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _definitions(task: Task) -> str:
    """The author's words: the class's docstring and those of the methods that define the metrics."""
    written = [inspect.getdoc(type(task))]
    for method in ("score", "summarise"):
        text = inspect.getdoc(getattr(task, method))
        written.append(None if text == inspect.getdoc(getattr(Task, method)) else text)
    # Up to the sections that speak to programmers: Args, Attributes, Raises, examples.
    return "\n\n".join(re.split(r"\n+(?:[A-Z]\w+:\n|>>> )", text)[0].strip() for text in written if text)
