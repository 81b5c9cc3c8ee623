"""How well held-out frames are predicted while training: bits per frame, and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from transframer.data.source import evenly
from transframer.frames import Episode
from transframer.predictor import FramePredictor
from transframer.task import Task
from transframer.training.mixture import SampleSource, sources_by_task

_SCORED_AT_ONCE = 16
SCALE, GAP = 3, 4  # pictures are for people: pixels as squares of 3, with a white gap between frames


class Validation:
    """A few fixed held-out episodes of each task.

    Args:
        tasks: the tasks by name.
        source: where the held-out samples come from, of all tasks or by task; the first `episodes` of each
            task are taken, or all where there are fewer.
        pictures: how many of them are drawn.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        source: SampleSource | Mapping[str, SampleSource],
        episodes: int,
        pictures: int,
    ) -> None:
        self.tasks, self.pictures = tasks, pictures
        self.samples = {
            name: each.samples(
                # Of a data set some of all its parts, as streams are shuffled in pieces.
                evenly(episodes, len(each)) if isinstance(each, Sized) else range(episodes),
                tasks[name].sample_type,
                tasks[name].clip,
            )
            for name, each in sources_by_task(tasks, source).items()
        }
        self.episodes: dict[str, list[Episode]] = {
            name: [tasks[name].format(sample) for sample in samples] for name, samples in self.samples.items()
        }

    @torch.no_grad()
    def bits_per_frame(self, predictor: FramePredictor) -> dict[str, float]:
        """The mean number of bits that a target frame of each task takes under the predictor; an upper bound
        where its likelihood is a lower one."""
        return {
            name: -sum(float(predictor.log_prob(part).double().sum()) for part in _parts(episodes))
            / (len(episodes) * math.log(2))
            for name, episodes in self.episodes.items()
        }

    @torch.no_grad()
    def draw(self, predictor: FramePredictor, folder: Path) -> None:
        """Writes a picture per task, TASK.png: a row per episode, of the context, the truth and the point
        estimate."""
        if not self.pictures:
            return
        folder.mkdir(parents=True, exist_ok=True)
        n = self.pictures
        for name, task in self.tasks.items():
            samples, episodes = self.samples[name][:n], self.episodes[name][:n]
            asked = [episode.without_target() for episode in episodes]
            drawn = predictor.sample(asked, temperature=0.0, estimate=task.estimate)
            rows = [_row(task, *row) for row in zip(samples, episodes, drawn.frames, strict=True)]
            Image.fromarray(_grid(rows).permute(1, 2, 0).numpy()).save(folder / f"{name}.png")


def _parts(episodes: list[Episode]) -> list[list[Episode]]:
    return [episodes[start : start + _SCORED_AT_ONCE] for start in range(0, len(episodes), _SCORED_AT_ONCE)]


def _row(task: Task, sample: Mapping[str, Any], episode: Episode, frame: Any) -> list[Tensor]:
    prediction = task.decode(frame, episode.without_target())
    context = [context.image for context in episode.context]
    return [*context, task.draw(sample, task.truth(sample)), task.draw(sample, prediction)]


def _grid(rows: Sequence[Sequence[Tensor]]) -> UInt8[Tensor, "3 h w"]:
    """Pictures in rows on white; those of a row share its height, whatever their own sizes."""
    height = max(picture.shape[1] for row in rows for picture in row) * SCALE + GAP
    width = max(sum(picture.shape[2] * SCALE + GAP for picture in row) for row in rows)
    canvas = torch.full((3, height * len(rows), width), 255, dtype=torch.uint8)
    for i, row in enumerate(rows):
        left = 0
        for picture in row:
            large = picture.cpu().repeat_interleave(SCALE, 1).repeat_interleave(SCALE, 2)
            canvas[:, i * height : i * height + large.shape[1], left : left + large.shape[2]] = large
            left += large.shape[2] + GAP
    return canvas
