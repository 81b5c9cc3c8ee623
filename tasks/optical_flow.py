"""Optical flow between two images: the target holds its horizontal part as Cr, its vertical part as Cb."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NotRequired, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from transframer.data.formats.flo import write_flo
from transframer.data.formats.images import resize_flow
from transframer.errors import DataError
from transframer.frames import Annotation, CodecSettings, Episode, Estimate, Frame
from transframer.task import Clip, Metric, Sample, Task
from transframer.tasks.chroma_planes import chroma_from_image, image_from_chroma
from transframer.tasks.dense_maps import fill_unknown, follow_edges
from transframer.tasks.uncertainty import resize_map, total_deviation

# The colour wheel of Baker et al., A Database and Evaluation Methodology for Optical Flow, 2011: red, yellow,
# green, cyan, blue, magenta and red again, at these of its 55 steps.
_WHEEL_STEPS = (0, 15, 21, 25, 36, 49, 55)
_WHEEL_COLOURS = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0))


class FlowSample(TypedDict):
    """Two images, and the flow from the first to the second in pixels (x, y), with where it is known."""

    images: UInt8[Tensor, "2 3 h w"]
    flow: NotRequired[Float[Tensor, "2 h w"]]
    flow_valid: NotRequired[Bool[Tensor, "h w"]]


@dataclass(frozen=True)
class FlowScore:
    """Sums over the judged pixels of one image pair: end-point errors (px), outliers, clamped, pixels."""

    error_px: float
    outliers: int
    clamped: int
    pixels: int


@dataclass(frozen=True)
class OpticalFlow(Task[Tensor, FlowScore]):
    """Optical flow. A prediction is a float field 2 x h x w, in pixels (x, y).

    The flow is written in the two chroma planes of a grey frame: at half resolution they have a quarter of
    luma's blocks, and the image's edges give the sharpness back. No motion is grey and costs no tokens.

    Attributes:
        max_flow_px: the largest component that can be written; larger ones are clamped, and counted.
        linear_flow_px: about up to here the scale is linear, above it is logarithmic (asinh), so that a wide
            range takes no precision from small motions.
        quality: JPEG quality of the target.
    """

    name: ClassVar[str] = "optical_flow"
    sample_type: ClassVar[type] = FlowSample
    headline: ClassVar[Metric] = Metric("epe", higher_is_better=False, unit="px")
    context_images: ClassVar[tuple[int, int]] = (2, 2)
    round_trip_bound: ClassVar[float] = 0.5
    estimate: ClassVar[Estimate] = "mean"
    uncertainty_metric: ClassVar[Metric] = Metric("standard deviation of flow", False, "px")
    error_metric: ClassVar[Metric] = Metric("end-point error", False, "px")
    clip: Clip = field(default=Clip(frames=2, context=((0, 1),)))
    max_flow_px: float = 32.0
    linear_flow_px: float = 4.0
    quality: int = 87

    def format(self, sample: Sample) -> Episode:
        """The images, told apart by time 0 and 1, as context; the flow of the first as the target."""
        first, second = sample["images"]
        context = (Frame(first, Annotation(time=0.0)), Frame(second, Annotation(time=1.0)))
        query = Annotation("flow", time=0.0, codec=CodecSettings(self.quality))
        target = Frame(self._colours(sample["flow"], _known(sample)), query) if "flow" in sample else None
        return Episode(self.name, context, query, target)

    def _colours(self, flow: Tensor, known: Tensor) -> UInt8[Tensor, "3 h w"]:
        """Grey, plus what the flow adds in Cr and Cb."""
        steps = torch.asinh(fill_unknown(flow, known) / self.linear_flow_px)
        return image_from_chroma(steps / self._most_steps)

    def decode(self, frame: Frame, episode: Episode) -> Float[Tensor, "2 h w"]:
        """Flow from the Cr and Cb of the frame, sharpened along the edges of the first image."""
        steps = chroma_from_image(frame.image) * self._most_steps
        first = min(episode.context, key=lambda image: image.annotation.time or 0.0)
        return follow_edges(torch.sinh(steps) * self.linear_flow_px, first.image)

    @property
    def _most_steps(self) -> float:
        return math.asinh(self.max_flow_px / self.linear_flow_px)

    def truth(self, sample: Sample) -> Float[Tensor, "2 h w"]:
        """The true flow; what it holds where it is not known means nothing."""
        if "flow" not in sample:
            raise DataError("the sample has no true flow", field="flow")
        return sample["flow"]

    def combine(self, predictions: Sequence[Tensor]) -> Float[Tensor, "2 h w"]:
        """The mean flow."""
        return torch.stack(list(predictions)).mean(0)

    def uncertainty(
        self, predictions: Sequence[Tensor], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "h w"]:
        """The root of the summed variances of u and v: the standard deviation of flow, in pixels."""
        _, height, width = predictions[0].shape
        across, down = (1.0, 1.0) if size is None else (size[1] / width, size[0] / height)
        scale = torch.tensor([across, down])[:, None, None]
        return resize_map(total_deviation([flow * scale for flow in predictions]), size)

    def pixel_error(self, prediction: Tensor, sample: Sample) -> Float[Tensor, "h w"]:
        """The end-point error in pixels, nan where the flow is not known."""
        error = (prediction - self.truth(sample)).norm(dim=0)
        return error.where(_known(sample), torch.nan)

    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Tensor]:
        """No motion; needs no samples."""
        return lambda episode: torch.zeros(2, *episode.size)

    def score(self, prediction: Tensor, sample: Sample) -> FlowScore:
        """End-point errors over the pixels whose flow is known, occluded ones too where it is."""
        truth = self.truth(sample)
        known = _known(sample)
        error = (prediction - truth).norm(dim=0)[known].double()
        length = truth.norm(dim=0)[known].double()
        return FlowScore(
            error_px=error.sum().item(),
            outliers=int(((error > 3) & (error > 0.05 * length)).sum()),
            clamped=int((truth.abs().amax(0)[known] > self.max_flow_px).sum()),
            pixels=len(error),
        )

    def summarise(self, scores: Sequence[FlowScore]) -> dict[str, float]:
        """Over all pixels of all pairs: `epe` (px), and in percent `fl_all` and `clamped`.

        `fl_all` counts errors above 3 px and above 5 % of the true length (Menze and Geiger, 2015);
        `clamped` counts true flows beyond `max_flow_px`, which no prediction can reach.
        """
        pixels = sum(score.pixels for score in scores)
        if pixels == 0:
            return dict.fromkeys(("epe", "fl_all", "clamped"), math.nan)
        return {
            "epe": sum(score.error_px for score in scores) / pixels,
            "fl_all": 100 * sum(score.outliers for score in scores) / pixels,
            "clamped": 100 * sum(score.clamped for score in scores) / pixels,
        }

    def draw(self, sample: Sample, prediction: Tensor) -> UInt8[Tensor, "3 h w"]:
        """The flow in Middlebury's colours, at full saturation at the largest true flow of the sample."""
        u, v = prediction.numpy()
        measure = sample["flow"][:, _known(sample)] if "flow" in sample else prediction.flatten(1)
        largest = measure.norm(dim=0).max().item() if measure.numel() else 0.0
        step = (np.arctan2(-v, -u) / math.pi + 1) / 2 * 54
        colours = [np.interp(step, _WHEEL_STEPS, channel) for channel in zip(*_WHEEL_COLOURS, strict=True)]
        length = np.hypot(u, v) / max(largest, 1e-6)
        white = 1 - np.minimum(length, 1) * (1 - np.stack(colours))
        return torch.from_numpy((white * 255).round().astype(np.uint8))

    def write(self, prediction: Tensor, stem: Path, size: tuple[int, int]) -> list[Path]:
        """Saves a `.flo`, its vectors scaled to pixels of `size`."""
        path = stem.parent / f"{stem.name}.flo"
        write_flo(path, resize_flow(prediction.float(), size))
        return [path]


def _known(sample: Sample) -> Bool[Tensor, "h w"]:
    known = sample["flow"].isfinite().all(0)
    return known & sample["flow_valid"] if "flow_valid" in sample else known
