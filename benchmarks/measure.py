"""Measures one task: predictions, scores, likelihood and cost of a model on held-out samples."""

from __future__ import annotations

import inspect
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from transframer.benchmarks.autoencoder import autoencoder_report
from transframer.benchmarks.baselines.training import TrainedSpecialist
from transframer.benchmarks.codec import ceiling
from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.drawn import Drawn, batches, draw_all
from transframer.benchmarks.pictures import choose, data_uri
from transframer.benchmarks.protocol import digest
from transframer.benchmarks.results import MetricResult, Picture, TaskResult
from transframer.benchmarks.rollouts import measure_rollout
from transframer.benchmarks.sources import Material, naming
from transframer.benchmarks.sparsification import task_sparsification
from transframer.benchmarks.specialists import specialist_answers, specialist_result
from transframer.benchmarks.statistics import (
    Estimate,
    bootstrap,
    paired_bootstrap,
    resample_indices,
    resamples_for,
)
from transframer.benchmarks.video_distance import VideoFeatures
from transframer.errors import DataError
from transframer.frames import Episode
from transframer.predictor import FramePredictor
from transframer.task import Sample, Task
from transframer.tasks.drawing import heat
from transframer.training.tally import peak_memory_mib

RANDOM_PICTURES = 3


@torch.no_grad()
def measure(
    material: Material,
    predictor: FramePredictor,
    config: BenchmarkConfig,
    protocol: dict[str, Any],
    device: torch.device,
    features: VideoFeatures | None = None,
    trained: TrainedSpecialist | None = None,
) -> TaskResult:
    """Everything a benchmark says about one task.

    Args:
        protocol: the stamp of this measurement.
        features: the network by whose features drawn videos are compared with true ones.
        trained: the network made for the task that the model is compared with.

    Raises:
        TransframerError: a sample that cannot be predicted or scored, naming its index; none is skipped.
    """
    task, samples, episodes = material.task, material.samples, material.episodes
    # Before the peak of the accelerator is counted, which is the model's.
    rival = specialist_answers(trained, task, samples, config.batch_size, device) if trained else None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    drawn = draw_all(material, predictor, config, device)
    trivial = task.floor(material.floor_samples)
    floors: list[Any] = []
    for index, episode in enumerate(episodes):
        with naming(task, index, "the floor"):
            floors.append(trivial(episode.without_target()))
    scores = scores_of(task, drawn.predictions, samples)
    floor_scores = scores_of(task, floors, samples)
    indices = resample_indices(len(samples), resamples_for(task.summarise, scores), config.seed)
    model, floor, difference = paired_bootstrap(scores, floor_scores, task.summarise, indices)
    rivals: dict[str, Estimate] = {}
    versus: dict[str, Estimate] = {}
    others = {"floor": (floors, floor_scores)}
    if rival is not None:
        rival_scores = scores_of(task, rival.predictions, samples)
        _, rivals, versus = paired_bootstrap(scores, rival_scores, task.summarise, indices)
        others["specialist"] = (rival.predictions, rival_scores)
    best, target_tokens = ceiling(task, samples, predictor.round_trips)
    bits = _bits(task, predictor, episodes, config.batch_size)
    frames_drawn = len(samples) * config.sampling(task.draws).samples_per_query
    name = task.headline.name
    per_sample = [float(task.summarise([score])[name]) for score in scores]
    # In this order, so that the accelerator's peak covers all of it.
    pictures = _pictures(material, predictor, drawn, per_sample, others, config.seed)
    rollout = None
    if material.videos is not None:
        rollout = measure_rollout(task, material.videos, predictor, config, device, features)
    autoencoder = None
    if getattr(predictor, "autoencoder", None) is not None:
        autoencoder = autoencoder_report(predictor, [e.target.image for e in episodes if e.target])
    return TaskResult(
        task=task.name,
        headline=task.headline,
        metrics={
            key: MetricResult(
                model=value,
                floor=floor[key].value if key in floor else math.nan,
                difference=difference[key],
                ceiling=float(best.get(key, math.nan)),
                specialist=rivals.get(key),
                versus=versus.get(key),
            )
            for key, value in model.items()
        },
        resamples=len(indices),
        bits_per_frame=bootstrap(bits, _mean, indices)["mean"],
        tokens_per_frame=drawn.tokens / frames_drawn,
        target_tokens_per_frame=float(target_tokens),
        seconds_per_frame=drawn.seconds / frames_drawn,
        per_sample=per_sample,
        definitions=_definitions(task),
        protocol=protocol,
        digest=digest(protocol),
        peak_memory_bytes=round(peak_memory_mib() * 2**20),
        peak_accelerator_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
        pictures=pictures,
        sparsification=task_sparsification(
            task, samples, drawn.predictions, drawn.uncertainties, drawn.uncertainty_metric, indices
        ),
        rollout=rollout,
        autoencoder=autoencoder,
        specialist=specialist_result(trained, rival) if trained and rival else None,
    )


def _bits(task: Task, predictor: FramePredictor, episodes: Sequence[Episode], batch_size: int) -> list[float]:
    bits: list[float] = []
    for batch in batches(len(episodes), batch_size):
        with naming(task, batch, "log_prob"):
            bits += (-predictor.log_prob([episodes[i] for i in batch]).double() / math.log(2)).tolist()
    for index, value in enumerate(bits):
        if not math.isfinite(value):
            with naming(task, index, "log_prob"):
                raise DataError(f"{value} bits", expected="a finite likelihood of the true target")
    return bits


def scores_of(task: Task, predictions: Sequence[Any], samples: Sequence[Sample]) -> list[Any]:
    """What the task makes of each prediction; an error names the sample."""
    scores = []
    for index, (prediction, sample) in enumerate(zip(predictions, samples, strict=True)):
        with naming(task, index, "scoring"):
            scores.append(task.score(prediction, sample))
    return scores


def _pictures(
    material: Material,
    predictor: FramePredictor,
    drawn: Drawn,
    per_sample: Sequence[float],
    others: Mapping[str, tuple[Sequence[Any], Sequence[Any]]],
    seed: int,
) -> list[Picture]:
    """Of a few samples; `others` has predictions and scores, of "floor" and where measured "specialist"."""
    task = material.task

    def alone(score: Any) -> float:
        return float(task.summarise([score])[task.headline.name])

    pictures = []
    for index, why in choose(per_sample, task.headline.higher_is_better, RANDOM_PICTURES, seed):
        sample, episode = material.samples[index], material.episodes[index]
        with naming(task, index, "drawing"):
            frames, _ = predictor.round_trips([episode])
            best = task.decode(frames[0], episode.without_target())
            spread = drawn.uncertainties[index] if drawn.uncertainties else None
            pictures.append(
                Picture(
                    index=index,
                    chosen_as=why,
                    scores={
                        "model": per_sample[index],
                        **{who: alone(scores[index]) for who, (_, scores) in others.items()},
                        "ceiling": alone(task.score(best, sample)),
                    },
                    context=[data_uri(frame.image) for frame in episode.context],
                    times=[*(frame.annotation.time for frame in episode.context), episode.query.time],
                    truth=data_uri(task.draw(sample, task.truth(sample))),
                    model=data_uri(task.draw(sample, drawn.predictions[index])),
                    ceiling=data_uri(task.draw(sample, best)),
                    uncertainty=None if spread is None else data_uri(heat(spread)),
                    uncertainty_max=0.0 if spread is None else float(spread.max()),
                    uncertainty_name=drawn.uncertainty_metric.name,
                    uncertainty_unit=drawn.uncertainty_metric.unit,
                    **{
                        who: data_uri(task.draw(sample, predictions[index]))
                        for who, (predictions, _) in others.items()
                    },
                )
            )
    return pictures


def _mean(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values)}


def _definitions(task: Task) -> str:
    """The author's words: the class's docstring and those of the methods that define the metrics."""
    written = [inspect.getdoc(type(task))]
    for method in ("score", "summarise"):
        text = inspect.getdoc(getattr(task, method))
        written.append(None if text == inspect.getdoc(getattr(Task, method)) else text)
    # Up to the sections that speak to programmers: Args, Attributes, Raises, examples.
    return "\n\n".join(re.split(r"\n+(?:[A-Z]\w+:\n|>>> )", text)[0].strip() for text in written if text)
