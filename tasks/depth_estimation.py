"""Depth of every pixel from one image: the target is grey by the inverse square root of depth."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NotRequired, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from transframer.data.formats.atomic import whole_file
from transframer.data.formats.images import resize_nearest
from transframer.data.formats.png16 import write_depth_png
from transframer.errors import DataError
from transframer.frames import Annotation, CodecSettings, Episode, Estimate, Frame
from transframer.task import Clip, Metric, Sample, Task
from transframer.tasks.dense_maps import fill_unknown, follow_edges
from transframer.tasks.uncertainty import resize_map, total_deviation


class DepthSample(TypedDict):
    """One image, and the depth of its pixels in metres along the optical axis, 0 where unknown."""

    images: UInt8[Tensor, "1 3 h w"]
    depth_m: NotRequired[Float[Tensor, "h w"]]


@dataclass(frozen=True)
class DepthScore:
    """Means over the judged pixels of one image; nan where there are none."""

    abs_rel: float
    delta1: float
    rmse: float


@dataclass(frozen=True)
class DepthEstimation(Task[Tensor, DepthScore]):
    """Depth estimation. A prediction is a float map h x w, in metres.

    Grey is linear in 1 / sqrt(depth), between inverse depth (a plane is then a linear ramp, which takes few
    tokens, but far depth is coarse) and log depth (the same relative precision everywhere, more tokens).
    Pixels of unknown depth are filled smoothly and never judged; those outside the range are not judged
    either (the protocol of Eigen et al. 2014).

    Attributes:
        min_depth_m: the depth written as white; nearer is clamped.
        max_depth_m: the depth written as black; farther is clamped.
        quality: JPEG quality of the target.
    """

    name: ClassVar[str] = "depth_estimation"
    sample_type: ClassVar[type] = DepthSample
    headline: ClassVar[Metric] = Metric("abs_rel", higher_is_better=False)
    round_trip_bound: ClassVar[float] = 0.045
    estimate: ClassVar[Estimate] = "mean"
    uncertainty_metric: ClassVar[Metric] = Metric("standard deviation of log depth", False)
    error_metric: ClassVar[Metric] = Metric("absolute relative error", False)
    clip: Clip = field(default=Clip())
    min_depth_m: float = 1.0
    max_depth_m: float = 80.0
    quality: int = 43

    def format(self, sample: Sample) -> Episode:
        """The image as context, its depth as the target."""
        query = Annotation("depth", codec=CodecSettings(self.quality))
        target = None
        if "depth_m" in sample:
            depth = sample["depth_m"]
            known = depth.isfinite() & (depth > 0)
            nearness = fill_unknown(self._nearness(depth)[None], known, default=0.5)
            target = Frame((nearness * 255).round().to(torch.uint8).expand(3, -1, -1), query)
        return Episode(self.name, (Frame(sample["images"][0]),), query, target)

    def decode(self, frame: Frame, episode: Episode) -> Float[Tensor, "h w"]:
        """Depth from luma, sharpened along the image's edges; colour in a sampled frame means nothing."""
        red, green, blue = frame.image.float() / 255
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        nearness = follow_edges(luma[None], episode.context[0].image)[0]
        return (nearness * (self._nearest - self._farthest) + self._farthest) ** -2

    def _nearness(self, depth_m: Tensor) -> Float[Tensor, "*n"]:
        """0 at the greatest depth and beyond, 1 at the least depth and nearer."""
        root = depth_m.clamp(self.min_depth_m, self.max_depth_m) ** -0.5
        return (root - self._farthest) / (self._nearest - self._farthest)

    @property
    def _nearest(self) -> float:
        return self.min_depth_m**-0.5

    @property
    def _farthest(self) -> float:
        return self.max_depth_m**-0.5

    def truth(self, sample: Sample) -> Float[Tensor, "h w"]:
        """The true depth, 0 where unknown."""
        if "depth_m" not in sample:
            raise DataError("the sample has no true depth", field="depth_m")
        return sample["depth_m"]

    def combine(self, predictions: Sequence[Tensor]) -> Float[Tensor, "h w"]:
        """The median of log depth at each pixel."""
        return torch.stack(list(predictions)).log().quantile(0.5, dim=0).exp()

    def uncertainty(
        self, predictions: Sequence[Tensor], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "h w"]:
        """The standard deviation of log depth: a share of depth, as the headline is; 0.1 is about 10 %."""
        return resize_map(total_deviation([depth.log()[None] for depth in predictions]), size)

    def pixel_error(self, prediction: Tensor, sample: Sample) -> Float[Tensor, "h w"]:
        """The absolute error as a share of the true depth, nan where that is unknown or out of range."""
        truth = self.truth(sample)
        return ((prediction - truth).abs() / truth).where(self._judged(truth), torch.nan)

    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Tensor]:
        """The median depth at each pixel; where it was never known, the median of all."""
        depths = torch.stack([self.truth(sample) for sample in samples])
        depths = depths.where(self._judged(depths), torch.nan)
        overall = depths.nanmedian()
        median = depths.nanmedian(0).values.where(~depths.isnan().all(0), overall)
        return lambda episode: resize_nearest(median, episode.size)

    def _judged(self, depth: Tensor) -> Bool[Tensor, "*n"]:
        return (depth >= self.min_depth_m) & (depth <= self.max_depth_m)

    def score(self, prediction: Tensor, sample: Sample) -> DepthScore:
        """AbsRel, delta1 and RMSE over the pixels whose true depth is known and in range."""
        truth = self.truth(sample)
        judged = self._judged(truth)
        true, found = truth[judged].double(), prediction[judged].double().clamp(min=1e-6)
        return DepthScore(
            abs_rel=((found - true).abs() / true).mean().item(),
            delta1=(torch.maximum(found / true, true / found) < 1.25).double().mean().item(),
            rmse=(found - true).square().mean().sqrt().item(),
        )

    def summarise(self, scores: Sequence[DepthScore]) -> dict[str, float]:
        """Means over images of `abs_rel`, `delta1` (share of pixels within a factor 1.25), `rmse` (m)."""
        judged = [score for score in scores if not math.isnan(score.abs_rel)]
        return {
            key: float(np.mean([getattr(score, key) for score in judged])) if judged else math.nan
            for key in ("abs_rel", "delta1", "rmse")
        }

    def draw(self, sample: Sample, prediction: Tensor) -> UInt8[Tensor, "3 h w"]:
        """The colours of "turbo", near in red, far in blue, unknown in black."""
        from matplotlib import colormaps  # slow to import, and only needed for pictures

        colours = torch.from_numpy(colormaps["turbo"](self._nearness(prediction).numpy(), bytes=True))
        return colours[..., :3].permute(2, 0, 1) * (prediction > 0)

    def write(self, prediction: Tensor, stem: Path, size: tuple[int, int]) -> list[Path]:
        """Saves a 16-bit PNG in millimetres (up to 65.535 m) and a float32 `.npy` in metres."""
        depth = F.interpolate(prediction[None, None].float(), size, mode="bilinear")[0, 0]
        png, npy = stem.parent / f"{stem.name}.png", stem.parent / f"{stem.name}.npy"
        write_depth_png(png, depth)
        with whole_file(npy) as temporary:
            np.save(temporary, depth.numpy())
        return [png, npy]
