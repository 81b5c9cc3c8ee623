"""Surface normals from one image: the target is grey, tinted by where each surface faces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NotRequired, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from transframer.data.formats.atomic import whole_file
from transframer.data.formats.images import save_png
from transframer.errors import DataError
from transframer.frames import Annotation, CodecSettings, Episode, Estimate, Frame
from transframer.task import Metric, Sample, Task
from transframer.tasks.chroma_planes import chroma_from_image, image_from_chroma
from transframer.tasks.dense_maps import fill_unknown, follow_edges
from transframer.tasks.directions import AngleScore, angle_deg, angle_metrics, known, resized, score_angles
from transframer.tasks.uncertainty import resize_map


class NormalsSample(TypedDict):
    """One image, and unit normals in the camera's axes (x right, y down, z forward), 0 where unknown."""

    images: UInt8[Tensor, "1 3 h w"]
    normals: NotRequired[Float[Tensor, "3 h w"]]


@dataclass(frozen=True)
class SurfaceNormals(Task[Tensor, AngleScore]):
    """Surface normals. A prediction is a float map 3 x h x w of unit vectors.

    Two numbers say where a unit vector points: those of its stereographic projection, 0 for a surface that
    faces the camera, of length 1 for one seen edge-on. They are the chroma of a grey frame, which takes half
    the tokens of the vector as RGB. Unknown pixels are filled smoothly and never judged.

    Attributes:
        quality: JPEG quality of the target.
    """

    name: ClassVar[str] = "surface_normals"
    sample_type: ClassVar[type] = NormalsSample
    headline: ClassVar[Metric] = Metric("mean_angle", higher_is_better=False, unit="deg")
    round_trip_bound: ClassVar[float] = 9.0
    estimate: ClassVar[Estimate] = "mean"
    uncertainty_metric: ClassVar[Metric] = Metric("spread of the normals", False, "deg")
    error_metric: ClassVar[Metric] = Metric("angular error", False, "deg")
    quality: int = 25

    def format(self, sample: Sample) -> Episode:
        """The image as context, the tinted grey as the target."""
        query = Annotation("normals", codec=CodecSettings(self.quality, "4:4:4"))
        target = None
        if "normals" in sample:
            x, y, z = sample["normals"]
            plane = fill_unknown(torch.stack([x, y]) / (1 - z).clamp(min=0.1), known(sample["normals"]))
            target = Frame(image_from_chroma(plane), query)
        return Episode(self.name, (Frame(sample["images"][0]),), query, target)

    def decode(self, frame: Frame, episode: Episode) -> Float[Tensor, "3 h w"]:
        """The plane wrapped around the sphere again, sharpened along the edges of the image."""
        plane = chroma_from_image(frame.image)
        square = plane.square().sum(0, keepdim=True)
        normals = torch.cat([2 * plane, square - 1]) / (1 + square)
        return F.normalize(follow_edges(normals, episode.context[0].image), dim=0)

    def truth(self, sample: Sample) -> Float[Tensor, "3 h w"]:
        """The true normals, 0 where unknown."""
        if "normals" not in sample:
            raise DataError("the sample has no true normals", field="normals")
        return sample["normals"]

    def combine(self, predictions: Sequence[Tensor]) -> Float[Tensor, "3 h w"]:
        """The mean direction."""
        return F.normalize(torch.stack(list(predictions)).mean(0), dim=0)

    def uncertainty(
        self, predictions: Sequence[Tensor], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "h w"]:
        """The mean angle between the predictions and their mean direction, in degrees."""
        mean = self.combine(predictions)
        return resize_map(torch.stack([angle_deg(each, mean) for each in predictions]).mean(0), size)

    def pixel_error(self, prediction: Tensor, sample: Sample) -> Float[Tensor, "h w"]:
        """The angle to the true normal in degrees, nan where that is unknown."""
        truth = self.truth(sample)
        return angle_deg(prediction, truth).where(known(truth), torch.nan)

    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Tensor]:
        """The mean direction at each pixel; where it was never known, the mean of all."""
        total = torch.stack([self.truth(sample) for sample in samples]).sum(0)
        mean = F.normalize(total.where(total.norm(dim=0) > 0, total.sum((1, 2), keepdim=True)), dim=0)
        return lambda episode: resized(mean, episode.size)

    def score(self, prediction: Tensor, sample: Sample) -> AngleScore:
        """The angles of the pixels whose true normal is known."""
        return score_angles(self.pixel_error(prediction, sample)[known(self.truth(sample))])

    def summarise(self, scores: Sequence[AngleScore]) -> dict[str, float]:
        """Over all known pixels: `mean_angle`, `median_angle`, and the percentages `within_11`, ... of 11.25,
        22.5 and 30 degrees."""
        return angle_metrics(scores)

    def draw(self, sample: Sample, prediction: Tensor) -> UInt8[Tensor, "3 h w"]:
        """Red to the right, green upwards, blue towards the camera; black where unknown."""
        axes = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
        colours = (127.5 * (1 + axes * prediction)).round().clamp(0, 255).to(torch.uint8)
        return colours * (prediction.norm(dim=0) > 0)

    def write(self, prediction: Tensor, stem: Path, size: tuple[int, int]) -> list[Path]:
        """Saves a float32 `.npy` (3 x h x w, x right, y down, z forward), and what `draw` shows as PNG."""
        normals = resized(prediction, size)
        npy, png = (stem.parent / (stem.name + suffix) for suffix in (".npy", ".png"))
        with whole_file(npy) as temporary:
            np.save(temporary, normals.numpy())
        save_png(png, self.draw({}, normals))
        return [npy, png]
