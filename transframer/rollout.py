"""Videos drawn frame by frame: each frame from the latest ones, given or drawn before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from transframer.codec import decode_frames
from transframer.errors import ConfigError, DataError
from transframer.frames import Episode
from transframer.predictor import FramePredictor
from transframer.seeds import seed_for
from transframer.task import Task


def window_of(task: Task) -> int:
    """The most context frames that a task's training gives at once."""
    return max(len(context) for context in task.clip.contexts("train"))


def require_next_frame(task: Task, episode: Episode) -> None:
    """Raises ConfigError for a task that does not ask for the frame after those given."""
    query, times = episode.query, [frame.annotation.time for frame in episode.context]
    if query.kind != "rgb" or any(query.time is None or time is None or time >= query.time for time in times):
        raise ConfigError(
            f"{task.name} does not predict the next frame",
            field="task",
            expected="a task whose query is an RGB frame later than its context, such as video_prediction",
        )


class Rollout:
    """k videos that go on for as long as they are asked to, in constant memory and time per frame.

    The frames of step n are drawn with a generator of (seed, n): the same seed, prompts and settings give the
    same videos, and a rollout whose state was saved goes on as if it had not stopped.

    Args:
        predictor: in evaluation mode, on its device.
        task: formats {"images": the latest frames} as an episode that asks for the next frame.
        prompts: k videos of n frames each, 0-255, all of one size; for k variants of one, k times the same.
        window: how many of the latest frames are seen; the task's own (`window_of`) if not given.
        temperature: of sampling; 0 gives the task's point estimate, the same in every variant.
        top_p: nucleus of each distribution that is drawn from, in (0, 1].
        seed: of all draws.

    Attributes:
        drawn: frames drawn so far, of each video.

    Raises:
        ConfigError: a task that does not predict the next frame, or a window that it cannot take.
        DataError: no frames to start from.
    """

    def __init__(
        self,
        predictor: FramePredictor,
        task: Task,
        prompts: UInt8[Tensor, "k n 3 h w"],
        *,
        window: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not prompts.shape[0] or not prompts.shape[1]:
            raise DataError("no frame to start from", expected="an image or a clip")
        self.predictor, self.task, self.seed = predictor, task, seed
        self.sampling: dict[str, Any] = {"temperature": temperature, "top_p": top_p}
        self.window = window or window_of(task)
        least, most = task.context_images
        if not least <= self.window <= most:
            raise ConfigError(
                f"a window of {self.window} frames", field="window", expected=f"{least} to {most} frames"
            )
        self.memory = predictor.memory(self.window)
        self.drawn = 0
        self._images = prompts[:, -self.window :].cpu()
        require_next_frame(task, self._episodes()[0])

    def _episodes(self) -> Sequence[Episode]:
        return [self.task.format({"images": images}).without_target() for images in self._images]

    def next_frames(self) -> UInt8[Tensor, "k 3 h w"]:
        """Draws the next frame of each video."""
        generator = torch.Generator().manual_seed(seed_for(self.seed, self.drawn, "rollout"))
        episodes = self._episodes()
        if self.memory is not None:
            self.sampling["memory"] = self.memory
        samples = self.predictor.sample(
            episodes, estimate=self.task.estimate, generator=generator, **self.sampling
        )
        # An estimate that is made as a whole has faint patterns, which grow where it is read again and again:
        # what it is coded as has not.
        drawn = samples.frames if samples.grid is None else decode_frames(samples.grid, episodes)
        frames = torch.stack([self.task.decode(frame, e) for frame, e in zip(drawn, episodes, strict=True)])
        self._images = torch.cat([self._images, frames[:, None].cpu()], 1)[:, -self.window :]
        self.drawn += 1
        return frames

    def state(self) -> dict[str, Tensor]:
        """All that the next frame depends on, beside the arguments of the constructor."""
        kept = {} if self.memory is None else self.memory.state()
        state = {"images": self._images, "drawn": torch.tensor(self.drawn)}
        return {**state, **{f"memory.{name}": tensor for name, tensor in kept.items()}}

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from a state."""
        self._images, self.drawn = state["images"], int(state["drawn"])
        if self.memory is not None:
            names = [name for name in state if name.startswith("memory.")]
            self.memory.load({name.removeprefix("memory."): state[name] for name in names})
