"""The common part of data sets of rectified stereo pairs: depth, flow and a second view in one."""

from __future__ import annotations

import abc
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from transframer.data.dataset import Dataset
from transframer.errors import DataError
from transframer.frames import Camera


@dataclass(frozen=True)
class StereoCalibration:
    """The cameras of a rectified pair, which differ by a shift along x.

    Attributes:
        left: 3 x 3 intrinsics in pixels.
        right: the same focal length, the principal point shifted by `shift_px`.
        shift_px: x of the right principal point less that of the left one (Middlebury's `doffs`).
        baseline_m: from the left camera's centre to the right one's, along x.
        size: height and width of the photographs it is of; None where that is not known.
    """

    left: Float[Tensor, "3 3"]
    right: Float[Tensor, "3 3"]
    shift_px: float
    baseline_m: float
    size: tuple[int, int] | None = None

    def cameras(self) -> tuple[Camera, Camera]:
        """The left camera, at the world's origin, and the right one."""
        right_pose = torch.eye(4)
        right_pose[0, 3] = self.baseline_m
        return Camera(self.left, torch.eye(4)), Camera(self.right, right_pose)

    def depth_m(self, disparity_px: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
        """Metres along the optical axis, 0 where the disparity is unknown or of a point behind infinity.

        >>> ideal = StereoCalibration(torch.diag(torch.tensor([1000.0, 1000, 1])), torch.eye(3), 10.0, 0.2)
        >>> ideal.depth_m(torch.tensor([[40.0, torch.inf]]))
        tensor([[4., 0.]])
        """
        shift = disparity_px + self.shift_px
        depth = self.left[0, 0] * self.baseline_m / shift
        return depth.where(disparity_px.isfinite() & (shift > 0), torch.zeros(()))


class StereoPair(abc.ABC):
    """The photographs of a scene and the disparity of the left one."""

    @abc.abstractmethod
    def photograph(self, side: int) -> UInt8[Tensor, "3 h w"]:
        """The left (0) or the right (1) photograph."""

    @abc.abstractmethod
    def disparity_px(self) -> Float[Tensor, "h w"]:
        """How far to the left a pixel of the left photograph is in the right one; not finite: unknown."""

    @abc.abstractmethod
    def calibration(self) -> StereoCalibration:
        """The cameras, at the size of the photographs."""

    @property
    @abc.abstractmethod
    def files(self) -> Sequence[Path]:
        """The files of the scene."""


class StereoDataset(Dataset):
    """One record for each pair, with depth, flow and cameras.

    The left photograph is the image of a record. Where `flow` or `flow_valid` is among the keys, `images`
    holds both photographs and `cameras` both cameras, since flow leads from the first to the second. Of a
    clip in which only the camera moves, the target is the right photograph if the record also asks for
    `query_camera`; of a clip of one frame it is the left one itself, as of any still (colourisation,
    super-resolution). There is none of a video.

    A vertical offset between the photographs, below a pixel in rectified pairs, is taken for 0.
    """

    @property
    @abc.abstractmethod
    def stereo_pairs(self) -> Sequence[StereoPair]:
        """The pairs of the split."""

    @property
    def fields(self) -> frozenset[str]:
        """Photographs, depth, flow and cameras; with a target that the pair has, also the right view."""
        fields = frozenset({"images", "depth_m", "flow", "flow_valid", "cameras"})
        has_target = self.clip.asks_for_its_image or (self.clip.static and self.clip.target)
        return fields | ({"target", "query_camera"} if has_target else set())

    def __len__(self) -> int:
        return len(self.stereo_pairs)

    def files(self, index: int) -> Sequence[Path]:
        """Photographs, disparity and calibration."""
        return self.stereo_pairs[index].files

    def record(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """See `Dataset.record`, and the class for what decides between one photograph and two."""
        pair, keys = self.stereo_pairs[index], self.fields.intersection(keys)
        left = pair.photograph(0)
        both = bool(keys & {"flow", "flow_valid"})
        other_view = {"target", "query_camera"} <= keys
        right = pair.photograph(1) if both or other_view else left
        _check_size(right, left, pair, "the right photograph")
        record: dict[str, Any] = {"images": torch.stack([left, right] if both else [left])}
        if "target" in keys:
            record["target"] = right if other_view else left
        if keys & {"cameras", "query_camera"}:
            cameras = _calibration(pair, left).cameras()
            record |= {"cameras": list(cameras if both else cameras[:1]), "query_camera": cameras[1]}
        if both or "depth_m" in keys:
            disparity = pair.disparity_px()
            _check_size(disparity, left, pair, "the disparity")
            known = disparity.isfinite()
            shift = disparity.where(known, torch.zeros(()))
            record |= {"flow": torch.stack([-shift, torch.zeros_like(shift)]), "flow_valid": known}
            if "depth_m" in keys:
                record["depth_m"] = _calibration(pair, left).depth_m(disparity)
        return {key: value for key, value in record.items() if key in keys | {"images"}}


def _calibration(pair: StereoPair, left: Tensor) -> StereoCalibration:
    calibration = pair.calibration()
    if calibration.size is not None and calibration.size != tuple(left.shape[1:]):
        raise DataError(
            f"a calibration for {calibration.size[1]} x {calibration.size[0]} pixels",
            file=", ".join(map(str, pair.files)),
            expected=f"{left.shape[2]} x {left.shape[1]}, as the left photograph",
            next_step="take photographs, disparity and calibration from one download",
        )
    return calibration


def _check_size(found: Tensor, left: Tensor, pair: StereoPair, what: str) -> None:
    if found.shape[-2:] != left.shape[-2:]:
        raise DataError(
            f"{what} has {found.shape[-1]} x {found.shape[-2]} pixels",
            file=", ".join(map(str, pair.files)),
            expected=f"{left.shape[-1]} x {left.shape[-2]}, as the left photograph",
        )
