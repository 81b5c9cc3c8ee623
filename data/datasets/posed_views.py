"""The common part of posed views: sequences of image files with a camera each."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from transframer.data.datasets.sequences import FrameSequence, images_of_one_size
from transframer.data.formats.images import opened_image
from transframer.errors import DataError
from transframer.frames import Camera


class PosedViews(FrameSequence):
    """Views of one scene: image files of one size in one folder.

    Attributes:
        folder: of the images.
        names: file names of the views, in order.
    """

    def __init__(self, name: str, folder: Path, names: Sequence[str]) -> None:
        self.name, self.folder, self.names = name, folder, tuple(names)

    @abc.abstractmethod
    def camera(self, frame: int) -> Camera:
        """See `FrameSequence.camera`."""

    def __len__(self) -> int:
        return len(self.names)

    def files(self, frames: Sequence[int]) -> Sequence[Path]:
        """The images."""
        return [self.folder / self.names[frame] for frame in frames]

    def images(self, frames: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        """See `FrameSequence.images`."""
        return images_of_one_size([self.folder / self.names[frame] for frame in frames])

    @cached_property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the images, from the header of the first."""
        with opened_image(self.folder / self.names[0]) as image:
            return image.height, image.width


def checked_pose(numbers: Sequence[float], file: Path, field: str, inverse: bool) -> Float[Tensor, "4 4"]:
    """A pose out of 12 or 16 numbers by row: `world_from_camera`.

    Args:
        inverse: the numbers are camera_from_world.

    Raises:
        DataError: the numbers are no rigid transform.
    """
    pose = torch.eye(4, dtype=torch.float64)
    if len(numbers) in (12, 16):
        pose[: len(numbers) // 4] = torch.tensor(numbers, dtype=torch.float64).view(-1, 4)
    turn, last = pose[:3, :3], pose.new_tensor([0, 0, 0, 1])
    rigid = pose.isfinite().all() and torch.allclose(turn @ turn.T, torch.eye(3).double(), atol=1e-3)
    if len(numbers) not in (12, 16) or not rigid or turn.det() < 0 or not torch.equal(pose[3], last):
        raise DataError(
            f"{len(numbers)} numbers that are no rigid transform",
            file=file,
            field=field,
            expected="12 or 16 numbers, by row: a rotation and a translation",
        )
    if inverse:
        pose = torch.cat([torch.cat([turn.T, -turn.T @ pose[:3, 3:]], dim=1), last[None]])
    return pose.float()


def finite_numbers(text: str) -> list[float]:
    """The numbers of a line; none where any word is not a finite number."""
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        return []
    return numbers if torch.tensor(numbers).isfinite().all() else []
