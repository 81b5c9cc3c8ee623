"""The interface of any frame-prediction model: loss, exact log-probability, sampling."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transframer.frames import Episode, Frame

Estimate = Literal["mode", "median"]


@dataclass
class Loss:
    """What a training step needs and what it logs.

    Attributes:
        total: the scalar to differentiate.
        nats: per episode, the nats of the events that were scored (one chunk of the frame), detached.
        events: per episode, how many events that was (triples, and the stop).
        parts: the same nats by head ("channel", "position", "value").
    """

    total: Float[Tensor, ""]
    nats: Float[Tensor, " b"]
    events: Int[Tensor, " b"]
    parts: dict[str, Float[Tensor, " b"]]


@dataclass
class Samples:
    """Frames drawn from the model, in the order of the episodes.

    Attributes:
        frames: the predicted frames, annotated by each episode's query.
        log_prob: nats of each drawn frame under the model itself (temperature 1, no truncation).
        tokens: triples in each frame, the stop not counted.
        grid: the quantised DCT coefficients drawn, of a predictor that draws such; else None.
    """

    frames: list[Frame]
    log_prob: Float[Tensor, " b"]
    tokens: Int[Tensor, " b"]
    grid: Int[Tensor, "b 192 gy gx"] | None = None


class FramePredictor(nn.Module, abc.ABC):
    """Learns p(target frame | context frames, query annotation). Any model of this interface can be
    trained, benchmarked and used for any task."""

    @abc.abstractmethod
    def collate(self, episodes: Sequence[Episode]) -> Any:
        """Episodes of one frame size as a batch of CPU tensors with a method `to(device)`; needs no
        weights, so that it may run in a data-loading worker."""

    def blocks(self) -> list[nn.Module]:
        """The parts that are compiled, each by itself; blocks of one class and shape share their code."""
        return list(self.children())

    @abc.abstractmethod
    def loss(self, batch: Any, generator: torch.Generator) -> Loss:
        """The training loss of a collated batch whose episodes all have targets.

        Args:
            generator: a CPU generator, for what training draws at random (chunks, dropout).
        """

    @abc.abstractmethod
    def log_prob(self, episodes: Sequence[Episode]) -> Float[Tensor, " b"]:
        """Nats of each episode's target frame as coded by its codec settings, exact."""

    @abc.abstractmethod
    def sample(
        self,
        episodes: Sequence[Episode],
        *,
        samples_per_query: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        estimate: Estimate = "mode",
        generator: torch.Generator | None = None,
    ) -> Samples:
        """Draws frames; temperature 0 gives the estimate asked for and needs no generator.

        Args:
            episodes: of one frame size.
            samples_per_query: frames per episode, which come side by side: those of the first episode, then
                those of the second, and so on.
            temperature: of each distribution that is drawn from.
            top_p: nucleus of each distribution that is drawn from, in (0, 1].
            estimate: what temperature 0 gives.
            generator: on any device; draws of a seed differ between devices that it is on.
        """

    def posterior(self, episode: Episode, candidates: Sequence[Frame]) -> Float[Tensor, " k"]:
        """The probability of each candidate target frame, normalised over the candidates."""
        return self.posteriors([episode], [candidates])[0]

    @torch.no_grad()
    def posteriors(
        self, episodes: Sequence[Episode], candidates: Sequence[Sequence[Frame]]
    ) -> list[Float[Tensor, " k"]]:
        """The posterior of each episode over its own candidates, on the CPU."""
        return [
            self.log_prob([replace(episode, target=frame) for frame in frames])
            .double()
            .softmax(0)
            .float()
            .cpu()
            for episode, frames in zip(episodes, candidates, strict=True)
        ]
