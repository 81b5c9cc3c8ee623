"""Specialists of recognition: a classifier from timm and torchvision's anchor-free detector."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from transframer.benchmarks.baselines.encoder_decoder import residual_encoder
from transframer.benchmarks.baselines.specialist import Specialist
from transframer.task import Sample
from transframer.tasks.detections import Detections
from transframer.tasks.image_classification import ImageClassification
from transframer.tasks.object_detection import ObjectDetection

_CLASSIFIER_WIDTHS = (64, 128, 192, 256)
_DETECTOR_WIDTHS = (64, 128, 224)
_PYRAMID = 96  # channels of the detector's levels, at 1/4, 1/8 and 1/16
# One "anchor" a cell only tells FCOS each level's unit of length: objects of the world are small.
_UNITS_PX = (4, 8, 16)


class ClassificationSpecialist(Specialist):
    """A ResNet with one score per class."""

    about: ClassVar[str] = "timm ResNet, cross-entropy"

    def __init__(self, task: ImageClassification) -> None:
        super().__init__(task)
        self.network = residual_encoder(3, _CLASSIFIER_WIDTHS, num_classes=len(task.classes))

    def loss(self, samples: Sequence[Sample]) -> Float[Tensor, ""]:
        """Cross-entropy of the classes."""
        return F.cross_entropy(self.network(self.images(samples)), self.labels(samples, "label"))

    def predict(self, samples: Sequence[Sample]) -> list[Tensor]:
        """The probability of each class."""
        return list(self.network(self.images(samples)).softmax(1).cpu())


class _Pyramid(nn.Module):
    """The encoder's stages as a feature pyramid (arXiv 1612.03144)."""

    def __init__(self) -> None:
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        self.out_channels = _PYRAMID
        widths = (*_DETECTOR_WIDTHS, 2 * _DETECTOR_WIDTHS[-1])  # of the last stage, which is not used
        self.encoder = residual_encoder(3, widths, features_only=True, out_indices=(1, 2, 3))
        self.pyramid = FeaturePyramidNetwork(list(_DETECTOR_WIDTHS), _PYRAMID)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Features by level."""
        return self.pyramid(OrderedDict((str(i), x) for i, x in enumerate(self.encoder(images))))


class DetectionSpecialist(Specialist):
    """torchvision's FCOS (arXiv 1904.01355) on a pyramid of a small ResNet."""

    about: ClassVar[str] = "torchvision's FCOS with a timm ResNet encoder"

    def __init__(self, task: ObjectDetection) -> None:
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.fcos import FCOS, FCOSHead

        super().__init__(task)
        self.network = FCOS(
            _Pyramid(),
            len(task.classes),
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            anchor_generator=AnchorGenerator(tuple((px,) for px in _UNITS_PX), ((1.0,),) * len(_UNITS_PX)),
            score_thresh=0.02,
            head=FCOSHead(_PYRAMID, 1, len(task.classes), num_convs=2),
            max_size=1 << 16,
        )

    def loss(self, samples: Sequence[Sample]) -> Float[Tensor, ""]:
        """Focal loss of the classes, generalised IoU of the boxes, cross-entropy of the centredness."""
        targets = [
            {"boxes": s["boxes"].float().to(self.device), "labels": s["box_labels"].long().to(self.device)}
            for s in samples
        ]
        return torch.stack(list(self.network(self._images(samples), targets).values())).sum()

    def predict(self, samples: Sequence[Sample]) -> list[Detections]:
        """The boxes that remain after non-maximum suppression, with their scores."""
        found = self.network(self._images(samples))
        size = tuple(samples[0]["images"].shape[-2:])
        return [
            Detections(f["boxes"].cpu(), f["labels"].cpu(), f["scores"].cpu(), (size[0], size[1]))
            for f in found
        ]

    def _images(self, samples: Sequence[Sample]) -> list[Tensor]:
        # It enlarges images to this side, else to 800 px.
        self.network.transform.min_size = (min(samples[0]["images"].shape[-2:]),)
        return [sample["images"][0].to(self.device).float() / 255 for sample in samples]
