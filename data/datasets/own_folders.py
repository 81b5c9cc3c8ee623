"""What the formats of people's own folders share: splits, the order of files, sequences of them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from jaxtyping import UInt8
from torch import Tensor

from transframer.data.dataset import part_of_training, three_parts
from transframer.data.datasets.sequences import FrameSequence, images_of_one_size
from transframer.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
Item = TypeVar("Item")
# What is cut out of the items of a folder by a hash: nothing, "validation", or "test" and "validation".
Cuts = Literal["none", "validation", "both"]
_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "valid"),
    "test": ("test", "testing"),
}
_DIGITS = re.compile(r"(\d+)")


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of splits in a root, by our names of the splits."""
    found = {
        split: [root / name for name in names if (root / name).is_dir()] for split, names in _NAMES.items()
    }
    return {split: folders[0] for split, folders in found.items() if folders}


def folder_of_split(root: Path, split: str, folders: Mapping[str, Path] | None = None) -> tuple[Path, Cuts]:
    """The folder that a split lies in, and what is cut out of it.

    "test" is the folder test, or else the folder val. "validation" is the folder val where there is a folder
    test too; else it is cut from train. Without such folders all three are cut from the root.

    Args:
        folders: of splits; by default all that there are.

    Raises:
        DataError: no such folder, or split folders without the one that is needed.
    """
    if not root.is_dir():
        raise DataError("no such folder", file=root)
    folders = dict(split_folders(root) if folders is None else folders)
    if not folders:
        return root, "both"
    if "test" not in folders and "validation" in folders:
        folders["test"] = folders.pop("validation")
    if split in folders and (split != "train" or "validation" in folders):
        return folders[split], "none"
    if "train" in folders:
        return folders["train"], "validation" if "test" in folders else "both"
    raise DataError(
        f"no folder of the split {split}",
        file=root,
        expected=f"one of {', '.join(_NAMES['train' if split == 'validation' else split])}",
        next_step="to cut one folder into splits, name that folder as the root",
    )


def cut(items: Sequence[Item], keys: Sequence[str], split: str, cuts: Cuts) -> list[Item]:
    """The items of a split.

    Args:
        keys: see `part_of_training`.

    Raises:
        DataError: too few to cut.
    """
    needed = {"none": 0, "validation": 2, "both": 3}[cuts]
    if len(set(keys)) < needed:
        raise DataError(
            f"{len(set(keys))} to divide among {needed} splits",
            expected="at least one for each (of videos, scenes, images)",
            next_step="add more, or arrange them in folders train, val and test",
        )
    if cuts == "both":
        return three_parts(items, keys, split)
    return list(items) if cuts == "none" or split == "test" else part_of_training(items, keys, split)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts names as people do: frame 2 before frame 10.

    >>> sorted(["10.png", "2.png", "a.png"], key=natural_key)
    ['2.png', '10.png', 'a.png']
    """
    return [
        (0, int(part), part) if part.isdecimal() else (1, 0, part) for part in _DIGITS.split(name) if part
    ]


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is not meant to be seen, or is what macOS leaves: ._NAME, __MACOSX."""
    return path.name.startswith((".", "__MACOSX"))


def files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files right in a folder with these suffixes (lower case), as people count them; no hidden ones."""
    inside = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    return [path for path in inside if path.suffix.lower() in suffixes and not is_hidden(path)]


def files_below(folder: Path, suffixes: Collection[str]) -> dict[str, list[str]]:
    """The files with these suffixes (lower case) by folder, at any depth, as paths in the folder, in order.

    Hidden files and folders are left out; the folder itself is ".".
    """
    found = {}
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(Path(name))]
        files = [n for n in names if os.path.splitext(n)[1].lower() in suffixes and not is_hidden(Path(n))]
        if files:
            inside = Path(os.path.relpath(place, folder)).as_posix()
            prefix = "" if inside == "." else f"{inside}/"
            found[inside] = [prefix + name for name in sorted(files, key=natural_key)]
    return {place: found[place] for place in sorted(found, key=natural_key)}


class FrameFiles(FrameSequence):
    """A sequence of image files of one size.

    Attributes:
        paths: of the frames, in order.
    """

    def __init__(self, name: str, paths: Sequence[Path], frames_per_s: float | None = None) -> None:
        self.name, self.paths, self.frames_per_s = name, tuple(paths), frames_per_s

    def __len__(self) -> int:
        return len(self.paths)

    def files(self, frames: Sequence[int]) -> Sequence[Path]:
        """The images."""
        return [self.paths[frame] for frame in frames]

    def images(self, frames: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        """See `FrameSequence.images`."""
        return images_of_one_size([self.paths[frame] for frame in frames])
