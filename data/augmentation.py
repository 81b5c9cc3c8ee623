"""Augmentation: random crops, mirroring and colours, alike in every frame and label of a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from transframer.errors import ConfigError, DataError
from transframer.frames import Camera
from transframer.setting_checks import check_augmentation

# A box that a crop leaves less of is dropped: what is left says too little of what it was.
LEAST_VISIBLE = 0.25
_MAPS = ("images", "target", "mask", "depth_m", "instances", "normals", "flow", "flow_valid")
_OBJECTS = ("boxes", "box_labels", "instance_labels")
_KNOWN = frozenset({*_MAPS, *_OBJECTS, "cameras", "query_camera", "label", "times", "query_time"})


@dataclass(frozen=True)
class Augmentation:
    """What is changed at random each time that a sample of a data set comes again.

    Attributes:
        crop: the least share of each side that a random window keeps, 0 to 1; the window has the picture's
            own ratio of sides. 1 for whole pictures.
        flip: half of the samples are mirrored left to right, with all that they hold.
        color: brightness, contrast and saturation are each multiplied by 1 - color to 1 + color; 0 to 1.
    """

    crop: float = 1.0
    flip: bool = False
    color: float = 0.0

    def __post_init__(self) -> None:
        check_augmentation(self.crop, self.color)

    def check(self, sample_type: type) -> None:
        """Refuses samples with fields of which nobody can say what becomes of them.

        Raises:
            ConfigError: something is to be changed, and they hold such fields.
        """
        if self != Augmentation() and not augmentable(sample_type):
            raise ConfigError(
                f"samples with {', '.join(sorted(set(sample_type.__annotations__) - _KNOWN))}",
                field="crop, flip, color",
                expected=f"fields that augmentation knows: {', '.join(sorted(_KNOWN))}",
                next_step="leave these settings out, with --crop 1",
            )

    def __call__(self, sample: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """A sample with the common fields of `transframer.task.Task`, changed as the seed decides.

        Other fields stay as they are; see `check`.

        Raises:
            DataError: it has an instance without a label.
        """
        if self == Augmentation():
            return dict(sample)
        generator = torch.Generator().manual_seed(seed)
        share, down, right, mirror, *colors = torch.rand(7, generator=generator).tolist()
        changed = dict(sample)
        if self.crop < 1:
            height, width = sample["images"].shape[-2:]
            share = self.crop + (1 - self.crop) * share
            size = max(1, round(share * height)), max(1, round(share * width))
            corner = int(down * (height - size[0] + 1)), int(right * (width - size[1] + 1))
            changed = cropped(changed, corner, size)
        if self.flip and mirror < 0.5:
            changed = mirrored(changed)
        if self.color:
            changed = recolored(changed, *(1 + self.color * (2 * x - 1) for x in colors))
        return changed


def augmentable(sample_type: type) -> bool:
    """Whether `Augmentation` knows all that such samples may hold."""
    return set(sample_type.__annotations__) <= _KNOWN


def cropped(sample: Mapping[str, Any], corner: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """The part of a sample within a window; boxes are clipped to it, cameras look through it.

    Depth is multiplied by the share that the window keeps of the sides (Eigen et al., Depth Map Prediction
    from a Single Image, 2014, section 3.3): brought to the size of the whole the window looks as if it were
    so much closer. The normals stay those of the whole picture's camera.

    Args:
        corner: row and column of the first pixel.
        size: height and width in pixels.

    Raises:
        DataError: it has an instance without a label.
    """
    (top, left), (height, width) = corner, size
    whole = sample["images"].shape[-2:]
    changed = _of_maps(sample, lambda values: values[..., top : top + height, left : left + width])
    if "depth_m" in sample:
        changed["depth_m"] = changed["depth_m"] * (height * width / (whole[0] * whole[1])) ** 0.5
    if "boxes" in sample:
        from torchvision.ops import box_area, clip_boxes_to_image

        boxes = clip_boxes_to_image(sample["boxes"] - torch.tensor([left, top, left, top]), size)
        seen = box_area(boxes) >= LEAST_VISIBLE * box_area(sample["boxes"])
        seen &= (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        changed["boxes"] = boxes[seen]
        if "box_labels" in sample:
            changed["box_labels"] = sample["box_labels"][seen]
    if "instances" in sample:
        numbers, changed["instances"] = changed["instances"].long().unique(return_inverse=True)
        if numbers[0] > 0:  # no background is left
            changed["instances"] += 1
        if "instance_labels" in sample:
            if numbers[-1] > len(sample["instance_labels"]):
                raise DataError(f"no label of instance {numbers[-1]}")
            changed["instance_labels"] = sample["instance_labels"][numbers[numbers > 0] - 1]
    return _of_cameras(changed, lambda camera: _moved(camera, left, top))


def mirrored(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample of the world seen in a mirror: left and right are exchanged in all that it holds."""
    width = sample["images"].shape[-1]
    changed = _of_maps(sample, lambda values: values.flip(-1))
    for key in ("flow", "normals"):  # their x points the other way
        if key in sample:
            changed[key] = torch.cat([-changed[key][:1], changed[key][1:]])
    if "boxes" in sample:
        x0, y0, x1, y1 = sample["boxes"].unbind(1)
        changed["boxes"] = torch.stack([width - x1, y0, width - x0, y1], dim=1)
    return _of_cameras(changed, lambda camera: _mirrored(camera, width))


def recolored(
    sample: Mapping[str, Any], brightness: float, contrast: float, saturation: float
) -> dict[str, Any]:
    """The images, and an image asked for, with brightness, contrast and saturation multiplied."""
    from torchvision.transforms.v2 import functional as transforms

    pictures = torch.stack([*sample["images"], *([sample["target"]] if "target" in sample else [])]) / 255
    pictures = transforms.adjust_brightness(pictures, brightness)
    # About the mean of all frames, and not of each: what they share has to stay alike.
    mean = transforms.rgb_to_grayscale(pictures).mean()
    pictures = (mean + contrast * (pictures - mean)).clamp(0, 1)
    pictures = transforms.adjust_saturation(pictures, saturation)
    pictures = (pictures * 255).round().to(torch.uint8)
    changed = {**sample, "images": pictures[: len(sample["images"])]}
    if "target" in sample:
        changed["target"] = pictures[-1]
    return changed


def _of_maps(
    sample: Mapping[str, Any], change: Callable[[Shaped[Tensor, "*c h w"]], Shaped[Tensor, "*c h2 w2"]]
) -> dict[str, Any]:
    return {key: change(value) if key in _MAPS else value for key, value in sample.items()}


def _of_cameras(sample: dict[str, Any], change: Callable[[Camera], Camera]) -> dict[str, Any]:
    if "cameras" in sample:
        sample["cameras"] = [change(camera) for camera in sample["cameras"]]
    if "query_camera" in sample:
        sample["query_camera"] = change(sample["query_camera"])
    return sample


def _moved(camera: Camera, left: int, top: int) -> Camera:
    """The camera of a window of the picture."""
    intrinsics = camera.intrinsics.clone()
    intrinsics[0, 2] -= left
    intrinsics[1, 2] -= top
    return replace(camera, intrinsics=intrinsics)


def _mirrored(camera: Camera, width: int) -> Camera:
    """The camera in the mirrored world, x to -x: M P M for the pose, so that it stays a rotation."""
    intrinsics, pose = camera.intrinsics.clone(), camera.world_from_camera.clone()
    intrinsics[0, 1] *= -1
    intrinsics[0, 2] = width - intrinsics[0, 2]
    pose[0] *= -1
    pose[:, 0] *= -1
    return replace(camera, intrinsics=intrinsics, world_from_camera=pose)
