"""Video prediction: past frames and the time asked for; the target is RGB, coded against the latest frame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NotRequired, TypedDict

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from transframer.errors import DataError
from transframer.frames import Annotation, CodecSettings, Episode, Estimate, Frame
from transframer.task import Clip, Sample
from transframer.tasks.image_quality import ImageScore, ImageTask, mean_quality


class VideoSample(TypedDict):
    """Past frames in any order, their times, the time asked for, and the frame then.

    Times are in any unit, those of a single frame in seconds. Without times the frames are one step apart;
    without a query time the next one is asked for.
    """

    images: UInt8[Tensor, "n 3 h w"]
    times: NotRequired[Float[Tensor, " n"]]
    query_time: NotRequired[float]
    target: NotRequired[UInt8[Tensor, "3 h w"]]


@dataclass(frozen=True)
class VideoPrediction(ImageTask):
    """Video prediction. A prediction is an image, uint8 3 x h x w.

    Times are annotated in steps (the mean spacing of the given frames; of a single one, the clip's step) from
    the latest frame, so that a clip poses the same problem at any frame rate and in any unit. Training also
    gives one or two frames, so that a video can start from an image.

    Attributes:
        quality: JPEG quality of the residual against the latest frame.
    """

    name: ClassVar[str] = "video_prediction"
    sample_type: ClassVar[type] = VideoSample
    context_images: ClassVar[tuple[int, int]] = (1, 32)
    round_trip_bound: ClassVar[float] = 22.0
    estimate: ClassVar[Estimate] = "mean"
    clip: Clip = field(
        default=Clip(
            frames=6,
            context=((0, 1, 2),),
            target=(3, 4, 5),
            step_s=0.1,
            training_context=((1, 2), (2,)),
        )
    )
    quality: int = 10

    def format(self, sample: Sample) -> Episode:
        """The past frames as context, the frame asked for as the target."""
        steps, query_step = self._steps(sample)
        context = tuple(
            Frame(image, Annotation(time=step)) for image, step in zip(sample["images"], steps, strict=True)
        )
        latest = tuple(float(index == steps.index(max(steps))) for index in range(len(steps)))
        query = Annotation(time=query_step, codec=CodecSettings(self.quality, "4:4:4", latest))
        target = Frame(sample["target"], query) if "target" in sample else None
        return Episode(self.name, context, query, target)

    def _steps(self, sample: Sample) -> tuple[list[float], float]:
        """Times of the frames and of the query, in steps from the latest frame."""
        count = len(sample["images"])
        in_steps = torch.arange(count) * self.clip.step_s
        times = torch.as_tensor(sample.get("times", in_steps)).double()
        latest, earliest = times.max().item(), times.min().item()
        if len(times) != count or not (latest > earliest or (count == 1 and latest == earliest)):
            raise DataError(
                f"times {times.tolist()} for {count} frames",
                field="times",
                expected="one each, not all the same",
            )
        spacing = (latest - earliest) / (count - 1) if count > 1 else self.clip.step_s
        query_step = (float(sample.get("query_time", latest + spacing)) - latest) / spacing
        if not query_step > 0:
            raise DataError("a query time in the past", field="query_time", expected=f"after {latest:g}")
        return [(time - latest) / spacing for time in times.tolist()], query_step

    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Tensor]:
        """The latest frame again; needs no samples."""
        return lambda episode: max(episode.context, key=lambda frame: frame.annotation.time or 0.0).image

    def score(self, prediction: Tensor, sample: Sample) -> ImageScore:
        """PSNR and SSIM of one image, and how many steps after the latest frame it was asked for."""
        quality = super().score(prediction, sample)
        return ImageScore(quality.psnr, quality.ssim, horizon=max(1, round(self._steps(sample)[1])))

    def summarise(self, scores: Sequence[ImageScore]) -> dict[str, float]:
        """`psnr` (dB) and `ssim` over all, and `psnr_h1`, `psnr_h2`, ... by steps ahead."""
        horizons = {score.horizon for score in scores} | set(range(1, 1 + len(self.clip.target)))
        return mean_quality(scores) | {
            f"psnr_h{step}": mean_quality([score for score in scores if score.horizon == step])["psnr"]
            for step in sorted(horizons)
        }
