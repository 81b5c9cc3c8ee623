"""Specialists of tasks that ask for a value at every pixel: segmentation, depth, flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from transframer.benchmarks.baselines.encoder_decoder import EncoderDecoder
from transframer.benchmarks.baselines.specialist import Specialist
from transframer.task import Sample
from transframer.tasks.depth_estimation import DepthEstimation
from transframer.tasks.optical_flow import OpticalFlow
from transframer.tasks.semantic_segmentation import IGNORED, SemanticSegmentation

_REACH = 4  # displacements of the cost volume, in cells of 4 pixels, to each side


class SegmentationSpecialist(Specialist):
    """Class scores of every pixel, trained by their cross-entropy."""

    about: ClassVar[str] = "U-Net with a timm ResNet encoder, cross-entropy"

    def __init__(self, task: SemanticSegmentation) -> None:
        super().__init__(task)
        self.network = EncoderDecoder(3, len(task.classes))

    def loss(self, samples: Sequence[Sample]) -> Float[Tensor, ""]:
        """Cross-entropy over the labelled pixels."""
        masks = self.labels(samples, "mask").long()
        return F.cross_entropy(self.network(self.images(samples)), masks, ignore_index=IGNORED)

    def predict(self, samples: Sequence[Sample]) -> list[Tensor]:
        """The likeliest class of each pixel, h x w."""
        return list(self.network(self.images(samples)).argmax(1).cpu())


class DepthSpecialist(Specialist):
    """The logarithm of depth, trained by its absolute error, which is near the relative error of depth."""

    about: ClassVar[str] = "U-Net with a timm ResNet encoder, absolute error of log depth"

    def __init__(self, task: DepthEstimation) -> None:
        super().__init__(task)
        self.nearest_m, self.farthest_m = task.min_depth_m, task.max_depth_m
        self.network = EncoderDecoder(3, 1)

    def loss(self, samples: Sequence[Sample]) -> Float[Tensor, ""]:
        """Mean over the pixels whose depth is known and judged."""
        depth = self.labels(samples, "depth_m")
        judged = (depth >= self.nearest_m) & (depth <= self.farthest_m)
        return (self._log_depth(samples) - depth.clamp(min=self.nearest_m).log()).abs()[judged].mean()

    def predict(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Depth in metres, h x w, within the task's range."""
        return list(self._log_depth(samples).exp().clamp(self.nearest_m, self.farthest_m).cpu())

    def _log_depth(self, samples: Sequence[Sample]) -> Float[Tensor, "b h w"]:
        middle = (self.nearest_m * self.farthest_m) ** 0.5  # where the training starts
        return self.network(self.images(samples))[:, 0] + torch.tensor(middle).log()


class FlowSpecialist(Specialist):
    """Flow from both images and a cost volume of their features, as in FlowNetC (arXiv 1504.06852)."""

    about: ClassVar[str] = "U-Net with a timm ResNet encoder and a cost volume, end-point error"

    def __init__(self, task: OpticalFlow) -> None:
        super().__init__(task)
        self.features = nn.Sequential(
            nn.Conv2d(3, 24, 5, 2, 2, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(inplace=True),
            nn.Conv2d(24, 48, 5, 2, 2, bias=False),
            nn.BatchNorm2d(48),
        )
        self.network = EncoderDecoder(6, 2, (2 * _REACH + 1) ** 2)

    def loss(self, samples: Sequence[Sample]) -> Float[Tensor, ""]:
        """Mean end-point error in pixels over the pixels whose flow is known."""
        error = (self._flow(samples) - self.labels(samples, "flow")).square().sum(1).add(1e-6).sqrt()
        known = [s.get("flow_valid", torch.ones(s["flow"].shape[1:], dtype=torch.bool)) for s in samples]
        return error[torch.stack(known).to(self.device)].mean()

    def predict(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Flow in pixels (x, y), 2 x h x w."""
        return list(self._flow(samples).cpu())

    def _flow(self, samples: Sequence[Sample]) -> Float[Tensor, "b 2 h w"]:
        pair = self.images(samples)
        first, second = self.features(pair.unflatten(1, (2, 3)).flatten(0, 1)).unflatten(0, (-1, 2)).unbind(1)
        return self.network(pair, cost_volume(first, second, _REACH)) * 4  # starts at the scale of motions


def cost_volume(
    first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c h w"], reach: int
) -> Float[Tensor, "b d h w"]:
    """How alike each cell of the first map is to the cells of the second around the same place.

    Args:
        reach: cells to each side; d is (2 * reach + 1) ** 2, row by row.

    Returns:
        Cosine similarities, 0 beyond the border.

    >>> x = F.one_hot(torch.arange(9)).float().T.view(1, 9, 3, 3)  # nine cells, no two alike
    >>> cost_volume(x, x.roll(1, -1), 1)[0, :, 1, 1].tolist()  # all have moved to the right by one
    [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    """
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    height, width = first.shape[2:]
    second = F.pad(second, (reach,) * 4)
    places = [(y, x) for y in range(2 * reach + 1) for x in range(2 * reach + 1)]
    return torch.stack([(first * second[:, :, y : y + height, x : x + width]).sum(1) for y, x in places], 1)
