"""BAIR robot pushing: an arm that pushes objects about a table, 30 frames of 64 x 64 pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from transframer.data.dataset import part_of_training
from transframer.data.datasets.sequences import FrameSequence, SequenceDataset
from transframer.data.formats.tfrecord import TFRecordFile, read_example
from transframer.errors import DataError
from transframer.task import Clip

_FOLDER = "softmotion30_44k"
_FRAMES, _SIDE_PX = 30, 64


class BAIR(SequenceDataset):
    """softmotion30_44k/{train,test}/*.tfrecords: trajectories of 30 frames, seen by the camera `image_aux1`.

    "validation" is cut from train by whole trajectories. The records of all files are counted, without
    reading them, when the data set is first asked for its length.
    """

    name: ClassVar[str] = "bair"
    summary: ClassVar[str] = "BAIR robot pushing: TFRecords of softmotion30_44k"
    protocol: ClassVar[Mapping[str, str]] = {
        "split": "the 256 trajectories of test",
        "camera": "image_aux1",
        "frames": "1 given, 15 predicted",
        "reference": "Ebert et al., Self-Supervised Visual Planning with Temporal Skip Connections, 2017",
    }

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        clip: Clip | None = None,
        frame_stride: int | None = None,
        window_stride: int | None = None,
    ) -> None:
        super().__init__(root, split, clip, frame_stride, window_stride)
        inside = self.root / _FOLDER
        folder = (inside if inside.is_dir() else self.root) / ("test" if split == "test" else "train")
        self._paths = sorted(folder.glob("*.tfrecords"))
        if not self._paths:
            raise DataError("no *.tfrecords", file=folder, expected=f"{_FOLDER}/{{train,test}}/*.tfrecords")

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """The folder softmotion30_44k, or what is in it."""
        inside = root / _FOLDER if (root / _FOLDER).is_dir() else root
        return any(next((inside / part).glob("*.tfrecords"), None) is not None for part in ("train", "test"))

    @cached_property
    def sequences(self) -> Sequence[FrameSequence]:
        """The trajectories of the split, in the order of the files."""
        files = [TFRecordFile(path) for path in self._paths]
        found = [_Trajectory(file, number) for file in files for number in range(len(file))]
        if self.split == "test":
            return found
        return part_of_training(found, [trajectory.name for trajectory in found], self.split)


class _Trajectory(FrameSequence):
    """A record, whose features are named by the frame: "7/image_aux1/encoded" is raw RGB."""

    def __init__(self, file: TFRecordFile, number: int) -> None:
        self._file, self._number, self.name = file, number, f"{file.path.name}[{number}]"

    def __len__(self) -> int:
        return _FRAMES

    def images(self, frames: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        """See `FrameSequence.images`."""
        names = [f"{frame}/image_aux1/encoded" for frame in frames]
        try:
            features = read_example(self._file.read(self._number), names)
        except ValueError as error:
            raise DataError(f"record {self._number} is no tf.train.Example", file=self._file.path) from error
        images = []
        for name in names:
            values = features.get(name, [])
            if len(values) != 1 or not isinstance(values[0], bytes) or len(values[0]) != 3 * _SIDE_PX**2:
                raise DataError(
                    f"record {self._number} has no frame of 64 x 64 pixels",
                    file=self._file.path,
                    field=name,
                    expected=f"{3 * _SIDE_PX**2} bytes",
                )
            images.append(np.frombuffer(values[0], np.uint8).reshape(_SIDE_PX, _SIDE_PX, 3))
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()

    def files(self, frames: Sequence[int]) -> Sequence[Path]:
        """See `FrameSequence.files`."""
        return [self._file.path]
