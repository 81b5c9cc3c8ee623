"""What a model says to queries: frames drawn many at a time, and what a task reads off them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from transframer.frames import Episode, Frame
from transframer.predictor import FramePredictor
from transframer.task import Sample, Task


@dataclass(frozen=True)
class Draws:
    """The frames drawn for one episode.

    Attributes:
        frames: k of them.
        tokens: triples in each.
        grid: the coefficients of each; None where the predictor does not tell.
    """

    frames: list[Frame]
    tokens: Int[Tensor, " k"]
    grid: Int[Tensor, "k 192 gy gx"] | None


@dataclass(frozen=True)
class Answer:
    """What a model says to one query.

    Attributes:
        prediction: of the task, from all draws together.
        each: the prediction of each draw; empty where none was drawn.
        draws: None where the exact posterior answered.
    """

    prediction: Any
    each: list[Any]
    draws: Draws | None


def answer_samples(
    predictor: FramePredictor,
    task: Task,
    samples: Sequence[Sample],
    *,
    samples_per_query: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> list[Answer]:
    """A task's predictions for samples of one frame size with the frames behind them, labels unused.

    Args:
        batch_size: frames drawn side by side; all where it is None.
    """
    episodes = [task.format(sample).without_target() for sample in samples]
    if temperature == 0:
        size = batch_size or max(1, len(episodes))
        parts = [episodes[i : i + size] for i in range(0, len(episodes), size)]
        exact = [exact_answers(predictor, task, part) for part in parts]
        if None not in exact:
            return [Answer(prediction, [], None) for part in exact for prediction in part]  # type: ignore[union-attr]
    answers = []
    drawn = draw(
        predictor,
        task,
        episodes,
        samples_per_query=samples_per_query,
        temperature=temperature,
        top_p=top_p,
        generator=generator,
        batch_size=batch_size or len(episodes) * samples_per_query,
    )
    for episode, draws in zip(episodes, drawn, strict=True):
        each = [task.decode(frame, episode) for frame in draws.frames]
        answers.append(Answer(task.combine(each), each, draws))
    return answers


def draw(
    predictor: FramePredictor,
    task: Task,
    episodes: Sequence[Episode],
    *,
    samples_per_query: int,
    temperature: float,
    top_p: float,
    generator: torch.Generator | None,
    batch_size: int,
) -> Iterator[Draws]:
    """Draws frames for episodes of one size, without targets; those of one episode share the encoder's work.

    Args:
        batch_size: frames drawn side by side: several episodes with all their frames, or a part of one's.
    """
    together = max(1, batch_size // samples_per_query)
    for start in range(0, len(episodes), together):
        group = episodes[start : start + together]
        parts = []
        for first in range(0, samples_per_query, batch_size):
            k = min(batch_size, samples_per_query - first)
            given = predictor.sample(
                group,
                samples_per_query=k,
                temperature=temperature,
                top_p=top_p,
                estimate=task.estimate,
                generator=generator,
            )
            grids = [None] * len(group) if given.grid is None else given.grid.split(k)
            parts.append(
                [
                    Draws(given.frames[i * k : (i + 1) * k], tokens, grid)
                    for i, (tokens, grid) in enumerate(zip(given.tokens.split(k), grids, strict=True))
                ]
            )
        yield from map(_joined, zip(*parts, strict=True))


def _joined(parts: Sequence[Draws]) -> Draws:
    grids = [part.grid for part in parts if part.grid is not None]
    return Draws(
        [frame for part in parts for frame in part.frames],
        torch.cat([part.tokens for part in parts]),
        torch.cat(grids) if grids else None,
    )


def exact_answers(predictor: FramePredictor, task: Task, episodes: Sequence[Episode]) -> list[Any] | None:
    """The predictions that the exact posteriors amount to; None where the task names no candidates."""
    candidates = [task.candidates(episode) for episode in episodes]
    if not all(candidates):
        return None
    posteriors = predictor.posteriors(episodes, candidates)
    return [task.from_posterior(p, episode) for p, episode in zip(posteriors, episodes, strict=True)]
