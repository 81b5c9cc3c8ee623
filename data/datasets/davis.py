"""DAVIS 2016 and 2017: videos with the masks of their moving objects in every frame."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from transframer.data.dataset import part_of_training
from transframer.data.datasets.label_maps import consecutive, read_numbers
from transframer.data.datasets.own_folders import FrameFiles
from transframer.data.datasets.sequences import FrameSequence, SequenceDataset
from transframer.errors import DataError, unknown_name
from transframer.task import Clip

_CLASSES = ("background", "object")
_YEARS = ("2017", "2016")
_NOT_LABELLED = 255


class DAVIS(SequenceDataset):
    """JPEGImages/480p/SEQ/*.jpg, Annotations/480p/SEQ/*.png, and ImageSets/YEAR/{train,val}.txt.

    "test" is the part val; "validation" is cut from train by whole sequences. `mask` tells objects (1) from
    the background (0); `instances` numbers the objects of a frame in the order of DAVIS, without gaps. The
    labels are those of the first context frame.

    Args:
        year: "2017" or "2016" (one object a video); by default 2017 where its lists are there.
        resolution: the folder of images: "480p" or "Full-Resolution".
    """

    name: ClassVar[str] = "davis"
    summary: ClassVar[str] = "DAVIS 2016 and 2017: videos with masks of their objects"
    protocol: ClassVar[Mapping[str, str]] = {
        "split": "val of DAVIS 2017 (30 videos) or 2016 (20 videos)",
        "reference": "Pont-Tuset et al., The 2017 DAVIS Challenge on Video Object Segmentation, 2017",
    }

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        clip: Clip | None = None,
        frame_stride: int | None = None,
        window_stride: int | None = None,
        year: str | None = None,
        resolution: str = "480p",
    ) -> None:
        super().__init__(root, split, clip, frame_stride, window_stride)
        self._images = self.root / "JPEGImages" / resolution
        self._annotations = self.root / "Annotations" / resolution
        for folder in (self._images, self._annotations):
            if not folder.is_dir():
                raise DataError(
                    "no such folder", file=folder, expected=f"{folder.relative_to(self.root)}/SEQ"
                )
        if year is not None and str(year) not in _YEARS:
            raise unknown_name("year", str(year), _YEARS)
        names = self._names("val" if split == "test" else "train", [str(year)] if year else _YEARS)
        self._sequence_names = names if split == "test" else part_of_training(names, names, split)
        for name in self._sequence_names:
            if not (self._images / name).is_dir():
                raise DataError(f"no frames of {name}", file=self._images / name)

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """JPEGImages, Annotations and ImageSets, with videos in folders of a resolution."""
        return any(
            (root / "JPEGImages" / size).is_dir() and (root / "Annotations" / size).is_dir()
            for size in ("480p", "Full-Resolution")
        )

    @property
    def labels(self) -> frozenset[str]:
        """Masks of objects and of each object."""
        return frozenset({"mask", "instances", "instance_labels"})

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Background and object."""
        return {"mask": _CLASSES, "instance_labels": _CLASSES}

    @cached_property
    def sequences(self) -> Sequence[FrameSequence]:
        """The videos of the split, in the order of the list."""
        return [_Video(self._images / name, self._annotations / name) for name in self._sequence_names]

    def _names(self, part: str, years: Sequence[str]) -> list[str]:
        # The release of 2016 calls its folder of lists 480p.
        places = [self.root / "ImageSets" / year / f"{part}.txt" for year in years]
        places += [self.root / "ImageSets" / "480p" / f"{part}.txt"] * ("2016" in years)
        for file in places:
            try:
                lines = file.read_text(encoding="utf-8").split("\n")
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise DataError(f"cannot be read: {error}", file=file) from error
            words = [line.split()[0] for line in lines if line.strip()]
            # The lists of 2016 name every frame: "/JPEGImages/480p/bear/00000.jpg /Annotations/...".
            names = [Path(word).parent.name if word.endswith(".jpg") else word for word in words]
            return list(dict.fromkeys(names))
        raise DataError("no such list", file=places[0], expected="the names of videos, one a line")


class _Video(FrameFiles):
    """A video with a palette image of object numbers for each frame."""

    def __init__(self, images: Path, annotations: Path) -> None:
        super().__init__(images.name, sorted(images.glob("*.jpg")), frames_per_s=24.0)
        self._annotations = annotations

    def _annotation(self, frame: int) -> Path:
        return self._annotations / f"{self.paths[frame].stem}.png"

    def files(self, frames: Sequence[int]) -> Sequence[Path]:
        """The images, and the annotation of the first."""
        return [*super().files(frames), self._annotation(frames[0])]

    def label_fields(self, frame: int, keys: Collection[str]) -> dict[str, Any]:
        """Objects of a frame."""
        numbers = read_numbers(self._annotation(frame), self.paths[frame])
        # The release of 2016 draws its one object in white, later ones in palette colours 1, 2, ...
        if set(np.unique(numbers)) <= {0, _NOT_LABELLED}:
            numbers = numbers // _NOT_LABELLED
        unknown = numbers == _NOT_LABELLED
        instances, found = consecutive(np.where(unknown, 0, numbers))
        mask = torch.from_numpy(np.where(unknown, _NOT_LABELLED, numbers > 0).astype(np.int64))
        labels = torch.ones(len(found), dtype=torch.int64)
        fields = {"mask": mask, "instances": instances, "instance_labels": labels}
        return {key: value for key, value in fields.items() if key in keys}
