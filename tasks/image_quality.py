"""What the tasks whose target is a photograph share: PSNR and SSIM, and how such a prediction is handled."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from skimage.metrics import structural_similarity
from torch import Tensor

from transframer.data.formats.images import resize_image, save_png
from transframer.errors import DataError
from transframer.frames import Episode, Frame
from transframer.task import Metric, Sample, Task
from transframer.tasks.uncertainty import colour_deviation, resize_map

IDENTICAL_PSNR_DB = 60.0


def psnr(image: UInt8[Tensor, "3 h w"], truth: UInt8[Tensor, "3 h w"]) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels, at most `IDENTICAL_PSNR_DB`.

    The cap keeps the mean over a set finite where an image is predicted exactly.

    >>> psnr(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.full((3, 8, 8), 255, dtype=torch.uint8))
    0.0
    """
    error = (image.double() - truth.double()).square().mean()
    if error == 0:
        return IDENTICAL_PSNR_DB
    return min(float(10 * torch.log10(255.0**2 / error)), IDENTICAL_PSNR_DB)


def ssim(image: UInt8[Tensor, "3 h w"], truth: UInt8[Tensor, "3 h w"]) -> float:
    """Structural similarity, -1 to 1, with the settings of Wang et al. 2004: Gaussian window, sigma 1.5.

    The mean over channels and over the pixels whose window lies inside the image. Both sides are at least
    11 pixels.

    >>> image = torch.eye(16).mul(255).byte().expand(3, 16, 16)
    >>> ssim(image, image)
    1.0
    """
    return float(
        structural_similarity(
            image.cpu().numpy(),
            truth.cpu().numpy(),
            channel_axis=0,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


@dataclass(frozen=True)
class ImageScore:
    """PSNR in dB and SSIM of one predicted image, and how many steps ahead it was predicted."""

    psnr: float
    ssim: float
    horizon: int = 1


def mean_quality(scores: Sequence[ImageScore]) -> dict[str, float]:
    """PSNR and SSIM of a set: the means of the images' own PSNR and SSIM, nan of an empty set."""
    if not scores:
        return {"psnr": float("nan"), "ssim": float("nan")}
    return {
        "psnr": sum(score.psnr for score in scores) / len(scores),
        "ssim": sum(score.ssim for score in scores) / len(scores),
    }


@dataclass(frozen=True)
class ImageTask(Task[Tensor, ImageScore]):
    """A task whose prediction is a photograph, uint8 3 x h x w. A subclass adds `format` and `floor`."""

    headline: ClassVar[Metric] = Metric("psnr", higher_is_better=True, unit="dB")
    uncertainty_metric: ClassVar[Metric] = Metric("standard deviation", False, "grey levels")
    error_metric: ClassVar[Metric] = Metric("absolute error", False, "grey levels")

    def decode(self, frame: Frame, episode: Episode) -> UInt8[Tensor, "3 h w"]:
        """The predicted frame itself."""
        return frame.image

    def truth(self, sample: Sample) -> UInt8[Tensor, "3 h w"]:
        """The true image."""
        if "target" not in sample:
            raise DataError("the sample has no true image", field="target")
        return sample["target"]

    def combine(self, predictions: Sequence[Tensor]) -> UInt8[Tensor, "3 h w"]:
        """The mean image, which minimises the expected squared error."""
        return rounded(torch.stack(list(predictions)).float().mean(0))

    def uncertainty(
        self, predictions: Sequence[Tensor], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "h w"]:
        """The standard deviation in grey levels of 0-255, root mean square over the channels."""
        return resize_map(colour_deviation(predictions), size)

    def pixel_error(self, prediction: Tensor, sample: Sample) -> Float[Tensor, "h w"]:
        """The absolute difference in grey levels of 0-255, mean over the channels."""
        return (prediction.float() - self.truth(sample).float()).abs().mean(0)

    def score(self, prediction: Tensor, sample: Sample) -> ImageScore:
        """PSNR and SSIM of one image."""
        truth = self.truth(sample)
        return ImageScore(psnr(prediction, truth), ssim(prediction, truth))

    def summarise(self, scores: Sequence[ImageScore]) -> dict[str, float]:
        """`psnr` in dB (the mean of the images' PSNRs) and `ssim`."""
        return mean_quality(scores)

    def draw(self, sample: Sample, prediction: Tensor) -> UInt8[Tensor, "3 h w"]:
        """The image as it is."""
        return prediction

    def write(self, prediction: Tensor, stem: Path, size: tuple[int, int]) -> list[Path]:
        """Saves the image as PNG."""
        path = stem.parent / f"{stem.name}.png"
        save_png(path, resize_image(prediction, size))
        return [path]


def rounded(image: Tensor) -> UInt8[Tensor, "3 h w"]:
    """An image of floats, 0-255, as uint8."""
    return image.round().clamp(0, 255).to(torch.uint8)
