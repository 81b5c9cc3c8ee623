"""Views of ShapeNet cars and chairs, as rendered for Scene Representation Networks (SRN)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from transframer.data.dataset import part_of_training
from transframer.data.datasets.posed_views import PosedViews, checked_pose, finite_numbers
from transframer.data.datasets.sequences import SequenceDataset
from transframer.data.formats.text import read_lines
from transframer.errors import DataError
from transframer.frames import Camera
from transframer.task import Clip

_PARTS = ("_train", "_val", "_test")


class SRN(SequenceDataset):
    """Objects on white, each from many sides: SET_{train,test}/ID/{rgb/*.png, pose/*.txt, intrinsics.txt}.

    A scene is one object. Train and validation are SET_train, divided by object, and test is SET_test;
    SET_val, which evaluations on SET_test leave alone, is not read. Views have no time, so records have no
    times. Translations are in the units of ShapeNet's normalised objects, not in metres.

    Args:
        root: the folder that holds SET_train or SET_test, or one of these.
        objects: a set, such as "cars"; all of the root where None.

    Raises:
        DataError: no set in the root, or a set without objects.
    """

    name: ClassVar[str] = "srn"
    summary: ClassVar[str] = "SRN cars and chairs: SET_{train,test}/ID/{rgb/*.png,pose/*.txt,intrinsics.txt}"
    protocol: ClassVar[Mapping[str, str]] = {
        "reference": "Sitzmann et al., Scene Representation Networks, NeurIPS 2019; papers since pixelNeRF "
        "(Yu et al., CVPR 2021) give view 64, or 64 and 104, of each test object and ask for all others, "
        "which the windows of this adapter do not"
    }

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        clip: Clip | None = None,
        frame_stride: int | None = None,
        window_stride: int | None = None,
        objects: str | None = None,
    ) -> None:
        super().__init__(root, split, clip, frame_stride, window_stride)
        base, sets = _sets(self.root)
        if objects is not None:
            sets = [objects]
        part = "test" if split == "test" else "train"
        scenes = [scene for name in sets for scene in _scenes(base / f"{name}_{part}")]
        if not scenes:
            wanted = base / f"{sets[0] if sets else 'SET'}_{part}"
            raise DataError(
                "no objects" if wanted.is_dir() else "no such folder",
                file=wanted,
                expected="ID/{rgb/*.png,pose/*.txt,intrinsics.txt}",
            )
        if split != "test":
            # The name alone: two sets have no object in common.
            scenes = part_of_training(scenes, [scene.name for scene in scenes], split)
        self._views = [
            ObjectViews(scene.name, scene / "rgb", sorted(f.name for f in (scene / "rgb").glob("*.png")))
            for scene in scenes
        ]

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """A set with an object."""
        base, sets = _sets(root)
        folders = (base / f"{name}{part}" for name in sets for part in _PARTS)
        return any(
            (scene / "rgb").is_dir() and (scene / "pose").is_dir()
            for folder in folders
            for depth in ("*/intrinsics.txt", "*/*/intrinsics.txt")
            for scene in (file.parent for file in islice(folder.glob(depth), 1))
        )

    @property
    def sequences(self) -> Sequence[PosedViews]:
        """See `SequenceDataset.sequences`."""
        return self._views

    @property
    def labels(self) -> frozenset[str]:
        """Cameras."""
        return frozenset({"cameras"})

    @property
    def fields(self) -> frozenset[str]:
        """Images and cameras; views are in no order of time."""
        return super().fields - {"times", "query_time"}

    def record(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """See `SequenceDataset.record`."""
        return super().record(index, self.fields.intersection(keys))


class ObjectViews(PosedViews):
    """The views of one object; its cameras lie in `pose` beside `rgb`."""

    def camera(self, frame: int) -> Camera:
        """See `FrameSequence.camera`.

        Raises:
            DataError: no pose of this view, or no rigid one; no or other intrinsics.
        """
        intrinsics, inverse = self._intrinsics
        path = self.folder.parent / "pose" / f"{Path(self.names[frame]).stem}.txt"
        numbers = finite_numbers(" ".join(read_lines(path, "a pose for each view")))
        return Camera(intrinsics, checked_pose(numbers, path, "pose", inverse))

    @cached_property
    def _intrinsics(self) -> tuple[Float[Tensor, "3 3"], bool]:
        """Intrinsics at the size of the images, and whether poses lead from the world to the camera."""
        path = self.folder.parent / "intrinsics.txt"
        # "f cx cy 0", the object's centre, the near plane, "height width", and in some a flag of the poses.
        lines = [finite_numbers(line) for line in read_lines(path, "intrinsics of the object")]
        lines = [line for line in lines if line]
        sizes = [line for line in lines[1:] if len(line) == 2]
        if not lines or len(lines[0]) < 3 or not sizes or min(lines[0][0], *sizes[0]) <= 0:
            raise DataError(
                "no intrinsics", file=path, expected="`f cx cy 0` first, and a line `height width`"
            )
        (focal, x, y), (height, width) = lines[0][:3], sizes[0]
        after = lines[lines.index(sizes[0]) + 1 :]
        inverse = bool(after and after[0] == [1.0])
        scale_y, scale_x = self.size_px[0] / height, self.size_px[1] / width
        matrix = [[focal * scale_x, 0, x * scale_x], [0, focal * scale_y, y * scale_y], [0, 0, 1]]
        return torch.tensor(matrix, dtype=torch.float32), inverse


def _sets(root: Path) -> tuple[Path, list[str]]:
    """The folder that holds the sets, and their names."""
    for part in _PARTS:
        if root.name.endswith(part) and root.is_dir():
            return root.parent, [root.name.removesuffix(part)]
    names = {
        folder.name.removesuffix(part)
        for part in _PARTS
        for folder in root.glob(f"*{part}")
        if folder.is_dir()
    }
    return root, sorted(names)


def _scenes(folder: Path) -> list[Path]:
    # The published chairs_train has one folder more, chairs_2.0_train.
    found = sorted(folder.glob("*/intrinsics.txt")) or sorted(folder.glob("*/*/intrinsics.txt"))
    return [file.parent for file in found]
