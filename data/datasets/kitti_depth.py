"""KITTI depth: photographs from a driving car with the depth of accumulated laser scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float, UInt8
from torch import Tensor

from transframer.data.dataset import part_of_training
from transframer.data.datasets.depth_stills import DepthStills, judged
from transframer.data.formats.images import load_image
from transframer.data.formats.png16 import read_depth_png
from transframer.errors import DataError, unknown_name
from transframer.task import Clip

_CAMERAS = ("image_02", "image_03")
_UNITS_PER_M = 256.0


class KITTIDepth(DepthStills):
    """Photographs with sparse depth in metres, as the depth benchmark of KITTI annotates them.

    Depth is in {train,val}/DRIVE/proj_depth/groundtruth/CAMERA/NUMBER.png, and the photographs are those of
    the raw recordings, DATE/DRIVE/CAMERA/data/NUMBER.png (or .jpg). Train and validation are the folder
    `train`, divided by drive. Test is `depth_selection/val_selection_cropped` (1,000 crops of both cameras,
    those that papers report on) where the root has it, otherwise the folder `val`.

    Args:
        root: the folder that holds `train` and `val`, or only `depth_selection`.
        raw_root: the folder of the raw recordings, with a folder for each date. By default they are looked
            for in `raw` of the root, in the root, and beside each drive's `proj_depth`.
        camera: "image_02" for the left colour camera, "image_03" for the right one.

    Raises:
        DataError: no depth of the split, or depth without its photographs.
    """

    name: ClassVar[str] = "kitti_depth"
    summary: ClassVar[str] = "KITTI depth: {train,val}/DRIVE/proj_depth/groundtruth and the raw recordings"
    protocol: ClassVar[Mapping[str, str]] = {
        "crop": "Garg: rows 0.40810811 to 0.99189189 and columns 0.03594771 to 0.96405229 of the photograph",
        "cap": "depth above 1 mm and below 80 m",
        "ignored": "pixels without a laser point",
        "reference": "Garg et al., Unsupervised CNN for Single View Depth Estimation, ECCV 2016; depth of "
        "Uhrig et al., Sparsity Invariant CNNs, 3DV 2017, whose own server takes neither crop nor cap",
    }

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        clip: Clip | None = None,
        raw_root: Path | str | None = None,
        camera: str = "image_02",
    ) -> None:
        super().__init__(root, split, clip)
        if camera not in _CAMERAS:
            raise unknown_name("camera", camera, _CAMERAS)
        selection = _selection(self.root)
        self._frames: list[tuple[Path, Path]]  # photograph and depth
        if split == "test" and selection:
            self._frames = _selected(selection)
            return
        part = self.root / ("val" if split == "test" else "train")
        depths = sorted(part.glob(f"*/proj_depth/groundtruth/{camera}/*.png"))
        if not depths:
            raise DataError(
                "no depth in it" if part.is_dir() else "no such folder",
                file=part,
                expected=f"DRIVE/proj_depth/groundtruth/{camera}/*.png",
            )
        if split != "test":
            depths = part_of_training(depths, [depth.parents[3].name for depth in depths], split)
        self._frames = self._with_photographs(depths, Path(raw_root) if raw_root else None)

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Drives with `proj_depth`, or the benchmark's selection."""
        drives = (islice((root / part).glob("*_sync"), 3) for part in ("train", "val"))
        return _selection(root) is not None or any(
            (drive / "proj_depth").is_dir() for some in drives for drive in some
        )

    def __len__(self) -> int:
        return len(self._frames)

    def files(self, index: int) -> Sequence[Path]:
        """The photograph and the depth."""
        return self._frames[index]

    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """See `StillDataset.image`."""
        return load_image(self._frames[index][0])

    def depth_m(self, index: int) -> Float[Tensor, "h w"]:
        """See `DepthStills.depth_m`."""
        return read_depth_png(self._frames[index][1], _UNITS_PER_M)

    def evaluation(self, record: dict[str, Any]) -> dict[str, Any]:
        """Depth outside Garg's crop or beyond the cap becomes unknown."""
        height, width = record["images"].shape[2:]
        rows = slice(int(0.40810811 * height), int(0.99189189 * height))
        columns = slice(int(0.03594771 * width), int(0.96405229 * width))
        return judged(record, rows, columns, cap_m=80.0)

    def _with_photographs(self, depths: list[Path], raw_root: Path | None) -> list[tuple[Path, Path]]:
        folders: dict[Path, dict[str, Path]] = {}  # by folder of depth: photographs by number
        frames = []
        for depth in depths:
            if depth.parent not in folders:
                folders[depth.parent] = self._photographs(depth.parent, raw_root)
            photograph = folders[depth.parent].get(depth.stem)
            if photograph is None:
                raise DataError(
                    "depth without its photograph", file=depth, expected=f"{depth.stem}.png or .jpg"
                )
            frames.append((photograph, depth))
        return frames

    def _photographs(self, depth_folder: Path, raw_root: Path | None) -> dict[str, Path]:
        drive, camera = depth_folder.parents[2], depth_folder.name
        inside = Path(drive.name[:10], drive.name, camera, "data")  # a drive's name starts with its date
        if raw_root:
            places = [raw_root / inside]
        else:
            places = [self.root / "raw" / inside, self.root / inside, drive / camera / "data"]
        for place in places:
            if place.is_dir():
                return {file.stem: file for file in place.iterdir() if file.suffix in (".png", ".jpg")}
        raise DataError(
            f"no photographs of {drive.name}",
            file=places[0],
            expected="a folder" + "".join(f", or {place}" for place in places[1:]),
            next_step="name the folder of the raw recordings with the option raw_root",
        )


def _selection(root: Path) -> Path | None:
    for parts in (("depth_selection", "val_selection_cropped"), ("val_selection_cropped",), ()):
        folder = root.joinpath(*parts)
        if (folder / "groundtruth_depth").is_dir():
            return folder
    return None


def _selected(folder: Path) -> list[tuple[Path, Path]]:
    depths = sorted((folder / "groundtruth_depth").glob("*.png"))
    frames = [
        (folder / "image" / depth.name.replace("_groundtruth_depth_", "_image_"), depth) for depth in depths
    ]
    for photograph, _ in frames:
        if not photograph.is_file():
            raise DataError("no such photograph", file=photograph, expected="one for each depth map")
    if not frames:
        raise DataError("no depth in it", file=folder / "groundtruth_depth", expected="PNG files")
    return frames
