"""Our own plain layout for people who have nothing standard: docs/folder-layout.md."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from transframer.data.datasets.folder_labels import KINDS, FolderLabels, read_table
from transframer.data.datasets.own_folders import (
    IMAGE_SUFFIXES,
    FrameFiles,
    cut,
    files_in,
    folder_of_split,
    is_hidden,
    natural_key,
    split_folders,
)
from transframer.data.datasets.sequences import FrameSequence, SequenceDataset
from transframer.data.formats.cameras import read_cameras
from transframer.errors import DataError
from transframer.frames import Camera
from transframer.task import Clip

_SPLIT_NAMES = ("train", "val", "validation", "test")


class Folder(SequenceDataset):
    """images/NAME.jpg, or images/NAME/0.png, 1.png, ... in time order; beside them labels by the same NAME.

    Labels (masks/NAME.png, labels.csv, boxes.json, depth/NAME.png, ...) are those of the first image of a
    NAME; docs/folder-layout.md defines all. Splits are folders train, val and test that each have this layout
    (see `folder_of_split`), else those of splits.csv, else cut by a hash of the NAMEs.

    Raises:
        DataError: no images, or an image that lacks a label that others have.
    """

    name: ClassVar[str] = "folder"
    summary: ClassVar[str] = "our own plain layout: images/NAME.jpg, and labels by the same NAME"

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        clip: Clip | None = None,
        frame_stride: int | None = None,
        window_stride: int | None = None,
    ) -> None:
        super().__init__(root, split, clip, frame_stride, window_stride)
        folder, cuts = folder_of_split(self.root, split)
        parts = list(split_folders(self.root).values()) or [self.root]
        found = _images(folder)
        if folder == self.root and (self.root / "splits.csv").is_file():
            names = _listed(self.root / "splits.csv", list(found), split)
        else:
            names = cut(list(found), list(found), split, cuts)
        self._labels = FolderLabels(folder, parts, self.root)
        self._labels.check({name: found[name][0] for name in names})
        self._found = {name: found[name] for name in names}
        posed = [
            (paths[0].parent / "cameras.json").is_file() for paths in self._found.values() if len(paths) > 1
        ]
        self._posed = bool(posed) and all(posed) and len(posed) == len(self._found)

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """A folder images with images right in it, or with folders of images and labels beside it."""
        if not root.is_dir():
            return False
        part = next(iter(split_folders(root).values()), root)
        if any((place / "metadata").with_suffix(suffix).is_file() for place in (part, part / "images")
               for suffix in (".csv", ".jsonl")):  # fmt: skip
            return False  # Hugging Face's layout of images with a table
        try:
            found = _images(part)
        except DataError:
            return False
        names = ["labels.csv", "boxes.json", "splits.csv", *KINDS]
        labelled = any((part / name).exists() for name in names)
        first = next(iter(found.values()))
        return labelled or first[0].parent.name == "images" or (first[0].parent / "cameras.json").is_file()

    @property
    def labels(self) -> frozenset[str]:
        """Those whose folders or tables are there."""
        return self._labels.fields | ({"cameras"} if self._posed else set())

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Those of classes.txt, of labels.csv in natural order, and of boxes.json by their ids."""
        return self._labels.classes

    @cached_property
    def sequences(self) -> Sequence[FrameSequence]:
        """One for each NAME; a single image is a sequence of one frame."""
        return [_Entry(name, paths, self._labels) for name, paths in self._found.items()]

    def _windows(self, sequence: FrameSequence) -> int:
        # Labels are those of the first image, so without a target only the first window is of use.
        windows = super()._windows(sequence)
        return windows if self.clip.target else min(1, windows)


class _Entry(FrameFiles):
    """The images of one NAME, with labels of the first."""

    def __init__(self, name: str, paths: Sequence[Path], labels: FolderLabels) -> None:
        super().__init__(name, paths)
        self._labels = labels

    def files(self, frames: Sequence[int]) -> Sequence[Path]:
        """The images, and the files of their labels."""
        cameras = self.paths[0].parent / "cameras.json"
        posed = [cameras] if len(self.paths) > 1 and cameras.is_file() else []
        return [*super().files(frames), *self._labels.paths(self.name), *posed]

    def camera(self, frame: int) -> Camera:
        """From cameras.json beside the images."""
        return self._cameras[frame]

    @cached_property
    def _cameras(self) -> list[Camera]:
        names = [path.name for path in self.paths]
        return read_cameras(self.paths[0].parent / "cameras.json", names)[0]

    def label_fields(self, frame: int, keys: Collection[str]) -> dict[str, Any]:
        """See `FolderLabels.read`; frames other than the first have none."""
        return self._labels.read(self.name, self.paths[0], keys) if frame == 0 else {}


def _images(folder: Path) -> dict[str, list[Path]]:
    """The images of each NAME, in order."""
    images = folder / "images"
    if not images.is_dir():
        raise DataError(
            "no folder of images", file=folder, expected="images/NAME.jpg or images/NAME/0.png, 1.png"
        )
    found: dict[str, list[Path]] = {}
    for path in sorted(images.iterdir(), key=lambda path: natural_key(path.name)):
        if is_hidden(path):
            continue
        if path.is_dir():
            if path.name in _SPLIT_NAMES:
                raise DataError("a split inside images", file=path, expected=f"{path.name}/images/NAME.jpg")
            name, paths = path.name, files_in(path, IMAGE_SUFFIXES)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            name, paths = path.stem, [path]
        else:
            continue
        if name in found:
            raise DataError(f"two images of the name {name}", file=path, expected="each name once")
        if paths:
            found[name] = paths
    if not found:
        raise DataError("no image", file=images, expected=", ".join(IMAGE_SUFFIXES))
    return found


def _listed(table: Path, names: Sequence[str], split: str) -> list[str]:
    """The names of a split by a table; where it has no "validation", that is cut from "train" by a hash."""
    split_of = {Path(name).stem if name not in names else name: part for name, part in
                read_table(table, "split").items()}  # fmt: skip
    for name in names:
        if split_of.get(name) not in ("train", "validation", "test"):
            raise DataError(
                f"{name} is of the split {split_of.get(name)!r}"
                if name in split_of
                else f"no row for {name}",
                file=table,
                expected=f"{name},SPLIT with one of train, validation, test",
            )
    alone = "validation" not in split_of.values()
    part = "train" if alone and split == "validation" else split
    chosen = [name for name in names if split_of[name] == part]
    if alone and split != "test":
        chosen = cut(chosen, chosen, split, "validation")
    if not chosen:
        raise DataError(f"no row of the split {split}", file=table)
    return chosen
