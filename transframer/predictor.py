"""The interface of any frame-prediction model: loss, exact log-probability, sampling."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transframer.codec import round_trips, token_count
from transframer.frames import Episode, Estimate, Frame

Likelihood = Literal["exact", "bound"]


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
        log_prob: nats of each drawn frame under the model itself (temperature 1, no truncation), given its
            latent variables where it has any; nan of an estimate that is made as a whole.
        tokens: what each frame was drawn as, counted: triples (the stop not counted), codes; 0 of an
            estimate that is made as a whole.
        grid: the quantised DCT coefficients drawn, or those of an estimate that is made as a whole; None of
            a predictor that draws none.
    """

    frames: list[Frame]
    log_prob: Float[Tensor, " b"]
    tokens: Int[Tensor, " b"]
    grid: Int[Tensor, "b 192 gy gx"] | None = None


class Memory(abc.ABC):
    """What a predictor keeps of the videos it continues from one frame to the next, such as a cache of keys.

    It is given to the calls of `sample` that draw the frames of the same videos one after the other. The
    context of each call is that of the call before, its oldest frames perhaps left out, and then the frames
    which that call drew.
    """

    @abc.abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that it holds, to be saved."""

    @abc.abstractmethod
    def load(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""


class FramePredictor(nn.Module, abc.ABC):
    """Learns p(target frame | context frames, query annotation). Any model of this interface can be
    trained, benchmarked and used for any task that it does not refuse.

    Attributes:
        likelihood: whether `log_prob` is exact, or a lower bound of it.
        progress: how much of its training is over, 0 to 1; the loop says before each step, for models that
            learn in phases (see `optimisation.make_optimizer` on `lr_span`).
    """

    likelihood: Likelihood = "exact"
    progress: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether bits per frame compare with those of later in the training; not so while a model still
        changes the code that it counts them in."""
        return True

    @classmethod
    def refusal(cls, episode: Episode) -> str | None:
        """Why this kind of model cannot learn such an episode; None where it can."""
        return None

    @abc.abstractmethod
    def collate(self, episodes: Sequence[Episode]) -> Any:
        """Episodes of one frame size as a batch of CPU tensors with a method `to(device)`; needs no
        weights, so that it may run in a data-loading worker."""

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """For what only looks: evaluation mode, and no gradients."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(training)

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
        """Nats of each episode's target frame as the model codes it: exact, or a lower bound where
        `likelihood` says so."""

    def round_trips(self, episodes: Sequence[Episode]) -> tuple[list[Frame], int]:
        """The target frames of episodes of one size as the model can state them at best, and how many tokens
        these take in all; by default those of the DCT codec at each query's settings."""
        return round_trips(episodes), int(token_count(episodes).sum())

    def memory(self, window: int) -> Memory | None:
        """What to give to `sample` while it continues videos; None of a model that keeps nothing.

        Args:
            window: how many of the latest frames are seen.
        """
        return None

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
        memory: Memory | None = None,
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
            memory: of this model's `memory`, where it has one and the frames of videos are drawn in turn.
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
