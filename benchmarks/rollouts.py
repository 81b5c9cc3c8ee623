"""How far drawn videos drift from the true ones, by steps after the prompt.

Of each video a prompt is given, as many frames as the task's own clips have unless told otherwise, and the
rest is drawn frame by frame (`transframer.rollout`). A sample is one of many futures, so that PSNR and SSIM
fall even for a perfect model wherever the future is open; sharpness, which asks for no particular future,
tells blur and noise apart from that: below 1 frames wash out, above 1 they gather edges or noise that the
true ones lack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.drawn import batches, clock
from transframer.benchmarks.parts import DriftCurve, RolloutResult, Strip
from transframer.benchmarks.pictures import data_uri
from transframer.benchmarks.sources import Source, naming
from transframer.benchmarks.statistics import RESAMPLES, bootstrap, resample_indices
from transframer.benchmarks.video_distance import VideoFeatures, video_distance
from transframer.errors import ConfigError, TransframerError
from transframer.predictor import FramePredictor
from transframer.rollout import Rollout, require_next_frame, window_of
from transframer.seeds import seed_for
from transframer.task import Sample, Task
from transframer.tasks.image_quality import psnr, ssim

_STRIP_FRAMES = 8
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_MEASURES = ("psnr", "ssim", "sharpness")


def tasks_to_roll_out(
    tasks: Sequence[Task], firsts: Sequence[Sequence[Sample]], source: Source, config: BenchmarkConfig
) -> set[str]:
    """The names of the tasks that predict the next frame; none where no rollouts are asked for.

    Args:
        firsts: of each task, a list of one held-out sample.

    Raises:
        ConfigError: rollouts are asked for and no task predicts the next frame.
        TransframerError: the source has no videos of that length.
    """
    if not config.rollout_frames:
        return set()
    able = set()
    for task, samples in zip(tasks, firsts, strict=True):
        try:
            with naming(task, 0, "formatting"):
                require_next_frame(task, task.format(samples[0]))
        except ConfigError:
            continue
        true_videos(task, source, config, 1)
        able.add(task.name)
    if not able:
        raise ConfigError(
            f"none of these tasks predicts the next frame: {', '.join(task.name for task in tasks)}",
            field="rollout_frames",
            expected="a task whose query is an RGB frame later than its context, such as video_prediction",
            next_step="leave --rollout-frames out, or choose with --tasks",
        )
    return able


def true_videos(task: Task, source: Source, config: BenchmarkConfig, n: int) -> UInt8[Tensor, "k t 3 h w"]:
    """At most n held-out videos of as many frames as a prompt and a rollout have together.

    Raises:
        TransframerError: the source has no videos of that length, or fewer than are needed.
    """
    prompt = config.rollout_prompt_frames or max(map(len, task.clip.context))
    frames = prompt + config.rollout_frames
    clip = replace(
        task.clip,
        frames=frames,
        context=(tuple(range(frames - 1)),),
        target=(frames - 1,),
        training_context=(),
    )
    try:
        samples = source.held_out(replace(task, clip=clip), n)
    except TransframerError as error:
        raise type(error)(
            f"{task.name}: no videos of {frames} frames for rollouts: {error.found}",
            file=error.file,
            field=error.field or "rollout_frames",
            expected=error.expected,
            next_step=error.next_step or "fewer --rollout-frames need shorter videos",
        ) from error
    videos = [torch.cat([sample["images"], sample["target"][None]]) for sample in samples]
    lengths = sorted({len(video) for video in videos})
    if lengths != [frames]:
        raise ConfigError(
            f"{task.name}: the data give samples of {', '.join(map(str, lengths)) or 'no'} frames",
            field="rollout_frames",
            expected=f"videos of {frames} frames, in which the target follows the context",
            next_step="leave --rollout-frames out",
        )
    if config.video_features and n > 1 and len(videos) < 2:
        raise ConfigError(
            f"{task.name}: one video of {frames} frames", field="video_features", expected="at least 2 videos"
        )
    return torch.stack(videos)


@torch.no_grad()
def measure_rollout(
    task: Task,
    videos: UInt8[Tensor, "k t 3 h w"],
    predictor: FramePredictor,
    config: BenchmarkConfig,
    device: torch.device,
    features: VideoFeatures | None = None,
) -> RolloutResult:
    """Draws the last `config.rollout_frames` frames of each video and compares them with the true ones.

    PSNR and SSIM are means over the videos of those of the frames, beside those of the last prompt frame
    repeated. Sharpness is the mean of `sharpness` over the drawn frames of a step, divided by that over the
    true frames of the step; nan where the true frames are flat.

    Args:
        videos: true ones, each with its prompt in front.
        features: the network for the Frechet distance.

    Raises:
        TransframerError: the task cannot be rolled out, or a frame cannot be drawn.
    """
    steps = config.rollout_frames
    prompts, truth = videos[:, :-steps], videos[:, -steps:]
    drawn, seconds = _draw(task, prompts, predictor, config, device)
    floor = prompts[:, -1:].expand_as(truth)
    scores = [_scores(*video) for video in zip(truth, drawn, floor, strict=True)]
    whole = np.mean(scores, axis=0)
    indices = resample_indices(len(scores), RESAMPLES, config.seed)
    estimates = bootstrap(scores, _measures, indices)
    repeated_frame = "last prompt frame repeated"
    references = ((repeated_frame, whole[3]), (repeated_frame, whole[4]), ("truth", np.ones(steps)))
    curves = [
        DriftCurve(
            name,
            "dB" if name == "psnr" else "",
            [estimates[f"{name} {step}"] for step in range(1, steps + 1)],
            reference.tolist(),
            reference_name,
        )
        for name, (reference_name, reference) in zip(_MEASURES, references, strict=True)
    ]
    distance = None
    if features is not None:
        given, repeated = (torch.cat([prompts, frames], 1) for frames in (drawn, floor))
        distance = video_distance(features, videos, given, repeated, config.batch_size)
    return RolloutResult(
        curves=curves,
        videos=len(videos),
        frames=steps,
        prompt_frames=prompts.shape[1],
        window=window_of(task),
        temperature=config.rollout_temperature,
        top_p=config.top_p,
        seconds_per_frame=seconds / (len(videos) * steps),
        strip=_strip(truth[0], drawn[0]),
        frechet_distance=distance,
    )


def sharpness(image: UInt8[Tensor, "3 h w"]) -> float:
    """Mean gradient magnitude of the luma in grey levels per pixel, 0 for a flat image.

    The mean of sqrt(dx^2 + dy^2) over the (h - 1) x (w - 1) pixels that have a right and a lower neighbour,
    dx and dy being the differences to these, of Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), 0-255.

    >>> ramp = torch.arange(0, 48, 3).byte().expand(3, 16, 16)
    >>> round(sharpness(ramp), 9)
    3.0
    """
    luma = (image.double() * torch.tensor(_LUMA, dtype=torch.float64).view(3, 1, 1)).sum(0)
    across, down = luma[:-1, 1:] - luma[:-1, :-1], luma[1:, :-1] - luma[:-1, :-1]
    return float(torch.hypot(across, down).mean())


def _draw(
    task: Task,
    prompts: UInt8[Tensor, "k p 3 h w"],
    predictor: FramePredictor,
    config: BenchmarkConfig,
    device: torch.device,
) -> tuple[UInt8[Tensor, "k n 3 h w"], float]:
    """The drawn frames, and the seconds that drawing took."""
    parts, seconds = [], 0.0
    for batch in batches(len(prompts), config.batch_size):
        with naming(task, batch, "the rollout"):
            rollout = Rollout(
                predictor,
                task,
                prompts[batch.start : batch.stop],
                temperature=config.rollout_temperature,
                top_p=config.top_p,
                seed=seed_for(config.seed, batch.start, task.name),
            )
            start = clock(device)
            frames = [rollout.next_frames() for _ in range(config.rollout_frames)]
            seconds += clock(device) - start
        parts.append(torch.stack(frames, 1).cpu())
    return torch.cat(parts), seconds


def _scores(
    truth: UInt8[Tensor, "n 3 h w"], drawn: UInt8[Tensor, "n 3 h w"], floor: UInt8[Tensor, "n 3 h w"]
) -> np.ndarray:
    """Of one video, by step: PSNR, SSIM and sharpness drawn, PSNR and SSIM of the floor, true sharpness."""
    rows = [
        [psnr(d, t), ssim(d, t), sharpness(d), psnr(f, t), ssim(f, t), sharpness(t)]
        for t, d, f in zip(truth, drawn, floor, strict=True)
    ]
    return np.array(rows).T


def _measures(scores: Sequence[np.ndarray]) -> dict[str, float]:
    """The three measures at every step, over videos."""
    mean = np.mean(scores, axis=0)
    found: dict[str, float] = {}
    for place in range(mean.shape[1]):
        db, similarity, drawn, *_, true = mean[:, place].tolist()
        values = (db, similarity, drawn / true if true > 0 else math.nan)
        found |= {f"{name} {place + 1}": value for name, value in zip(_MEASURES, values, strict=True)}
    return found


def _strip(truth: UInt8[Tensor, "n 3 h w"], drawn: UInt8[Tensor, "n 3 h w"]) -> Strip:
    """Evenly spaced frames of the first video, the first and the last among them."""
    count = min(len(truth), _STRIP_FRAMES)
    places = sorted({round(place) for place in np.linspace(0, len(truth) - 1, count)})
    return Strip(
        video=0,
        steps=[place + 1 for place in places],
        truth=[data_uri(truth[place]) for place in places],
        drawn=[data_uri(drawn[place]) for place in places],
    )
