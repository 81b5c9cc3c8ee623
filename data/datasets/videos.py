"""Folders of video files; UCF101 and Kinetics among them, whose videos have a class."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import UInt8
from torch import Tensor

from transframer.data.dataset import part_of_training
from transframer.data.datasets.own_folders import (
    IMAGE_SUFFIXES,
    cut,
    files_below,
    folder_of_split,
    split_folders,
)
from transframer.data.datasets.sequences import FrameSequence, SequenceDataset
from transframer.data.formats.video import VIDEO_SUFFIXES, VideoFile
from transframer.errors import DataError
from transframer.task import Clip

_UCF_VIDEOS, _UCF_LISTS = "UCF-101", "ucfTrainTestlist"
_UCF_GROUP = re.compile(r"v_(.+_g\d+)_c\d+")
_KINETICS_TIMES = re.compile(r"_\d{6}_\d{6}$")  # NAME_000010_000020.mp4 is a part of one video
_THREADS = 8


class Videos(SequenceDataset):
    """Video files in a root, at any depth, or in folders train, val and test (see `folder_of_split`).

    Without split folders, videos are cut into splits by a hash of their paths. Two layouts have a `label`,
    the class of the video, which every frame then has:

    UCF101: UCF-101/CLASS/v_CLASS_g01_c01.avi and ucfTrainTestlist/{trainlist01,testlist01}.txt. "test" is
    the official test list of split 1; "validation" is cut from its training list by whole groups (g01), since
    the clips of a group are parts of one recording.

    Kinetics: {train,val}/CLASS/*.mp4, each video right in the folder of its class.

    Frames are counted when the data set is first asked for its length: that opens every video, some
    milliseconds each. A video that cannot be opened is an error then, and names the file.
    """

    name: ClassVar[str] = "videos"
    summary: ClassVar[str] = "a folder of videos (mp4, avi, webm, mov, mkv, gif); UCF101, Kinetics"
    protocol: ClassVar[Mapping[str, str]] = {
        "UCF101": "split 1 of the three official ones (Soomro et al., 2012); papers report the mean of three",
        "Kinetics": "the validation part (Kay et al., 2017)",
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
        if not self.root.is_dir():
            raise DataError("no such folder", file=self.root)
        self._class_names: tuple[str, ...] = ()
        if (self.root / _UCF_VIDEOS).is_dir():
            self._folder = self.root / _UCF_VIDEOS
            self._names = self._ucf101()
        else:
            folders = split_folders(self.root)
            self._class_names = _kinetics_classes(folders)
            if self._class_names:  # Kinetics' own test videos lie flat, without classes
                folders = {name: folder for name, folder in folders.items() if _class_folders(folder)}
            self._folder, cuts = folder_of_split(self.root, split, folders)
            names = _videos_below(self._folder)
            if not names:
                raise DataError("no video", file=self._folder, expected=f"files {', '.join(VIDEO_SUFFIXES)}")
            keys = [_KINETICS_TIMES.sub("", Path(name).stem) if self._class_names else name for name in names]
            self._names = cut(names, keys, split, cuts)

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """More videos than images, somewhere below the folder."""
        if not root.is_dir():
            return False
        videos = _videos_below(root)
        images = sum(map(len, files_below(root, IMAGE_SUFFIXES).values())) if videos else 0
        return len(videos) > images

    @property
    def labels(self) -> frozenset[str]:
        """The class of the video, where the layout has one."""
        return frozenset({"label"} if self._class_names else ())

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """The class folders, sorted; of UCF101 in the order of its classInd.txt."""
        return {"label": self._class_names} if self._class_names else {}

    @cached_property
    def sequences(self) -> Sequence[FrameSequence]:
        """One for each video, its frames counted."""
        places = {name: place for place, name in enumerate(self._class_names)}
        videos = [VideoFile(self._folder / name) for name in self._names]
        with ThreadPoolExecutor(_THREADS) as pool:  # opening waits for the disk
            facts = list(pool.map(lambda video: video.facts, videos))
        return [
            _Video(name, video, places.get(Path(name).parts[0]), fact.frames_per_s)
            for name, video, fact in zip(self._names, videos, facts, strict=True)
        ]

    def _ucf101(self) -> list[str]:
        """The videos of the split, and the names of classes."""
        lists = self.root / _UCF_LISTS
        file = lists / ("testlist01.txt" if self.split == "test" else "trainlist01.txt")
        names = [line.split()[0] for line in _lines(file)]
        for name in names:
            if not (self._folder / name).is_file():
                raise DataError(f"no video {name}", file=self._folder, expected=f"those of {file}")
        numbered = _lines(lists / "classInd.txt") if (lists / "classInd.txt").is_file() else []
        folders = (path.name for path in self._folder.iterdir() if path.is_dir() and path.name[0] != ".")
        self._class_names = tuple(line.split()[1] for line in numbered) or tuple(sorted(folders))
        unknown = {Path(name).parts[0] for name in names} - set(self._class_names)
        if unknown:
            raise DataError(
                f"class {min(unknown)!r}", file=file, expected=f"those of {lists / 'classInd.txt'}"
            )
        if self.split == "test":
            return names
        groups = [_UCF_GROUP.fullmatch(Path(name).stem) for name in names]
        keys = [group[1] if group else name for group, name in zip(groups, names, strict=True)]
        return part_of_training(names, keys, self.split)


class _Video(FrameSequence):
    """A video file, and the class that it shows."""

    def __init__(self, name: str, video: VideoFile, label: int | None, frames_per_s: float | None) -> None:
        self.name, self.frames_per_s = name, frames_per_s
        self._video, self._label = video, label

    def __len__(self) -> int:
        return len(self._video)

    def images(self, frames: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        """See `FrameSequence.images`."""
        return self._video.frames(frames)

    def files(self, frames: Sequence[int]) -> Sequence[Path]:
        """See `FrameSequence.files`."""
        return [self._video.path]

    def label_fields(self, frame: int, keys: Collection[str]) -> dict[str, Any]:
        """See `FrameSequence.label_fields`."""
        return {} if self._label is None else {"label": self._label}


def _videos_below(folder: Path) -> list[str]:
    return [name for names in files_below(folder, VIDEO_SUFFIXES).values() for name in names]


def _class_folders(folder: Path) -> set[str]:
    """The folders in a folder, where every video lies right in one of them; else none."""
    paths = [Path(name).parts for name in _videos_below(folder)]
    return {path[0] for path in paths} if all(len(path) == 2 for path in paths) else set()


def _kinetics_classes(folders: Mapping[str, Path]) -> tuple[str, ...]:
    """The classes: the folders in train, where these are two or more, and val has no others."""
    found = {split: _class_folders(folder) for split, folder in folders.items()}
    classes = found.get("train", set())
    same = all(names <= classes and (names or split == "test") for split, names in found.items())
    return tuple(sorted(classes)) if same and len(classes) > 1 else ()


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", file=path, expected="UCF101's list of videos") from error
    return [line for line in lines if line.strip()]
