"""Folders of frames: one folder of numbered images for each video."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from transframer.data.datasets.own_folders import (
    IMAGE_SUFFIXES,
    Cuts,
    FrameFiles,
    cut,
    files_below,
    folder_of_split,
    split_folders,
)
from transframer.data.datasets.sequences import FrameSequence, SequenceDataset
from transframer.data.formats.images import opened_image
from transframer.errors import ConfigError, DataError
from transframer.task import Clip

_HELD_OUT_SHARE = 0.1


class FrameFolders(SequenceDataset):
    """Sequences root/SEQ/*.jpg at any depth, frames in natural order (2 before 10).

    Splits lie in folders train, val and test where there are such (see `folder_of_split`); else sequences are
    cut by a hash of their names. A root that holds frames directly is one sequence, which is cut in time: the
    last tenth is "test", the tenth before it "validation".

    Args:
        frames_per_s: of all sequences; without it, neighbouring frames are taken, and times are as if these
            were the clip's step apart.
    """

    name: ClassVar[str] = "frames"
    summary: ClassVar[str] = "one folder of numbered images for each video, with or without split folders"

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        clip: Clip | None = None,
        frame_stride: int | None = None,
        window_stride: int | None = None,
        frames_per_s: float | None = None,
    ) -> None:
        super().__init__(root, split, clip, frame_stride, window_stride)
        if frames_per_s is not None and frames_per_s <= 0:
            raise ConfigError(f"{frames_per_s}", field="frames_per_s", expected="a rate above 0")
        self._frames_per_s = frames_per_s
        self._folder, cuts = folder_of_split(self.root, split)
        found = files_below(self._folder, IMAGE_SUFFIXES)
        if not found:
            raise DataError(
                "no frame", file=self._folder, expected=f"SEQUENCE/00000.jpg; {', '.join(IMAGE_SUFFIXES)}"
            )
        if len(found) == 1:
            ((name, frames),) = found.items()
            start, end = _part_in_time(len(frames), split, cuts)
            self._found = {name: frames[start:end]}
        else:
            self._found = {name: found[name] for name in cut(list(found), list(found), split, cuts)}

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Folders with images of one size, numbered in equal steps; or the root is such a folder."""
        if not root.is_dir():
            return False
        folder = next(iter(split_folders(root).values()), root)
        found = list(files_below(folder, IMAGE_SUFFIXES).values())
        return bool(found) and all(_numbered([folder / name for name in names]) for names in found[:8])

    @cached_property
    def sequences(self) -> Sequence[FrameSequence]:
        """One for each folder with images right in it."""
        return [
            FrameFiles(name, [self._folder / frame for frame in frames], self._frames_per_s)
            for name, frames in self._found.items()
        ]


def _part_in_time(frames: int, split: str, cuts: Cuts) -> tuple[int, int]:
    """First frame, and the one after the last, of the part of a single sequence."""
    held_out = [name for name in ("validation", "test") if cuts == "both" or cuts == name]
    share = max(1, round(frames * _HELD_OUT_SHARE)) if held_out else 0
    ends = [frames - share * place for place in range(len(held_out), -1, -1)]
    place = ["train", *held_out].index(split) if split in held_out else 0
    return (0 if place == 0 else ends[place - 1]), ends[place]


def _numbered(paths: Sequence[Path]) -> bool:
    """Whether names differ by a number that rises in equal steps, and the first images are of one size."""
    parts = [re.fullmatch(r"(.*?)(\d+)", path.stem) for path in paths]
    if len(paths) < 2 or not all(parts) or len({part[1] for part in parts if part}) > 1:
        return False
    numbers = sorted(int(part[2]) for part in parts if part)
    if len({after - before for before, after in pairwise(numbers)}) > 1:
        return False
    try:
        sizes = set()
        for path in paths[:3]:
            with opened_image(path) as image:
                sizes.add(image.size)
    except DataError:
        return False
    return len(sizes) == 1
