"""NYU Depth V2: indoor photographs with a Kinect's depth, from the labelled .mat file or from .h5 files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from transframer.data.dataset import part_of_training
from transframer.data.datasets.depth_stills import DepthStills, judged
from transframer.errors import ConfigError, DataError, unknown_name
from transframer.task import Clip

_LABELLED, _SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
_DEPTHS = {"filled": "depths", "raw": "rawDepths"}
# Whatever h5py throws at a file that is damaged or not of the layout.
_UNREADABLE = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError)


class NYUDepthV2(DepthStills):
    """Photographs with depth in metres, 480 x 640, in one of two layouts.

    - `nyu_depth_v2_labeled.mat` with `splits.mat` beside it (1,449 frames): train and validation are the 795
      of the official training set, divided by scene, test the other 654.
    - {train,val}/SCENE/*.h5 with `rgb` (uint8, 3 x h x w) and `depth` (metres, h x w), as prepared for
      "sparse to dense" and FastDepth: train and validation are the folder `train`, divided by scene; test is
      `val`, which holds the same 654.

    Args:
        root: the folder, or the .mat file.
        depth: "filled" for the depth whose holes were inpainted, "raw" for the sensor's, unknown in the
            holes (only in the .mat file). Both are in use, and give different numbers: say which you report.

    Raises:
        DataError: neither layout, no `splits.mat`, or a .mat file that lacks a variable.
        ConfigError: h5py is not installed; or raw depth of .h5 files, which they have not.
    """

    name: ClassVar[str] = "nyu_depth_v2"
    summary: ClassVar[str] = (
        "NYU Depth V2: nyu_depth_v2_labeled.mat and splits.mat, or {train,val}/SCENE/*.h5"
    )
    protocol: ClassVar[Mapping[str, str]] = {
        "crop": "Eigen: rows 44 to 470 and columns 40 to 600 (from 0) of 480 x 640",
        "cap": "depth above 1 mm and below 10 m",
        "ignored": "pixels without depth",
        "reference": "Eigen, Puhrsch and Fergus, Depth Map Prediction from a Single Image, NeurIPS 2014",
    }

    def __init__(
        self, root: Path | str, split: str = "train", clip: Clip | None = None, depth: str = "filled"
    ) -> None:
        super().__init__(root, split, clip)
        if depth not in _DEPTHS:
            raise unknown_name("depth", depth, _DEPTHS)
        self._depth = _DEPTHS[depth]
        labelled = self.root if self.root.suffix == ".mat" else self.root / _LABELLED
        if labelled.is_file():
            numbers = _numbers(labelled, split, self._depth)
            # A file, and the frame's place in it; None where a file holds one frame.
            self._frames: list[tuple[Path, int | None]] = [(labelled, number) for number in numbers]
            return
        if depth == "raw":
            raise ConfigError("raw depth of .h5 files", field="depth", expected=f"filled, or {_LABELLED}")
        _h5py()
        self._frames = [(file, None) for file in _h5_files(self.root, split)]

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """A MATLAB 7.3 file, a folder with the labelled file, or scenes of .h5 files."""
        if root.is_file():
            with root.open("rb") as file:
                return root.suffix == ".mat" and file.read(10) == b"MATLAB 7.3"
        scenes = [
            scene
            for part in ("train", "val")
            if (root / part).is_dir()
            for scene in islice((root / part).iterdir(), 3)
        ]
        return (root / _LABELLED).is_file() or any(any(scene.glob("*.h5")) for scene in scenes)

    def __len__(self) -> int:
        return len(self._frames)

    def files(self, index: int) -> Sequence[Path]:
        """The .h5 file of the frame, or the .mat file."""
        return [self._frames[index][0]]

    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """See `StillDataset.image`."""
        path, number = self._frames[index]
        pixels = _array(path, "rgb" if number is None else "images", number)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3:
            raise DataError(
                f"{pixels.dtype} of {' x '.join(map(str, pixels.shape))}",
                file=path,
                field="rgb" if number is None else "images",
                expected="uint8 of 3 x h x w",
            )
        return torch.from_numpy(np.ascontiguousarray(pixels if number is None else pixels.transpose(0, 2, 1)))

    def depth_m(self, index: int) -> Float[Tensor, "h w"]:
        """See `DepthStills.depth_m`; what is not positive or not finite is unknown."""
        path, number = self._frames[index]
        key = "depth" if number is None else self._depth
        depth = _array(path, key, number)
        if depth.ndim != 2 or depth.dtype.kind not in "fiu":
            raise DataError(
                f"{depth.dtype} of {' x '.join(map(str, depth.shape))}",
                file=path,
                field=key,
                expected="metres, h x w",
            )
        depth = (depth if number is None else depth.T).astype(np.float32)
        return torch.from_numpy(np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0)))

    def evaluation(self, record: dict[str, Any]) -> dict[str, Any]:
        """Depth outside Eigen's crop, at the frame's own scale, or beyond the cap becomes unknown."""
        height, width = record["images"].shape[2:]
        rows = slice(round(44 / 480 * height), round(471 / 480 * height))
        columns = slice(round(40 / 640 * width), round(601 / 640 * width))
        return judged(record, rows, columns, cap_m=10.0)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ConfigError(
            "NYU Depth V2 is stored as HDF5, and h5py is not installed",
            field="format",
            next_step="pip install 'transframer[hdf5]'",
        ) from error
    return h5py


def _array(path: Path, key: str, number: int | None) -> np.ndarray:
    """A variable of a file, or its entry of a number."""
    h5py = _h5py()
    try:
        # Opened for each read: an open HDF5 file can be neither pickled nor shared by forked processes, and
        # opening costs little beside decompressing a frame.
        with h5py.File(path, "r") as file:
            return np.asarray(file[key][()] if number is None else file[key][number])
    except _UNREADABLE as error:
        raise DataError(
            f"cannot be read: {error}",
            file=path,
            field=key,
            next_step="the file is damaged or incomplete: copy it again",
        ) from error


def _numbers(labelled: Path, split: str, depth: str) -> list[int]:
    """The frames of a split, by their place in the .mat file."""
    h5py = _h5py()
    try:
        with h5py.File(labelled, "r") as file:
            count = len(file["images"])
            if len(file[depth]) != count:
                raise DataError(f"{len(file[depth])} maps of {depth} for {count} images", file=labelled)
            # A cell array of strings: references to arrays of character codes.
            scenes = [
                "".join(map(chr, np.asarray(file[reference]).ravel()))
                for reference in np.asarray(file["scenes"] if split != "test" else ()).ravel()
            ]
    except _UNREADABLE as error:
        raise DataError(
            f"cannot be read: {error}",
            file=labelled,
            expected=f"a MATLAB 7.3 file with images, {depth} and scenes",
            next_step="the file is damaged or incomplete: copy it again",
        ) from error
    numbers = _official(labelled.with_name(_SPLITS), "testNdxs" if split == "test" else "trainNdxs", count)
    if split == "test":
        return numbers
    if len(scenes) != count:
        raise DataError(f"{len(scenes)} names of scenes for {count} images", file=labelled, field="scenes")
    return part_of_training(numbers, [scenes[number] for number in numbers], split)


def _official(path: Path, key: str, count: int) -> list[int]:
    """The official frames of a split, counted from 0."""
    from scipy.io import loadmat  # slow to import, and only needed here

    if not path.is_file():
        raise DataError(
            "no such file",
            file=path,
            expected="the official split of NYU Depth V2 (trainNdxs, testNdxs) beside the .mat file",
        )
    try:
        numbers = [int(number) - 1 for number in np.asarray(loadmat(path)[key]).ravel()]
    except Exception as error:  # scipy lets through whatever a damaged file leads to
        raise DataError(f"cannot be read: {error}", file=path, expected=f"{key} in a MATLAB file") from error
    if not numbers or min(numbers) < 0 or max(numbers) >= count:
        raise DataError("not numbers of frames", file=path, field=key, expected=f"1 to {count}")
    return numbers


def _h5_files(root: Path, split: str) -> list[Path]:
    folder = root / ("val" if split == "test" else "train")
    files = sorted(folder.glob("*/*.h5"))
    if not files:
        raise DataError(
            "no scenes of .h5 files" if folder.is_dir() else "no such folder",
            file=folder,
            expected=f"SCENE/*.h5 in it, or {_LABELLED} in {root}",
        )
    return files if split == "test" else part_of_training(files, [file.parent.name for file in files], split)
