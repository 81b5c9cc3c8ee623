"""The real stereo pair that scikit-image ships: Middlebury 2014 "Motorcycle", with measured disparity.

Two rectified photographs of 741 x 500 pixels and the disparity of the left one. They are part of
scikit-image's wheel, so nothing is downloaded. A rectified pair is at once a flow problem (flow is minus the
disparity), a depth problem and a view-synthesis problem. It is one scene: it tells whether a model carries
over to real input, not how good it is in general.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from transframer.data.datasets.stereo import StereoCalibration, StereoDataset, StereoPair
from transframer.data.formats.images import resize_image, resize_nearest
from transframer.errors import DataError
from transframer.frames import Camera
from transframer.task import Clip

# Calibration of the pair at this size, from scikit-image's documentation of `stereo_motorcycle`.
_FOCAL_PX, _PRINCIPAL_X_PX, _PRINCIPAL_Y_PX = 994.978, 311.193, 254.877
_PRINCIPAL_SHIFT_PX, _BASELINE_M = 31.086, 0.193001
# Crops: the whole height in three steps across, and half of it in two rows of three.
_CROPS = [(500, top, left) for top in (0,) for left in (0, 120, 241)] + [
    (250, top, left) for top in (0, 250) for left in (0, 245, 491)
]
# Crops of the data set: from the columns 0-369, 370-490 and 491-740, so that no two splits share any.
_SPLIT_CROPS = {
    "train": [(250, top, left) for top in (0, 125, 250) for left in (0, 60, 120)]
    + [(125, top, left) for top in (0, 125, 250, 375) for left in (0, 122, 245)],
    "validation": [(121, top, 370) for top in (0, 126, 253, 379)],
    "test": [(250, top, 491) for top in (0, 250)]
    + [(125, top, left) for top in (0, 125, 250, 375) for left in (491, 616)],
}


class Motorcycle(StereoDataset):
    """Square crops of the pair at its own pixels, see `StereoDataset` for their fields.

    There is one scene, so the splits are parts of it: "train" is the left half (columns 0 to 369), "test" the
    right third (491 to 740), "validation" the strip between. No pixel of either photograph is in two splits;
    and since the strip (121 columns) is wider than the greatest disparity (60), no point of the scene that
    "train" shows in one photograph is in "test" in the other; both share such points with the
    strip. Crops are of 250 and 125 pixels (121 in the strip); those of one split overlap. A model fine-tuned
    on "train" has seen the same motorcycle, in the same light, before its "test": what it scores says that
    fine-tuning works, and no more.

    `motorcycle_samples` has other crops, over the whole picture: do not test with it what was trained here.

    Args:
        root: not used; the pair lies in scikit-image.
    """

    name: ClassVar[str] = "motorcycle"
    summary: ClassVar[str] = "the stereo pair that scikit-image ships (Middlebury 2014), cut into three parts"
    protocol: ClassVar[Mapping[str, str]] = {
        "ignored": "pixels of unknown disparity (7 %)",
        "reference": "Scharstein et al., High-Resolution Stereo Datasets, GCPR 2014; the split is this "
        "toolkit's own, of one scene",
    }

    def __init__(
        self, root: Path | str = "motorcycle", split: str = "train", clip: Clip | None = None
    ) -> None:
        super().__init__(root, split, clip)
        self._crops = [_Crop(*crop) for crop in _SPLIT_CROPS[split]]

    @property
    def stereo_pairs(self) -> Sequence[StereoPair]:
        """See `StereoDataset.stereo_pairs`."""
        return self._crops


@dataclass(frozen=True)
class _Crop(StereoPair):
    side_px: int
    top: int
    left: int

    def photograph(self, side: int) -> UInt8[Tensor, "3 h w"]:
        """See `StereoPair.photograph`."""
        return self._window(_pair()[side])

    def disparity_px(self) -> Float[Tensor, "h w"]:
        """See `StereoPair.disparity_px`."""
        _, _, disparity, valid = _pair()
        return self._window(disparity.where(valid, torch.tensor(torch.inf)))

    def calibration(self) -> StereoCalibration:
        """See `StereoPair.calibration`."""
        left, right = (
            _camera(_PRINCIPAL_X_PX + shift - self.left, _PRINCIPAL_Y_PX - self.top, 0.0).intrinsics
            for shift in (0.0, _PRINCIPAL_SHIFT_PX)
        )
        return StereoCalibration(left, right, _PRINCIPAL_SHIFT_PX, _BASELINE_M)

    @property
    def files(self) -> Sequence[Path]:
        """See `StereoPair.files`."""
        import skimage.data

        folder = Path(skimage.data.__path__[0])
        return [folder / f"motorcycle_{name}" for name in ("left.png", "right.png", "disp.npz")]

    def _window(self, values: Tensor) -> Tensor:
        rows, columns = (slice(start, start + self.side_px) for start in (self.top, self.left))
        return values[..., rows, columns].clone(memory_format=torch.contiguous_format)


def motorcycle_samples(sample_type: type, size_px: int) -> list[dict[str, Any]]:
    """Nine square crops of the pair as samples of a task, in the vocabulary of `transframer.task.Task`.

    Labels are taken at the nearest pixel; unknown disparity (7 %) gives depth 0 and `flow_valid` False.
    Crops of both photographs share one window, so flow and cameras stay exact.

    Args:
        sample_type: a task's TypedDict, with `flow`, `depth_m` or `query_camera` among its keys.
        size_px: height and width of the samples.

    Raises:
        DataError: the pair has no label of this type.
    """
    keys = set(sample_type.__required_keys__ | sample_type.__optional_keys__)  # type: ignore[attr-defined]
    if not keys & {"flow", "depth_m", "query_camera"}:
        raise DataError(
            f"samples of {', '.join(sorted(keys))}",
            file="motorcycle",
            expected="a task whose samples have depth_m, flow or query_camera",
        )
    left, right, disparity, valid = _pair()
    samples = [_sample(left, right, disparity, valid, crop, size_px) for crop in _CROPS]
    if "flow" in keys:
        samples = [
            {**sample, "images": torch.stack([sample["images"][0], sample["target"]])} for sample in samples
        ]
    return [{key: value for key, value in sample.items() if key in keys} for sample in samples]


@functools.cache
def _pair() -> tuple[
    UInt8[Tensor, "3 h w"], UInt8[Tensor, "3 h w"], Float[Tensor, "h w"], Bool[Tensor, "h w"]
]:
    from skimage.data import stereo_motorcycle  # slow to import, and only needed here

    left, right, disparity = stereo_motorcycle()
    images = [torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in (left, right)]
    disparity = torch.from_numpy(disparity)
    valid = disparity.isfinite()
    return images[0], images[1], disparity.where(valid, torch.zeros(())), valid


def _sample(
    left: Tensor, right: Tensor, disparity: Tensor, valid: Tensor, crop: tuple[int, int, int], size_px: int
) -> dict[str, Any]:
    side, y, x = crop
    window = (slice(y, y + side), slice(x, x + side))
    size, scale = (size_px, size_px), size_px / side
    images = [resize_image(image[:, *window].contiguous(), size) for image in (left, right)]
    known = resize_nearest(valid[window], size)
    shift = resize_nearest(disparity[window], size)
    depth = _FOCAL_PX * _BASELINE_M / (shift + _PRINCIPAL_SHIFT_PX)
    return {
        "images": images[0][None],
        "target": images[1],
        "times": torch.zeros(1),
        "query_time": 0.0,
        "cameras": [_camera(_PRINCIPAL_X_PX - x, _PRINCIPAL_Y_PX - y, 0.0).resized(scale, scale)],
        "query_camera": _camera(
            _PRINCIPAL_X_PX + _PRINCIPAL_SHIFT_PX - x, _PRINCIPAL_Y_PX - y, _BASELINE_M
        ).resized(scale, scale),
        "depth_m": depth * known,
        "flow": torch.stack([-shift * scale, torch.zeros_like(shift)]) * known,
        "flow_valid": known,
    }


def _camera(principal_x_px: float, principal_y_px: float, offset_m: float) -> Camera:
    intrinsics = torch.tensor(
        [[_FOCAL_PX, 0.0, principal_x_px], [0.0, _FOCAL_PX, principal_y_px], [0.0, 0.0, 1.0]]
    )
    world_from_camera = torch.eye(4)
    world_from_camera[0, 3] = offset_m
    return Camera(intrinsics, world_from_camera)
