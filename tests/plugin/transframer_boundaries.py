"""Boundaries between classes, from one image: a task that transframer does not know."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NotRequired, TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from transframer.data.formats.images import resize_nearest, save_png
from transframer.frames import Annotation, CodecSettings, Episode, Frame
from transframer.task import Metric, Sample, Task


class BoundarySample(TypedDict):
    """One image, and the class of its pixels, 255 where not labelled."""

    images: UInt8[Tensor, "1 3 h w"]
    mask: NotRequired[Int64[Tensor, "h w"]]


@dataclass(frozen=True)
class BoundaryScore:
    """Counts of pixels: predicted, of these near a true one; true, of these near a predicted one."""

    predicted: int
    right: int
    true: int
    found: int


@dataclass(frozen=True)
class BoundaryDetection(Task[Tensor, BoundaryScore]):
    """Boundary detection. A prediction is a bool map h x w: two classes meet within a pixel.

    Attributes:
        quality: JPEG quality of the target.
    """

    name: ClassVar[str] = "boundary_detection"
    sample_type: ClassVar[type] = BoundarySample
    headline: ClassVar[Metric] = Metric("f1", higher_is_better=True)
    round_trip_bound: ClassVar[float] = 0.97
    quality: int = 10

    def format(self, sample: Sample) -> Episode:
        """The image as context, boundaries in white on black as the target."""
        query = Annotation("boundary", codec=CodecSettings(self.quality))
        target = None
        if "mask" in sample:
            grey = self.truth(sample).to(torch.uint8) * 255
            target = Frame(grey.expand(3, -1, -1).contiguous(), query)
        return Episode(self.name, (Frame(sample["images"][0]),), query, target)

    def decode(self, frame: Frame, episode: Episode) -> Bool[Tensor, "h w"]:
        """Whatever is nearer to white than to black."""
        return frame.image.float().mean(0) > 127.5

    def truth(self, sample: Sample) -> Bool[Tensor, "h w"]:
        """Labelled pixels with two classes in their 3 x 3 neighbourhood."""
        mask = sample["mask"].float()
        known = mask != 255
        largest = _spread(mask.where(known, -torch.inf))
        smallest = -_spread(-mask.where(known, torch.inf))
        return known & (largest > smallest)

    def combine(self, predictions: Sequence[Tensor]) -> Bool[Tensor, "h w"]:
        """A majority vote at each pixel."""
        return torch.stack(list(predictions)).float().mean(0) > 0.5

    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Tensor]:
        """The pixels that are most often a boundary, as many as there are on average."""
        often = torch.stack([self.truth(sample) for sample in samples]).float().mean(0)
        most = often > often.flatten().quantile(1 - often.mean())
        return lambda episode: resize_nearest(most, episode.size)

    def score(self, prediction: Tensor, sample: Sample) -> BoundaryScore:
        """Counts the pixels that agree, a displacement by one pixel forgiven."""
        truth = self.truth(sample)
        near_truth, near_prediction = (_spread(each.float()) > 0 for each in (truth, prediction))
        return BoundaryScore(
            predicted=int(prediction.sum()),
            right=int((prediction & near_truth).sum()),
            true=int(truth.sum()),
            found=int((truth & near_prediction).sum()),
        )

    def summarise(self, scores: Sequence[BoundaryScore]) -> dict[str, float]:
        """`precision`, `recall` and their harmonic mean `f1`, over all pixels together."""
        precision = _ratio(sum(s.right for s in scores), sum(s.predicted for s in scores))
        recall = _ratio(sum(s.found for s in scores), sum(s.true for s in scores))
        defined = not math.isnan(precision + recall)
        f1 = _ratio(2 * precision * recall, precision + recall) if defined else math.nan
        return {"f1": f1, "precision": precision, "recall": recall}

    def draw(self, sample: Sample, prediction: Tensor) -> UInt8[Tensor, "3 h w"]:
        """The boundaries in yellow on the image in half its brightness."""
        yellow = torch.tensor([255, 230, 0], dtype=torch.uint8)[:, None, None]
        return yellow.where(prediction, sample["images"][0] // 2)

    def write(self, prediction: Tensor, stem: Path, size: tuple[int, int]) -> list[Path]:
        """Saves a black and white PNG."""
        path = stem.parent / f"{stem.name}.png"
        white = resize_nearest(prediction, size).to(torch.uint8) * 255
        save_png(path, white.expand(3, -1, -1))
        return [path]


def _spread(values: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    return F.max_pool2d(values[None], 3, stride=1, padding=1)[0]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
