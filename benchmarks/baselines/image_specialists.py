"""Specialists of tasks that ask for an image: video prediction, interpolation, view synthesis."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from transframer.benchmarks.baselines.encoder_decoder import EncoderDecoder
from transframer.benchmarks.baselines.specialist import Specialist
from transframer.frames import Camera, Episode
from transframer.models.batch import BLOCK, ray_map
from transframer.task import Clip, Sample
from transframer.tasks.image_quality import ImageTask, rounded

_RAYS = 6  # origin and direction
_VIEW = 3 + _RAYS + 1  # and whether the view is there


class ImageSpecialist(Specialist):
    """An image as what a U-Net adds to the trivial answer, trained by squared error, as PSNR is."""

    def __init__(self, task: ImageTask, in_channels: int) -> None:
        super().__init__(task)
        self.network = EncoderDecoder(in_channels, 3)
        self.trivial = task.floor(())  # of these tasks it needs no samples

    def loss(self, samples: Sequence[Sample]) -> Float[Tensor, ""]:
        """Mean squared error of images scaled to -1 to 1."""
        truth = self.labels(samples, "target").float() / 127.5 - 1
        return F.mse_loss(self._predicted(samples), truth)

    def predict(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Images, uint8 3 x h x w."""
        return [rounded(127.5 * (image + 1)) for image in self._predicted(samples).cpu()]

    @abc.abstractmethod
    def inputs(self, samples: Sequence[Sample], episodes: Sequence[Episode]) -> Float[Tensor, "b c h w"]:
        """What the network sees of samples, which are these episodes."""

    def _predicted(self, samples: Sequence[Sample]) -> Float[Tensor, "b 3 h w"]:
        episodes = [self.task.format(sample).without_target() for sample in samples]
        start = torch.stack([self.trivial(episode) for episode in episodes]).to(self.device)
        return start.float() / 127.5 - 1 + self.network(self.inputs(samples, episodes))


class TimedSpecialist(ImageSpecialist):
    """Frames in the order of time and, at every pixel, the time asked for, as the episode states it."""

    about: ClassVar[str] = "U-Net with a timm ResNet encoder on all frames and the time, squared error"

    def __init__(self, task: ImageTask) -> None:
        super().__init__(task, 3 * len(task.clip.context[0]) + 1)

    @property
    def training_clip(self) -> Clip:
        """Without the choices of context that only training has: it is measured without them."""
        return replace(self.task.clip, training_context=())

    def inputs(self, samples: Sequence[Sample], episodes: Sequence[Episode]) -> Float[Tensor, "b c h w"]:
        """Frames and time."""
        frames = self.images(samples)
        times = torch.tensor([episode.query.time for episode in episodes])
        plane = times.to(frames)[:, None, None, None].expand(-1, -1, *frames.shape[-2:])
        return torch.cat([frames, plane], 1)


class ViewSpecialist(ImageSpecialist):
    """The views, nearest first, each with the origin and direction of every pixel's ray in the frame of the
    camera asked for, and that camera's own rays."""

    about: ClassVar[str] = "U-Net with a timm ResNet encoder on all views and ray maps, squared error"

    def __init__(self, task: ImageTask) -> None:
        self.most = max(map(len, task.clip.context))
        super().__init__(task, self.most * _VIEW + _RAYS)

    def inputs(self, samples: Sequence[Sample], episodes: Sequence[Episode]) -> Float[Tensor, "b c h w"]:
        """Views and rays; zeros for the views that a sample lacks."""
        return torch.stack([self._of_one(sample) for sample in samples]).to(self.device)

    def _of_one(self, sample: Sample) -> Float[Tensor, "c h w"]:
        height, width = sample["images"].shape[-2:]
        size = (height, width)
        query = sample["query_camera"]
        order = sorted(range(len(sample["cameras"])), key=lambda i: _distance_m(sample["cameras"][i], query))
        planes = []
        for i in order[: self.most]:
            image = sample["images"][i].float() / 127.5 - 1
            planes += [image, _rays(sample["cameras"][i], query, size), image.new_ones(1, *size)]
        planes += [torch.zeros((self.most - len(planes) // 3) * _VIEW, *size), _rays(query, query, size)]
        return torch.cat(planes)


def _rays(camera: Camera, query: Camera, size: tuple[int, int]) -> Float[Tensor, "6 h w"]:
    rays = ray_map(camera, (size[0] // BLOCK, size[1] // BLOCK), query)
    return F.interpolate(rays[None], size, mode="bilinear", align_corners=False)[0]


def _distance_m(camera: Camera, query: Camera) -> float:
    return float((camera.world_from_camera - query.world_from_camera)[:3, 3].norm())
