"""Super-resolution: the small image enlarged is the context; the target is RGB, coded against it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NotRequired, TypedDict

from jaxtyping import UInt8
from torch import Tensor

from transframer.data.formats.images import resize_image
from transframer.errors import DataError
from transframer.frames import Annotation, CodecSettings, Episode, Estimate, Frame
from transframer.task import Clip, Sample
from transframer.tasks.image_quality import ImageTask


class SuperResolutionSample(TypedDict):
    """The blurred image at the size of the sharp one, and the sharp one.

    With `target`, `images` is not looked at: the blurred image is made from the target. Without, it is the
    small image, already enlarged.
    """

    images: UInt8[Tensor, "1 3 h w"]
    target: NotRequired[UInt8[Tensor, "3 h w"]]


@dataclass(frozen=True)
class SuperResolution(ImageTask):
    """Super-resolution. A prediction is an image, uint8 3 x h x w.

    Attributes:
        scale: how many times larger both sides become.
        quality: JPEG quality of the residual against the bicubic enlargement.
    """

    name: ClassVar[str] = "super_resolution"
    sample_type: ClassVar[type] = SuperResolutionSample
    round_trip_bound: ClassVar[float] = 28.0
    estimate: ClassVar[Estimate] = "mean"
    clip: Clip = field(default=Clip(target=(0,)))
    scale: int = 4
    quality: int = 16

    def format(self, sample: Sample) -> Episode:
        """The enlarged image as context, the sharp one as the target, coded against it.

        Raises:
            DataError: a target with fewer pixels on a side than `scale`.
        """
        query = Annotation(codec=CodecSettings(self.quality, "4:4:4", reference=(1.0,)))
        if "target" not in sample:
            return Episode(self.name, (Frame(sample["images"][0]),), query)
        target = sample["target"]
        return Episode(self.name, (Frame(self._blurred(target)),), query, Frame(target, query))

    def _blurred(self, image: Tensor) -> UInt8[Tensor, "3 h w"]:
        """Shrunk by the antialiased bicubic filter, as benchmarks make their small images, and enlarged."""
        height, width = image.shape[1:]
        if min(height, width) < self.scale:
            raise DataError(
                f"an image of {height} x {width} pixels", expected=f"at least {self.scale} a side"
            )
        small = resize_image(image, (height // self.scale, width // self.scale))
        return resize_image(small, (height, width))

    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Tensor]:
        """The bicubic enlargement itself; needs no samples."""
        return lambda episode: episode.context[0].image

    def write(self, prediction: Tensor, stem: Path, size: tuple[int, int]) -> list[Path]:
        """Saves the image as PNG, `scale` times as large as the given one."""
        return super().write(prediction, stem, (size[0] * self.scale, size[1] * self.scale))
