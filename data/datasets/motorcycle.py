"""The real stereo pair that scikit-image ships: Middlebury 2014 "Motorcycle", with measured disparity.

Two rectified photographs of 741 x 500 pixels and the disparity of the left one. They are part of
scikit-image's wheel, so nothing is downloaded. A rectified pair is at once a flow problem (flow is minus the
disparity), a depth problem and a view-synthesis problem. Its samples overlap and show one scene: they tell
whether a model carries over to real input, not how good it is in general.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from transframer.data.formats.images import resize_image, resize_nearest
from transframer.errors import DataError
from transframer.frames import Camera

# Calibration of the pair at this size, from scikit-image's documentation of `stereo_motorcycle`.
_FOCAL_PX, _PRINCIPAL_X_PX, _PRINCIPAL_Y_PX = 994.978, 311.193, 254.877
_PRINCIPAL_SHIFT_PX, _BASELINE_M = 31.086, 0.193001
# Crops: the whole height in three steps across, and half of it in two rows of three.
_CROPS = [(500, top, left) for top in (0,) for left in (0, 120, 241)] + [
    (250, top, left) for top in (0, 250) for left in (0, 245, 491)
]


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
