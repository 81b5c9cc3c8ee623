"""View synthesis: 1 to 3 photographs with their cameras, and the camera to see from; the target is RGB."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NotRequired, TypedDict

import torch
from jaxtyping import UInt8
from torch import Tensor

from transframer.errors import DataError
from transframer.frames import Annotation, Camera, CodecSettings, Episode, Estimate, Frame
from transframer.task import Clip, Sample
from transframer.tasks.image_quality import ImageTask


class ViewSample(TypedDict):
    """Images with one camera each, the camera asked for, and the image that it sees."""

    images: UInt8[Tensor, "n 3 h w"]
    cameras: list[Camera]
    query_camera: Camera
    target: NotRequired[UInt8[Tensor, "3 h w"]]


@dataclass(frozen=True)
class ViewSynthesis(ImageTask):
    """View synthesis. A prediction is an image, uint8 3 x h x w.

    Poses are annotated relative to the query camera, so that neither the choice of the world's axes nor the
    order of the views changes the problem.

    Attributes:
        quality: JPEG quality of the target.
        radian_in_m: the move, in metres, that makes a view as unlike the query as a turn by one radian; by
            it the floor finds the nearest view. About the distance of what is looked at.
    """

    name: ClassVar[str] = "view_synthesis"
    sample_type: ClassVar[type] = ViewSample
    context_images: ClassVar[tuple[int, int]] = (1, 3)
    round_trip_bound: ClassVar[float] = 22.5
    estimate: ClassVar[Estimate] = "mean"
    clip: Clip = field(
        default=Clip(frames=4, context=((0,), (0, 1), (0, 1, 2)), target=(3,), step_s=0.5, static=True)
    )
    quality: int = 16
    radian_in_m: float = 5.0

    def format(self, sample: Sample) -> Episode:
        """The views as context, the query camera's image as the target."""
        cameras, query_camera = sample.get("cameras", []), sample.get("query_camera")
        if query_camera is None or len(cameras) != len(sample["images"]):
            raise DataError(
                f"{len(cameras)} cameras for {len(sample['images'])} images, "
                + ("no query camera" if query_camera is None else "and the query camera"),
                field="cameras",
                expected="a camera for each image, and one for the view asked for",
                next_step="give a camera file with intrinsics and world_from_camera",
            )
        query_from_world = torch.linalg.inv(query_camera.world_from_camera)
        context = tuple(
            Frame(image, Annotation(camera=_seen_from(query_from_world, camera)))
            for image, camera in zip(sample["images"], cameras, strict=True)
        )
        query = Annotation(
            camera=_seen_from(query_from_world, query_camera), codec=CodecSettings(self.quality)
        )
        target = Frame(sample["target"], query) if "target" in sample else None
        return Episode(self.name, context, query, target)

    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Tensor]:
        """The context view nearest to the query in position and viewing direction; needs no samples."""
        return lambda episode: min(episode.context, key=self._distance_rad).image

    def _distance_rad(self, view: Frame) -> float:
        assert view.annotation.camera is not None, "format gives every view a camera"
        pose = view.annotation.camera.world_from_camera  # relative to the query, which looks along z from 0
        turn = torch.atan2(pose[:2, 2].norm(), pose[2, 2])
        return float(turn + pose[:3, 3].norm() / self.radian_in_m)


def _seen_from(query_from_world: Tensor, camera: Camera) -> Camera:
    return replace(camera, world_from_camera=query_from_world @ camera.world_from_camera)
