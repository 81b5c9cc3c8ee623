"""Depth of every pixel from one image: the target is the logarithm of depth as grey."""

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
from transframer.frames import Annotation, CodecSettings, Episode, Frame
from transframer.task import Clip, Metric, Sample, Task
from transframer.tasks.filling import fill_unknown


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

    Grey is linear in log depth: an error of one grey level is then the same relative error at any distance,
    1.2 % at the default range. Pixels of unknown depth are filled smoothly and never judged, as are those
    outside the range (the protocol of Eigen et al. 2014).

    Attributes:
        min_depth_m: the depth written as white; nearer is clamped.
        max_depth_m: the depth written as black; farther is clamped.
        quality: JPEG quality of the target.
    """

    name: ClassVar[str] = "depth_estimation"
    sample_type: ClassVar[type] = DepthSample
    headline: ClassVar[Metric] = Metric("abs_rel", higher_is_better=False)
    round_trip_bound: ClassVar[float] = 0.02
    clip: Clip = field(default=Clip())
    min_depth_m: float = 1.0
    max_depth_m: float = 30.0
    quality: int = 50

    def format(self, sample: Sample) -> Episode:
        """The image as context, log depth as the target."""
        query = Annotation("depth", codec=CodecSettings(self.quality))
        target = None
        if "depth_m" in sample:
            depth = sample["depth_m"]
            known = depth.isfinite() & (depth > 0)
            log_depth = fill_unknown(
                depth.clamp(self.min_depth_m, self.max_depth_m).log()[None],
                known,
                default=(math.log(self.min_depth_m) + math.log(self.max_depth_m)) / 2,
            )
            nearness = (math.log(self.max_depth_m) - log_depth) / self._log_range
            target = Frame((nearness * 255).round().to(torch.uint8).expand(3, -1, -1), query)
        return Episode(self.name, (Frame(sample["images"][0]),), query, target)

    def decode(self, frame: Frame, episode: Episode) -> Float[Tensor, "h w"]:
        """Depth from luma (ITU-R BT.601); a sampled frame may have some colour, which means nothing."""
        red, green, blue = frame.image.float() / 255
        nearness = 0.299 * red + 0.587 * green + 0.114 * blue
        return (math.log(self.max_depth_m) - nearness * self._log_range).exp()

    @property
    def _log_range(self) -> float:
        return math.log(self.max_depth_m / self.min_depth_m)

    def truth(self, sample: Sample) -> Float[Tensor, "h w"]:
        """The true depth, 0 where unknown."""
        if "depth_m" not in sample:
            raise DataError("the sample has no true depth", field="depth_m")
        return sample["depth_m"]

    def combine(self, predictions: Sequence[Tensor]) -> Float[Tensor, "h w"]:
        """The median of log depth at each pixel."""
        return torch.stack(list(predictions)).log().quantile(0.5, dim=0).exp()

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
        """Log depth in the colours of "turbo", near in red, far in blue, unknown in black."""
        from matplotlib import colormaps  # slow to import, and only needed for pictures

        nearness = (math.log(self.max_depth_m) - prediction.clamp(min=1e-6).log()) / self._log_range
        colours = torch.from_numpy(colormaps["turbo"](nearness.clamp(0, 1).numpy(), bytes=True))
        return colours[..., :3].permute(2, 0, 1) * (prediction > 0)

    def write(self, prediction: Tensor, stem: Path, size: tuple[int, int]) -> list[Path]:
        """Saves a 16-bit PNG in millimetres (up to 65.535 m) and a float32 `.npy` in metres."""
        depth = F.interpolate(prediction[None, None].float(), size, mode="bilinear")[0, 0]
        png, npy = stem.parent / f"{stem.name}.png", stem.parent / f"{stem.name}.npy"
        write_depth_png(png, depth)
        with whole_file(npy) as temporary:
            np.save(temporary, depth.numpy())
        return [png, npy]
