"""Moving MNIST: two handwritten digits that bounce in a square, 20 frames of 64 x 64 pixels."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from transframer.data.dataset import part_of_training
from transframer.data.datasets.sequences import FrameSequence, SequenceDataset
from transframer.errors import DataError
from transframer.task import Clip

_FRAMES, _SIDE_PX = 20, 64
_TEST, _TRAINING = "mnist_test_seq", "moving_mnist_train"
_FOLDERS = (".", "MovingMNIST")  # torchvision makes the second


class MovingMNIST(SequenceDataset):
    """mnist_test_seq.npy (20 x N x 64 x 64), which is "test"; moving_mnist_train.npy for the other splits.

    The 10,000 published sequences are a test set; for training, sequences are generated. So "train" and
    "validation" need a second file of the same layout. Both may also be .npz, and of N x 20 x 64 x 64. A .npy
    is not read into memory.

    torchvision's class is not used: it loads the whole file, and its splits cut time and not sequences.
    """

    name: ClassVar[str] = "moving_mnist"
    summary: ClassVar[str] = "Moving MNIST: mnist_test_seq.npy, and moving_mnist_train.npy to train on"
    protocol: ClassVar[Mapping[str, str]] = {
        "split": "all 10,000 sequences of mnist_test_seq.npy; training sequences are generated",
        "frames": "10 given, 10 predicted",
        "reference": "Srivastava et al., Unsupervised Learning of Video Representations using LSTMs, 2015",
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
        folder = self.root.parent if self.root.is_file() else self.root
        stem = _TEST if split == "test" else _TRAINING
        file = _file(folder, stem)
        if file is None:
            raise DataError(
                f"no {stem}.npy, which {split!r} needs",
                file=self.root,
                expected="uint8 of 20 x N x 64 x 64",
                next_step=None
                if split == "test"
                else "the published file is a test set: make sequences to train on out of MNIST",
            )
        self._video_file = _VideoFile(file)
        numbers = list(range(len(self._video_file)))
        self._numbers = (
            numbers if split == "test" else part_of_training(numbers, list(map(str, numbers)), split)
        )

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """One of the two files, or the folder of one."""
        if root.is_file():
            return root.suffix in (".npy", ".npz") and root.stem in (_TEST, _TRAINING)
        return any(_file(root, stem) is not None for stem in (_TEST, _TRAINING))

    @cached_property
    def sequences(self) -> Sequence[FrameSequence]:
        """The sequences of the split, in the order of the file."""
        return [_Digits(self._video_file, number) for number in self._numbers]


class _VideoFile:
    """The array of a file, by sequence and frame; pickled without its values."""

    def __init__(self, path: Path) -> None:
        self.path = path
        shape = self._values.shape
        if self._values.dtype != np.uint8 or len(shape) != 4 or shape[2:] != (_SIDE_PX,) * 2:
            raise DataError(
                f"{self._values.dtype} of {' x '.join(map(str, shape))}",
                file=path,
                expected="uint8 of 20 x N x 64 x 64",
            )
        if _FRAMES not in shape[:2] or 0 in shape:
            raise DataError(f"{shape[0]} x {shape[1]} frames", file=path, expected="20 frames a sequence")
        self._time_first = shape[0] == _FRAMES  # with 20 sequences too, it is the published order

    @cached_property
    def _values(self) -> Any:
        try:
            values = np.load(self.path, mmap_mode="r", allow_pickle=False)
            if isinstance(values, np.ndarray):
                return values
            with values:
                names = values.files
                if len(names) != 1:
                    raise DataError(f"arrays {', '.join(names)}", file=self.path, expected="one array")
                return values[names[0]]
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(
                f"cannot be read: {error}",
                file=self.path,
                next_step="the file may be truncated: copy it again",
            ) from error

    def __len__(self) -> int:
        return self._values.shape[1 if self._time_first else 0]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_values"}

    def frames(self, number: int, frames: Sequence[int]) -> UInt8[np.ndarray, "n h w"]:
        """Frames of a sequence."""
        if self._time_first:
            return np.array(self._values[list(frames), number])
        return np.array(self._values[number, list(frames)])


class _Digits(FrameSequence):
    def __init__(self, file: _VideoFile, number: int) -> None:
        self._file, self._number, self.name = file, number, f"{file.path.name}[{number}]"

    def __len__(self) -> int:
        return _FRAMES

    def images(self, frames: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        """See `FrameSequence.images`."""
        grey = torch.from_numpy(self._file.frames(self._number, frames))
        return grey[:, None].repeat(1, 3, 1, 1)

    def files(self, frames: Sequence[int]) -> Sequence[Path]:
        """See `FrameSequence.files`."""
        return [self._file.path]


def _file(folder: Path, stem: str) -> Path | None:
    places = (folder / inside / f"{stem}{suffix}" for inside in _FOLDERS for suffix in (".npy", ".npz"))
    return next((place for place in places if place.is_file()), None)
