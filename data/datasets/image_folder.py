"""Images in one folder for each class, ImageNet among them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from transframer.data.dataset import part_of_training, three_parts
from transframer.data.datasets.own_folders import is_hidden
from transframer.data.datasets.stills import StillDataset
from transframer.data.formats.images import load_image
from transframer.errors import DataError
from transframer.task import Clip

_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}
_HELD_OUT = ("val", "validation", "valid")
_SYNSETS = "LOC_synset_mapping.txt"
_NAME_FILES = ("imagenet_class_index.json", "Labels.json")


class ImageFolder(StillDataset):
    """Images whose class is the name of the folder they lie in, at any depth below it.

    With split folders, root/{train, val | validation | valid, test}/CLASS: "test" is the test folder where it
    has class folders, else the val folder; where the data set has both, val is not used. Without split
    folders, root/CLASS, or with only a train folder, a tenth is cut off for "test" by a hash of the paths.
    The classes are the sorted folder names of the train folder. Where the root holds LOC_synset_mapping.txt
    (ImageNet as Kaggle packs it), imagenet_class_index.json or Labels.json, they get the names given there.
    """

    name: ClassVar[str] = "image_folder"
    summary: ClassVar[str] = "one folder of images for each class, with or without split folders; ImageNet"

    def __init__(self, root: Path | str, split: str = "train", clip: Clip | None = None) -> None:
        super().__init__(root, split, clip)
        if not self.root.is_dir():
            raise DataError("no such folder", file=self.root)
        training, held_out = _split_folders(self.root)
        self._folder = held_out if split == "test" and held_out else training
        if self._folder is None:
            raise DataError(
                f"no train folder, which {split!r} needs",
                file=self.root,
                expected="train/CLASS/image.jpg beside the folder that is held out",
                next_step="to cut one folder into splits, name that folder as the root",
            )
        folders = _class_folders(training or self._folder)
        if not folders:
            raise DataError("no class folders", file=training, expected="CLASS/image.jpg")
        unknown = sorted(set(_class_folders(self._folder)) - set(folders))
        if unknown:
            raise DataError(
                f"class folder {unknown[0]!r}, which {training} lacks",
                file=self._folder,
                expected="the class folders of the train folder",
            )
        self._names = _class_names(self.root, folders)
        paths = [
            (path, place) for place, name in enumerate(folders) for path in _images_below(self._folder, name)
        ]
        if not paths:
            raise DataError("no image", file=self._folder, expected=f"files {', '.join(sorted(_IMAGES))}")
        if self._folder == training:
            paths = _cut(paths, split, held_out is None)
        # Arrays, not lists: a million strings would be copied into each worker as it counts references.
        self._paths = np.array([os.fsencode(path) for path, _ in paths])
        self._labels = np.array([place for _, place in paths])

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Class folders with images right in them, at least two."""
        if not root.is_dir():
            return False
        training, held_out = _split_folders(root)
        folder = training or held_out or root
        with_images = (name for name in _class_folders(folder) if _holds_images(folder / name))
        return len(list(islice(with_images, 2))) == 2

    @property
    def labels(self) -> frozenset[str]:
        """Always the class."""
        return frozenset({"label"})

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the classes of `label`."""
        return {"label": self._names}

    def __len__(self) -> int:
        return len(self._paths)

    def files(self, index: int) -> Sequence[Path]:
        """The image."""
        return [self._folder / os.fsdecode(self._paths[index])]  # type: ignore[operator]

    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """See `load_image`."""
        return load_image(self.files(index)[0])

    def label_fields(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """The class."""
        return {"label": int(self._labels[index])}


def _split_folders(root: Path) -> tuple[Path | None, Path | None]:
    """The folder to train on and the one held out; (root, None) where there are no split folders."""
    training = root / "train"
    test = root / "test"
    # A test folder without class folders is one without labels, as ImageNet's.
    held_out = [test] if test.is_dir() and _class_folders(test) else []
    held_out += [root / name for name in _HELD_OUT if (root / name).is_dir()]
    if not training.is_dir() and not held_out:
        return root, None
    return training if training.is_dir() else None, held_out[0] if held_out else None


def _class_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(Path(entry)))


def _holds_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(Path(entry.name).suffix.lower() in _IMAGES for entry in islice(entries, 100))


def _images_below(folder: Path, name: str) -> list[str]:
    """Paths of the images of a class, relative to the folder, sorted."""
    found = []
    for place, folders, names in os.walk(folder / name, followlinks=True):
        folders[:] = [each for each in folders if not is_hidden(Path(each))]
        inside = os.path.relpath(place, folder)
        found += [
            os.path.join(inside, file)
            for file in names
            if os.path.splitext(file)[1].lower() in _IMAGES and not is_hidden(Path(file))
        ]
    return sorted(found)


def _cut(paths: list[tuple[str, int]], split: str, with_test: bool) -> list[tuple[str, int]]:
    """The part of the images of one folder that is a split; `with_test` where "test" too is cut out of it."""
    keys = [path.replace(os.sep, "/") for path, _ in paths]
    if with_test:
        return three_parts(paths, keys, split)
    return paths if split == "test" else part_of_training(paths, keys, split)


def _class_names(root: Path, folders: Sequence[str]) -> tuple[str, ...]:
    """Readable names of ImageNet's folders where a file tells them; else the folders' names."""
    names = {}
    try:
        if (root / _SYNSETS).is_file():
            lines = (root / _SYNSETS).read_text(encoding="utf-8").splitlines()
            names = {wnid: name for wnid, _, name in (line.strip().partition(" ") for line in lines)}
        elif (
            found := next((root / name for name in _NAME_FILES if (root / name).is_file()), None)
        ) is not None:
            # {"n01440764": "tench"} or {"0": ["n01440764", "tench"]}
            entries = json.loads(found.read_text(encoding="utf-8")).items()
            pairs = (tuple(value) if isinstance(value, list) else (key, value) for key, value in entries)
            names = dict(pairs)
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"cannot be read as names of classes: {error}", file=root) from error
    named = [names.get(folder) or folder for folder in folders]
    # ImageNet has two cranes, a bird and a machine.
    twice = {name for name, count in Counter(named).items() if count > 1}
    return tuple(
        f"{name} ({folder})" if name in twice else name for name, folder in zip(named, folders, strict=True)
    )
