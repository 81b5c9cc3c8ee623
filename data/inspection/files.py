"""The files of a data set by their headers: what cannot be read, sizes of images, copies across splits."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from transframer.data.dataset import Dataset
from transframer.data.formats.images import opened_image, size_of
from transframer.errors import DataError

Item = TypeVar("Item")
# Passes items on while it shows how far they are; gets what is being done, and how many there are.
Track = Callable[[Iterable[Item], str, int], Iterator[Item]]

_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}
_TAIL_OF = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}
_SMALL_BYTES = 2**18


def untracked(items: Iterable[Item], doing: str, total: int) -> Iterator[Item]:
    """The items, with nothing shown."""
    return iter(items)


@dataclass
class Files:
    """What the files of one split are, by their headers.

    Attributes:
        images: how many different image files.
        others: how many different files that are no images by their names: tables, archives, videos.
        sizes: of each record's first image file, width and height; None where it has none or is unreadable.
        unreadable: why, by file.
        bad_records: those that need an unreadable file.
        small: first image files of records that have at most 256 KiB, by their bytes.
    """

    images: int = 0
    others: int = 0
    sizes: list[tuple[int, int] | None] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)
    bad_records: set[int] = field(default_factory=set)
    small: dict[int, list[Path]] = field(default_factory=lambda: defaultdict(list))

    def to_json(self) -> dict[str, int]:
        """The numbers of files; what is wrong with some is said elsewhere."""
        return {"images": self.images, "others": self.others}


def checked_files(dataset: Dataset, indices: Iterable[int], total: int, track: Track = untracked) -> Files:
    """Opens each file of these records once, and reads its header.

    Args:
        total: how many records, for `track`.
    """
    files = Files()
    known: dict[Path, tuple[int, int] | None] = {}
    for index in track(indices, "reading headers", total):
        size, first = None, True
        for path in dataset.files(index):
            if path not in known:
                known[path] = _looked_at(path, files)
                if first and known[path] and (length := path.stat().st_size) <= _SMALL_BYTES:
                    files.small[length].append(path)
            if path in files.unreadable:
                files.bad_records.add(index)
            if first and is_image(path):
                size, first = known[path], False
        files.sizes.append(size)
    return files


def _looked_at(path: Path, files: Files) -> tuple[int, int] | None:
    """The size of an image, None for any other file; notes what cannot be read."""
    try:
        if is_image(path):
            files.images += 1
            return _checked_size(path)
        files.others += 1
        if not path.exists():
            raise DataError("no such file")
        if path.is_file() and not path.stat().st_size:
            raise DataError("an empty file")
    except (DataError, OSError) as error:
        files.unreadable[path] = error.found if isinstance(error, DataError) else str(error)
    return None


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name."""
    return path.suffix.lower() in _IMAGES


def _checked_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as `load_image` gives it; decodes it only where it seems to be cut off.

    Raises:
        DataError: the file is missing, no image, truncated, or larger than the cap.
    """
    with opened_image(path) as image:
        height, width = size_of(image)
        if not _ends_as_it_should(path):
            image.load()  # raises where it is truncated; many files merely have something after their end
    return width, height


def _ends_as_it_should(path: Path) -> bool:
    tail = _TAIL_OF.get(path.suffix.lower(), b"")
    with path.open("rb") as file:
        file.seek(-min(len(tail), file.seek(0, os.SEEK_END)), os.SEEK_END)
        return file.read() == tail


def copies(splits: Mapping[str, Files]) -> list[tuple[Path, Path]]:
    """Files of one split that another has too: small image files of the same content.

    Returns:
        Pairs of the file in the earlier split and in the later one, at most one for each of the latter.
    """
    lengths = defaultdict(set)
    for name, files in splits.items():
        for length in files.small:
            lengths[length].add(name)
    found, first_of = [], dict[tuple[int, str], tuple[str, Path]]()
    for name, files in splits.items():
        for length, paths in files.small.items():
            if len(lengths[length]) < 2:  # without one of its length elsewhere it need not be read
                continue
            for path in paths:
                key = length, hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
                before, original = first_of.setdefault(key, (name, path))
                if before != name:
                    found.append((original, path))
    return found
