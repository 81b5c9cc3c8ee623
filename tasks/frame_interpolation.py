"""Frame interpolation: the two ends and a time between; the target is RGB, coded against their blend."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NotRequired, TypedDict

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from transframer.errors import DataError
from transframer.frames import Annotation, CodecSettings, Episode, Estimate, Frame
from transframer.task import Clip, Sample
from transframer.tasks.image_quality import ImageTask, rounded


class InterpolationSample(TypedDict):
    """The two ends, their times, the time asked for, and the frame then. Without times: 0, 1, and midway."""

    images: UInt8[Tensor, "2 3 h w"]
    times: NotRequired[Float[Tensor, " 2"]]
    query_time: NotRequired[float]
    target: NotRequired[UInt8[Tensor, "3 h w"]]


@dataclass(frozen=True)
class FrameInterpolation(ImageTask):
    """Frame interpolation. A prediction is an image, uint8 3 x h x w.

    Times are annotated as 0 at the earlier end and 1 at the later one, so that they mean the same at any
    frame rate.

    Attributes:
        quality: JPEG quality of the residual against the linear blend of the ends.
    """

    name: ClassVar[str] = "frame_interpolation"
    sample_type: ClassVar[type] = InterpolationSample
    context_images: ClassVar[tuple[int, int]] = (2, 2)
    round_trip_bound: ClassVar[float] = 22.0
    estimate: ClassVar[Estimate] = "mean"
    clip: Clip = field(default=Clip(frames=5, context=((0, 4),), target=(1, 2, 3), step_s=0.1))
    quality: int = 9

    def format(self, sample: Sample) -> Episode:
        """The two ends as context, the frame between as the target."""
        times = torch.as_tensor(sample.get("times", torch.arange(2))).double()
        start, end = times.min().item(), times.max().item()
        if len(times) != 2 or len(sample["images"]) != 2 or not end > start:
            raise DataError(
                f"times {times.tolist()} for {len(sample['images'])} frames",
                field="times",
                expected="two frames at two different times",
            )
        query_time = (float(sample.get("query_time", (start + end) / 2)) - start) / (end - start)
        if not 0 <= query_time <= 1:
            raise DataError(
                "a query time that is not between the frames",
                field="query_time",
                expected=f"{start:g} to {end:g}",
            )
        ends = ((times - start) / (end - start)).tolist()
        context = tuple(
            Frame(image, Annotation(time=time)) for image, time in zip(sample["images"], ends, strict=True)
        )
        blend = tuple(1 - abs(query_time - time) for time in ends)
        query = Annotation(time=query_time, codec=CodecSettings(self.quality, "4:4:4", blend))
        target = Frame(sample["target"], query) if "target" in sample else None
        return Episode(self.name, context, query, target)

    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Tensor]:
        """The blend of the two ends, weighted by time; needs no samples."""
        return _blend


def _blend(episode: Episode) -> UInt8[Tensor, "3 h w"]:
    blend = episode.reference_image()
    assert blend is not None, "format codes every target against the blend"
    return rounded(blend)
