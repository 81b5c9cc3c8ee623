"""Middlebury's photographs: stereo scenes with disparity (2014, 2021), and pairs with optical flow."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from transframer.data.dataset import Dataset, three_parts
from transframer.data.datasets.flow_pairs import FlowPair, FlowPairs
from transframer.data.datasets.stereo import StereoCalibration, StereoDataset, StereoPair
from transframer.data.formats.images import load_image
from transframer.data.formats.pfm import read_pfm
from transframer.errors import DataError
from transframer.task import Clip

_DISPARITY = ("disp0.pfm", "disp0GT.pfm")  # of the data sets, and of the benchmark's training part
_FLOWS, _FRAMES = "other-gt-flow", "other-data"
# Takes of one scene: chess1 and chess2, Piano-perfect, MotorcycleE (other exposure), PianoL (other light).
_TAKE = re.compile(r"(-(im)?perfect|\d+|(?<=[a-z\d])[ELP])+$")


class Middlebury(Dataset):
    """Scenes of either layout; those of stereo where a folder has both.

    - Stereo, SCENE/{im0.png,im1.png,disp0.pfm,calib.txt}: depth, flow and a second view, see `StereoDataset`.
      One such scene may be the root itself.
    - Flow, other-data/SCENE/{frame10,frame11}.png and other-gt-flow/SCENE/flow10.flo.

    No split is published for what has public labels: all three are cut by scene, takes of one scene
    together. A single scene is the "test" split, and the other two are errors.

    Raises:
        DataError: neither layout, an incomplete scene, or too few scenes for the split.
    """

    name: ClassVar[str] = "middlebury"
    summary: ClassVar[str] = (
        "Middlebury: SCENE/{im0,im1}.png, disp0.pfm, calib.txt; or other-data, other-gt-flow"
    )
    protocol: ClassVar[Mapping[str, str]] = {
        "ignored": "pixels of unknown disparity or flow",
        "reference": "Scharstein et al., High-Resolution Stereo Datasets, GCPR 2014; Baker et al., A "
        "Database and Evaluation Methodology for Optical Flow, IJCV 2011; the split is this toolkit's own",
    }

    def __init__(self, root: Path | str, split: str = "train", clip: Clip | None = None) -> None:
        super().__init__(root, split, clip)
        flow = (self.root / _FLOWS).is_dir() and not _scenes(self.root)
        self._part: Dataset = (MiddleburyFlow if flow else MiddleburyStereo)(root, split, clip)

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """A scene with its calibration, or the folders of flow."""
        stereo = any((folder / "calib.txt").is_file() for folder in [root, *islice(root.glob("*/"), 5)])
        return (stereo and bool(_scenes(root))) or ((root / _FLOWS).is_dir() and (root / _FRAMES).is_dir())

    @property
    def fields(self) -> frozenset[str]:
        """Those of the layout."""
        return self._part.fields

    def __len__(self) -> int:
        return len(self._part)

    def files(self, index: int) -> Sequence[Path]:
        """The files of the scene."""
        return self._part.files(index)

    def record(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """See `Dataset.record`."""
        return self._part.record(index, keys)


class MiddleburyStereo(StereoDataset):
    """The stereo layout of `Middlebury`."""

    name: ClassVar[str] = "middlebury_stereo"
    summary: ClassVar[str] = "Middlebury stereo: SCENE/{im0.png,im1.png,disp0.pfm,calib.txt}"

    def __init__(self, root: Path | str, split: str = "train", clip: Clip | None = None) -> None:
        super().__init__(root, split, clip)
        scenes = _scenes(self.root)
        if not scenes:
            raise DataError(
                "no stereo scene" if self.root.is_dir() else "no such folder",
                file=self.root,
                expected=f"SCENE/{{im0.png,im1.png,{_DISPARITY[0]},calib.txt}}, or {_FRAMES} and {_FLOWS}",
            )
        for scene in scenes:
            for name in ("im0.png", "im1.png"):
                if not (scene / name).is_file():
                    raise DataError("no such file", file=scene / name, expected="both photographs of a scene")
        names = [_TAKE.sub("", scene.name) for scene in scenes]
        if len(set(names)) > 1 or split != "test":
            scenes = three_parts(scenes, names, split)
        self._scenes = [_Scene(scene) for scene in scenes]

    @property
    def stereo_pairs(self) -> Sequence[StereoPair]:
        """See `StereoDataset.stereo_pairs`."""
        return self._scenes


class MiddleburyFlow(FlowPairs):
    """The flow layout of `Middlebury`; flow is from frame 10 to frame 11."""

    name: ClassVar[str] = "middlebury_flow"
    summary: ClassVar[str] = "Middlebury flow: other-data/SCENE/frame10.png, other-gt-flow/SCENE/flow10.flo"

    def pairs(self) -> list[FlowPair]:
        """See `FlowPairs.pairs`."""
        flows = sorted((self.root / _FLOWS).glob("*/flow10.flo"))
        if not flows:
            raise DataError("no flow", file=self.root / _FLOWS, expected="SCENE/flow10.flo")
        names = [flow.parent.name for flow in flows]
        pairs = []
        for flow in (
            flows if len(flows) == 1 and self.split == "test" else three_parts(flows, names, self.split)
        ):
            frames = [self.root / _FRAMES / flow.parent.name / f"frame{number}.png" for number in (10, 11)]
            for frame in frames:
                if not frame.is_file():
                    raise DataError("no such file", file=frame, expected="both images of each flow")
            pairs.append(FlowPair(frames[0], frames[1], flow))
        return pairs


@dataclass(frozen=True)
class _Scene(StereoPair):
    folder: Path

    def photograph(self, side: int) -> UInt8[Tensor, "3 h w"]:
        """See `StereoPair.photograph`."""
        return load_image(self.folder / f"im{side}.png")

    def disparity_px(self) -> Float[Tensor, "h w"]:
        """See `StereoPair.disparity_px`."""
        path = _disparity(self.folder)
        values = read_pfm(path)
        if len(values) != 1:
            raise DataError(f"{len(values)} channels", file=path, expected="1, the disparity")
        return values[0]

    def calibration(self) -> StereoCalibration:
        """See `StereoPair.calibration`."""
        return self._calibration

    @cached_property
    def _calibration(self) -> StereoCalibration:
        return read_calibration(self.folder / "calib.txt")

    @property
    def files(self) -> Sequence[Path]:
        """See `StereoPair.files`."""
        names = ("im0.png", "im1.png", "calib.txt")
        return [*(self.folder / name for name in names), _disparity(self.folder)]


def read_calibration(path: Path) -> StereoCalibration:
    """Reads Middlebury's `calib.txt`: lines `cam0=[f 0 cx; 0 f cy; 0 0 1]`, `cam1`, `doffs`, `baseline` (mm).

    The principal point is taken as it is written: Middlebury scales it between sizes like a length, as if
    counted from the corner of the first pixel, which is this toolkit's convention too.

    Raises:
        DataError: the file is missing, lacks one of them, or has another form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}", file=path, expected="calib.txt"
        ) from error
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    left, right = (_intrinsics(values, key, path) for key in ("cam0", "cam1"))
    shift, baseline_mm = (_numbers(values, key, 1, path)[0] for key in ("doffs", "baseline"))
    if baseline_mm <= 0:
        raise DataError(f"{baseline_mm:g}", file=path, field="baseline", expected="millimetres above 0")
    size = None
    if {"width", "height"} <= set(values):
        size = tuple(round(_numbers(values, key, 1, path)[0]) for key in ("height", "width"))
    return StereoCalibration(left, right, shift, baseline_mm / 1000, size)  # type: ignore[arg-type]


def _intrinsics(values: Mapping[str, str], key: str, path: Path) -> Float[Tensor, "3 3"]:
    matrix = torch.tensor(_numbers(values, key, 9, path)).view(3, 3)
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0 or matrix[2].tolist() != [0, 0, 1]:
        raise DataError("no pinhole camera", file=path, field=key, expected="[f 0 cx; 0 f cy; 0 0 1]")
    return matrix


def _numbers(values: Mapping[str, str], key: str, count: int, path: Path) -> list[float]:
    text = values.get(key)
    try:
        numbers = [float(word) for word in re.sub(r"[\[\];,]", " ", text or "").split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise DataError(
            "no such line" if text is None else f"{text[:80]!r}",
            file=path,
            field=key,
            expected=f"{count} numbers",
        )
    return numbers


def _disparity(folder: Path) -> Path:
    return next((folder / name for name in _DISPARITY if (folder / name).is_file()), folder / _DISPARITY[0])


def _scenes(root: Path) -> list[Path]:
    """The root, if it is a scene, or those in it: folders that have both calibration and disparity."""
    folders = [root] if (root / "calib.txt").is_file() else sorted(root.glob("*/"))
    return [folder for folder in folders if (folder / "calib.txt").is_file() and _disparity(folder).is_file()]
