"""Frames, their annotations, and the episode: context frames + query annotation -> target frame."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from transframer.errors import ConfigError, DataError

Subsampling = Literal["4:2:0", "4:4:4"]
Estimate = Literal["mode", "median", "mean"]
ESTIMATES: tuple[Estimate, ...] = get_args(Estimate)


@dataclass(frozen=True)
class CodecSettings:
    """How a frame is coded into sparse DCT triples.

    Attributes:
        quality: JPEG quality, 1 (coarse) to 100 (fine); scales the quantisation table as libjpeg does.
        subsampling: "4:2:0" halves the two chroma planes in both directions, "4:4:4" keeps them.
        reference: one weight per context frame. Where given, the frame is coded as the residual against
            the weighted sum of the context images (video: the last frame; interpolation: the blend).
    """

    quality: int = 50
    subsampling: Subsampling = "4:2:0"
    reference: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"JPEG quality {self.quality}", field="quality", expected="1 to 100")
        if self.subsampling not in ("4:2:0", "4:4:4"):
            raise ConfigError(
                f"subsampling {self.subsampling!r}", field="subsampling", expected="4:2:0 or 4:4:4"
            )


@dataclass(frozen=True)
class Camera:
    """A pinhole camera, in the OpenCV convention: x right, y down, z forward, pixel centres at +0.5.

    Attributes:
        intrinsics: 3 x 3, in pixels of the frame the camera belongs to.
        world_from_camera: 4 x 4 rigid transform, metres.
    """

    intrinsics: Float[Tensor, "3 3"]
    world_from_camera: Float[Tensor, "4 4"]

    def resized(self, scale_x: float, scale_y: float) -> Camera:
        """The same camera for an image resized by these factors."""
        scale = torch.tensor([[scale_x], [scale_y], [1.0]], dtype=self.intrinsics.dtype)
        return replace(self, intrinsics=self.intrinsics * scale)


@dataclass(frozen=True)
class Annotation:
    """What is known about a frame besides its pixels.

    Attributes:
        kind: what the pixels mean: "rgb", "depth", "segmentation", "flow", ... A task may name a new one.
        time: seconds or frame index, in the unit of the episode; None where time has no meaning.
        camera: the camera that sees the frame, None where unknown.
        codec: how the frame is coded.
    """

    kind: str = "rgb"
    time: float | None = None
    camera: Camera | None = None
    codec: CodecSettings = field(default_factory=CodecSettings)


@dataclass(frozen=True)
class Frame:
    """An RGB image with its annotation.

    Attributes:
        image: uint8, 3 x h x w, sRGB, 0-255.
    """

    image: UInt8[Tensor, "3 h w"]
    annotation: Annotation = field(default_factory=Annotation)

    def __post_init__(self) -> None:
        if self.image.dtype != torch.uint8 or self.image.ndim != 3 or self.image.shape[0] != 3:
            raise DataError(
                f"an image of {self.image.dtype} {tuple(self.image.shape)}", expected="uint8 of 3 x h x w"
            )


@dataclass(frozen=True)
class Episode:
    """One prediction problem: context frames, the annotation of the frame asked for, and that frame.

    Attributes:
        task: the task's registered name.
        context: the frames given; their order carries no meaning, their annotations do.
        query: the annotation of the target frame.
        target: the frame to predict; None at inference. Its annotation is `query`.
    """

    task: str
    context: tuple[Frame, ...]
    query: Annotation
    target: Frame | None = None

    def __post_init__(self) -> None:
        if not self.context:
            raise DataError("an episode without context frames", expected="at least one")
        frames = (*self.context, self.target) if self.target is not None else self.context
        sizes = {tuple(frame.image.shape[1:]) for frame in frames}
        if len(sizes) != 1:
            raise DataError(f"frames of different sizes {sorted(sizes)}", expected="one size in an episode")
        weights = self.query.codec.reference
        if weights is not None and len(weights) != len(self.context):
            raise ConfigError(
                f"{len(weights)} reference weights for {len(self.context)} context frames",
                field="reference",
                expected="one weight per context frame",
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.context[0].image.shape[1], self.context[0].image.shape[2]

    def reference_image(self) -> Float[Tensor, "3 h w"] | None:
        """The weighted sum of context images that the target is coded against, 0-255, or None."""
        weights = self.query.codec.reference
        if weights is None:
            return None
        parts = (w * frame.image.float() for w, frame in zip(weights, self.context, strict=True) if w)
        return sum(parts, torch.zeros(3, *self.size))

    def without_target(self) -> Episode:
        """The same problem as it stands at inference."""
        return replace(self, target=None)
