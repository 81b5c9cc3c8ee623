"""What a specialist is: a network made for one task, to judge the generalist by."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transframer.task import Clip, Sample, Task


class Specialist(nn.Module, abc.ABC):
    """A network for one task, of parts that its field uses, with about as many parameters as `tiny`.

    Args:
        task: the task; its settings (classes, ranges, clip) are the specialist's.

    Attributes:
        about: what it is, in words.
        learning_rate: the peak, of AdamW.
        batch_size: samples in a step.
    """

    about: ClassVar[str]
    learning_rate: ClassVar[float] = 2e-3
    batch_size: ClassVar[int] = 32

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def training_clip(self) -> Clip:
        """What is asked of the world in training: what the task is measured on, and nothing else."""
        return self.task.clip

    @abc.abstractmethod
    def loss(self, samples: Sequence[Sample]) -> Float[Tensor, ""]:
        """The training loss of labelled samples of one size."""

    @abc.abstractmethod
    def predict(self, samples: Sequence[Sample]) -> list[Any]:
        """The task's predictions for samples of one size, on the CPU; labels are not looked at."""

    def images(self, samples: Sequence[Sample]) -> Float[Tensor, "b c h w"]:
        """The context images of each sample, which has equally many as the others, one after the other as
        channels, scaled to -1 to 1."""
        stacked = torch.stack([sample["images"] for sample in samples]).to(self.device)
        return stacked.flatten(1, 2).float() / 127.5 - 1

    def labels(self, samples: Sequence[Sample], key: str) -> Tensor:
        """One label of all samples, stacked."""
        return torch.stack([torch.as_tensor(sample[key]) for sample in samples]).to(self.device)
