"""Colour of a grey photograph: the target is RGB, coded against the grey: only its chroma costs tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NotRequired, TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import Tensor

from transframer.frames import Annotation, CodecSettings, Episode, Estimate, Frame
from transframer.task import Clip, Sample
from transframer.tasks.chroma_planes import luma
from transframer.tasks.dense_maps import follow_edges
from transframer.tasks.image_quality import ImageScore, ImageTask, mean_quality, rounded


class ColorizationSample(TypedDict):
    """A photograph, of which only the luma is looked at, and the same in colour."""

    images: UInt8[Tensor, "1 3 h w"]
    target: NotRequired[UInt8[Tensor, "3 h w"]]


@dataclass(frozen=True)
class ColorScore(ImageScore):
    """PSNR, SSIM, and the mean colour difference of one image."""

    delta_e: float = 0.0


@dataclass(frozen=True)
class Colorization(ImageTask):
    """Colorization. A prediction is an image, uint8 3 x h x w, with the luma of the given one.

    Attributes:
        quality: JPEG quality of the chroma.
    """

    name: ClassVar[str] = "colorization"
    sample_type: ClassVar[type] = ColorizationSample
    round_trip_bound: ClassVar[float] = 25.0
    estimate: ClassVar[Estimate] = "mean"
    clip: Clip = field(default=Clip(target=(0,)))
    quality: int = 35

    def format(self, sample: Sample) -> Episode:
        """The luma as a grey context image, the photograph as the target, coded against it."""
        context = Frame(rounded(luma(sample["images"][0]).expand(3, -1, -1)), Annotation("grey"))
        query = Annotation(codec=CodecSettings(self.quality, "4:2:0", reference=(1.0,)))
        target = Frame(sample["target"], query) if "target" in sample else None
        return Episode(self.name, (context,), query, target)

    def decode(self, frame: Frame, episode: Episode) -> UInt8[Tensor, "3 h w"]:
        """The frame's chroma, sharpened along the edges of the grey image, on the grey image's luma."""
        grey = episode.context[0].image
        return rounded(grey + follow_edges(frame.image - luma(frame.image), grey))

    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Tensor]:
        """The mean chroma at each pixel, on the luma of the image."""
        images = torch.stack([self.truth(sample) for sample in samples]).float()
        chroma = (images - torch.stack([luma(self.truth(sample)) for sample in samples])).mean(0)
        return lambda episode: rounded(
            episode.context[0].image + F.interpolate(chroma[None], episode.size, mode="bilinear")[0]
        )

    def score(self, prediction: Tensor, sample: Sample) -> ColorScore:
        """PSNR, SSIM and colour difference of one image."""
        quality, truth = super().score(prediction, sample), self.truth(sample)
        found, true = (rgb2lab(image.permute(1, 2, 0).numpy()) for image in (prediction, truth))
        return ColorScore(quality.psnr, quality.ssim, delta_e=float(deltaE_ciede2000(found, true).mean()))

    def summarise(self, scores: Sequence[ColorScore]) -> dict[str, float]:  # type: ignore[override]
        """Means over images of `psnr` (dB) and `ssim` in RGB, and of `delta_e`, the mean difference of the
        pixels by CIEDE2000 (Sharma et al., 2005); about 1 is just noticeable."""
        mean = sum(score.delta_e for score in scores) / len(scores) if scores else float("nan")
        return mean_quality(scores) | {"delta_e": mean}
