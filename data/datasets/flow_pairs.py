"""Pairs of images with optical flow: FlyingChairs, Sintel, and KITTI 2012 and 2015."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from transframer.data.dataset import Dataset, part_of_training, three_parts
from transframer.data.formats.flo import read_flo
from transframer.data.formats.images import load_image
from transframer.data.formats.png16 import read_kitti_flow
from transframer.errors import DataError, unknown_name
from transframer.task import Clip

_UNKNOWN_FLOW = 1e9  # Middlebury's mark


@dataclass(frozen=True)
class FlowPair:
    """The files of one record.

    Attributes:
        flow: from the first image to the second.
        invalid: an image that is not black where the flow is not to be trusted; None where there is none.
    """

    first: Path
    second: Path
    flow: Path
    invalid: Path | None = None


class FlowPairs(Dataset):
    """Two images and the flow from the first to the second, in pixels; 0 and not valid where unknown.

    The files are read directly: of torchvision's classes, KittiFlow decodes PNG by torchvision.io, which
    crashes the process on a damaged file, and all demand one name of the folder, pair files by their place
    in listings, and take a .flo file's size from its header.
    """

    @abc.abstractmethod
    def pairs(self) -> list[FlowPair]:
        """The pairs of the split; called once, when the data set is opened."""

    def __init__(self, root: Path | str, split: str = "train", clip: Clip | None = None) -> None:
        super().__init__(root, split, clip)
        self._pairs = self.pairs()

    @property
    def fields(self) -> frozenset[str]:
        """Both images, flow, and where it is valid."""
        return frozenset({"images", "flow", "flow_valid"})

    def __len__(self) -> int:
        return len(self._pairs)

    def files(self, index: int) -> Sequence[Path]:
        """Both images, the flow, and the mask where there is one."""
        pair = self._pairs[index]
        return [pair.first, pair.second, pair.flow, *([pair.invalid] if pair.invalid else [])]

    def record(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """See `Dataset.record`."""
        pair = self._pairs[index]
        images = [load_image(pair.first), load_image(pair.second)]
        size = tuple(images[0].shape[1:])
        _check_size(pair.second, tuple(images[1].shape[1:]), size)
        record: dict[str, Any] = {"images": torch.stack(images)}
        wanted = {"flow", "flow_valid"}.intersection(keys)
        if wanted:
            flow, valid = self.read_flow(pair.flow)
            _check_size(pair.flow, tuple(valid.shape), size)
            if pair.invalid:
                invalid = load_image(pair.invalid).amax(0) > 0
                _check_size(pair.invalid, tuple(invalid.shape), size)
                valid = valid & ~invalid
            both = {"flow": flow.where(valid, torch.zeros(())), "flow_valid": valid}
            record |= {key: both[key] for key in wanted}
        return record

    def read_flow(self, path: Path) -> tuple[Float[Tensor, "2 h w"], Bool[Tensor, "h w"]]:
        """Flow, and where it is known: in .flo files where it is finite and below Middlebury's mark."""
        flow = read_flo(path)
        return flow, (flow.isfinite() & (flow.abs() < _UNKNOWN_FLOW)).all(0)


class FlyingChairs(FlowPairs):
    """Chairs flying over photographs (synthetic): data/NUMBER_{img1.ppm,img2.ppm,flow.flo}.

    `FlyingChairs_train_val.txt`, beside `data`, has a 1 (training) or a 2 for each number from 1: test are
    the pairs marked 2 (640 of 22,872), validation is cut out of the others.

    Raises:
        DataError: no folder `data`, no or another list of the split, or a pair that is not complete.
    """

    name: ClassVar[str] = "flying_chairs"
    summary: ClassVar[str] = (
        "FlyingChairs: data/*_{img1.ppm,img2.ppm,flow.flo} and FlyingChairs_train_val.txt"
    )
    protocol: ClassVar[Mapping[str, str]] = {
        "reference": "Dosovitskiy et al., FlowNet, ICCV 2015: endpoint error on the pairs marked 2"
    }
    _LIST: ClassVar[str] = "FlyingChairs_train_val.txt"

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """The list of the split."""
        return any((folder / cls._LIST).is_file() for folder in _roots(root, "FlyingChairs"))

    def pairs(self) -> list[FlowPair]:
        """See `FlowPairs.pairs`."""
        folder = _with(self.root, "data", "FlyingChairs", "FlyingChairs_release")
        marks = self._marks(
            next((f for f in (folder.parent, self.root) if (f / self._LIST).is_file()), folder)
        )
        names = {file.name for file in folder.iterdir()}
        numbers = sorted(name.removesuffix("_flow.flo") for name in names if name.endswith("_flow.flo"))
        pairs, keys = [], []
        for number in numbers:
            place = int(number) - 1 if number.isdecimal() else -1
            if not 0 <= place < len(marks):
                raise DataError(
                    "a pair without a mark", file=folder / f"{number}_flow.flo", expected=f"1 to {len(marks)}"
                )
            if (marks[place] == "2") != (self.split == "test"):
                continue
            for image in (f"{number}_img1.ppm", f"{number}_img2.ppm"):
                if image not in names:
                    raise DataError("no such file", file=folder / image, expected="both images of each flow")
            stem = folder / number
            pairs.append(FlowPair(*(Path(f"{stem}_{end}") for end in ("img1.ppm", "img2.ppm", "flow.flo"))))
            keys.append(number)
        if not pairs:
            raise DataError(f"no pairs of the {self.split} split", file=folder, expected="*_flow.flo")
        return pairs if self.split == "test" else part_of_training(pairs, keys, self.split)

    def _marks(self, folder: Path) -> list[str]:
        path = folder / self._LIST
        try:
            marks = path.read_text(encoding="utf-8").split()
        except (OSError, ValueError) as error:
            raise DataError(
                f"cannot be read: {getattr(error, 'strerror', None) or error}",
                file=path,
                expected="a 1 (training) or a 2 (validation) for each pair",
            ) from error
        if not set(marks) <= {"1", "2"}:
            raise DataError("not a list of 1 and 2", file=path, expected="a 1 or a 2 for each pair")
        return marks


class Sintel(FlowPairs):
    """MPI Sintel (an animated film): training/{clean,final}/SCENE/frame_0001.png, training/flow/SCENE/*.flo.

    The flow of the benchmark's own test scenes is not public: all three splits are cut out of `training`, by
    scene, so results on "test" here are not those of the benchmark. Pixels marked in training/invalid are not
    valid, where that folder is there; occluded pixels are valid.

    Args:
        rendering: "clean" (no blur, no atmosphere) or "final".

    Raises:
        DataError: a folder or a frame is missing.
    """

    name: ClassVar[str] = "sintel"
    summary: ClassVar[str] = "MPI Sintel: training/{clean,final,flow}/SCENE/frame_0001.{png,flo}"
    protocol: ClassVar[Mapping[str, str]] = {
        "ignored": "pixels marked in training/invalid; occluded ones are judged",
        "reference": "Butler et al., A Naturalistic Open Source Movie for Optical Flow Evaluation, ECCV "
        "2012; the split is this toolkit's own",
    }

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        clip: Clip | None = None,
        rendering: str = "clean",
    ) -> None:
        if rendering not in ("clean", "final"):
            raise unknown_name("rendering", rendering, ("clean", "final"))
        self.rendering = rendering
        super().__init__(root, split, clip)

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Flow beside a rendering."""
        return any(
            (folder / "flow").is_dir() and ((folder / "clean").is_dir() or (folder / "final").is_dir())
            for base in _roots(root, "Sintel", "MPI-Sintel-complete")
            for folder in (base, base / "training")
        )

    def pairs(self) -> list[FlowPair]:
        """See `FlowPairs.pairs`."""
        flows = _with(self.root, "flow", "training", "Sintel/training", "MPI-Sintel-complete/training")
        photographs, masks = flows.parent / self.rendering, flows.parent / "invalid"
        files = sorted(flows.glob("*/*.flo"))
        if not files or not photographs.is_dir():
            raise DataError(
                "no flow" if not files else "no such folder",
                file=photographs if files else flows,
                expected="a folder for each scene",
            )
        pairs = []
        for file in three_parts(files, [file.parent.name for file in files], self.split):
            scene = file.parent.name
            head, _, number = file.stem.rpartition("_")
            if not number.isdecimal():
                raise DataError("not the flow of a numbered frame", file=file, expected="frame_0001.flo")
            following = f"{head}_{int(number) + 1:0{len(number)}d}.png"
            first, second = (photographs / scene / name for name in (f"{file.stem}.png", following))
            _check_there(first, second)
            mask = masks / scene / first.name
            pairs.append(FlowPair(first, second, file, mask if mask.is_file() else None))
        return pairs


class KITTIFlow(FlowPairs):
    """KITTI 2015 and 2012: training/image_2/000000_{10,11}.png, training/flow_occ/000000_10.png.

    Of KITTI 2012 the photographs are in `colored_0` or `image_0` (grey). The flow of the benchmark's own test
    pairs is not public: all three splits are cut out of `training`, so results on "test" here are not those
    of the benchmark. The flow is of both visible and occluded pixels, and sparse.

    Raises:
        DataError: a folder or a photograph is missing.
    """

    name: ClassVar[str] = "kitti_flow"
    summary: ClassVar[str] = (
        "KITTI 2012 and 2015 flow: training/{image_2,colored_0,image_0} and training/flow_occ"
    )
    protocol: ClassVar[Mapping[str, str]] = {
        "ignored": "pixels without a laser point; occluded ones are judged (flow_occ)",
        "reference": "Menze and Geiger, Object Scene Flow for Autonomous Vehicles, CVPR 2015; the split is "
        "this toolkit's own",
    }

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """The folder `flow_occ`."""
        return any(
            (folder / "flow_occ").is_dir()
            for base in _roots(root, "KittiFlow")
            for folder in (base, base / "training")
        )

    def pairs(self) -> list[FlowPair]:
        """See `FlowPairs.pairs`."""
        flows = _with(self.root, "flow_occ", "training", "KittiFlow/training")
        kinds = [flows.parent / name for name in ("image_2", "colored_0", "image_0")]
        photographs = next((folder for folder in kinds if folder.is_dir()), None)
        files = sorted(flows.glob("*_10.png"))
        if not files or photographs is None:
            raise DataError(
                "no flow" if photographs else "no photographs",
                file=flows if photographs else flows.parent,
                expected="*_10.png" if photographs else "a folder image_2, colored_0 or image_0",
            )
        pairs = []
        for file in three_parts(files, [file.stem for file in files], self.split):
            first = photographs / file.name
            second = photographs / f"{file.stem.removesuffix('_10')}_11.png"
            _check_there(first, second)
            pairs.append(FlowPair(first, second, file))
        return pairs

    def read_flow(self, path: Path) -> tuple[Float[Tensor, "2 h w"], Bool[Tensor, "h w"]]:
        """Flow and validity of KITTI's 16-bit PNG."""
        return read_kitti_flow(path)


def _roots(root: Path, *names: str) -> list[Path]:
    return [root, *(root / name for name in names)]


def _with(root: Path, marker: str, *names: str) -> Path:
    """The folder of a name, in the root or in one of some folders of it."""
    for base in _roots(root, *names):
        if (base / marker).is_dir():
            return base / marker
    raise DataError(
        "no such folder" if not root.is_dir() else f"no folder {marker!r}",
        file=root,
        expected=f"{marker} in it" + "".join(f", or in {name}" for name in names),
    )


def _check_there(*images: Path) -> None:
    for image in images:
        if not image.is_file():
            raise DataError("no such file", file=image, expected="both images of each flow")


def _check_size(file: Path, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise DataError(
            f"{found[1]} x {found[0]} pixels",
            file=file,
            expected=f"{expected[1]} x {expected[0]}, as the first image",
        )
