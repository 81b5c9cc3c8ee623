"""COCO's JSON: its lists of images and categories, and the files of its splits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from transframer.data.formats.images import load_image
from transframer.errors import ConfigError, DataError

PARTS = {"train": ("train",), "validation": ("train",), "test": ("test", "val", "valid")}
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


class ImageTable:
    """The images that a COCO JSON lists, in the order of their ids.

    Attributes:
        place: the place in this order of each id.
    """

    def __init__(self, images: Sequence[Mapping[str, Any]], file: Path) -> None:
        self._file = file
        try:
            ordered = sorted(images, key=lambda image: image["id"])
            self.place = {image["id"]: place for place, image in enumerate(ordered)}
            self._names = np.array([image["file_name"].encode() for image in ordered])
            self._sizes = np.array([(int(image["height"]), int(image["width"])) for image in ordered])
        except MALFORMED as error:
            raise DataError(
                f"an image that lacks {error}",
                file=file,
                field="images",
                expected="id, file_name, height, width",
            ) from error
        if not ordered:
            raise DataError("no image", file=file, field="images")
        if len(self.place) < len(ordered):
            raise DataError("an id that two images have", file=file, field="images")

    def __len__(self) -> int:
        return len(self._names)

    def name(self, place: int) -> str:
        """The file of an image, relative to the folder of images."""
        return bytes(self._names[place]).decode()

    def size(self, place: int) -> tuple[int, int]:
        """Height and width."""
        return int(self._sizes[place][0]), int(self._sizes[place][1])

    def load(self, folder: Path, place: int) -> UInt8[Tensor, "3 h w"]:
        """An image of a folder.

        Raises:
            DataError: it cannot be read, or has not the size of the table.
        """
        image = load_image(folder / self.name(place))
        if tuple(image.shape[1:]) != self.size(place):
            height, width = self.size(place)
            raise DataError(
                f"an image of {image.shape[2]} x {image.shape[1]} pixels",
                file=folder / self.name(place),
                expected=f"{width} x {height}, as {self._file} says",
            )
        return image


def categories(entries: Sequence[Mapping[str, Any]], file: Path) -> tuple[dict[int, int], tuple[str, ...]]:
    """The class of each category id, and the names, in the order of the ids.

    Raises:
        DataError: none, two of one id, or without a name.
    """
    try:
        ordered = sorted(entries, key=lambda entry: entry["id"])
        class_of = {entry["id"]: place for place, entry in enumerate(ordered)}
        names = tuple(str(entry["name"]) for entry in ordered)
    except MALFORMED as error:
        raise DataError(
            f"a category that lacks {error}", file=file, field="categories", expected="id and name"
        ) from error
    if not names or len(class_of) < len(names):
        raise DataError(
            "an id that two categories have" if names else "no category", file=file, field="categories"
        )
    return class_of, names


def read_json(path: Path, lists: Sequence[str]) -> dict[str, Any]:
    """A JSON object with these lists in it.

    Raises:
        DataError: the file is missing or no JSON, or a list is.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=path) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON, or truncated: {error}", file=path) from error
    for name in lists:
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise DataError("no such list", file=path, field=name, expected=f"lists {', '.join(lists)}")
    return content


def annotation_files(root: Path, kind: str, part: str, year: int | str | None = None) -> list[Path]:
    """The files annotations/KIND_PART[year].json, of this year where one is given."""
    pattern = re.compile(rf"{kind}_{part}({r'[0-9]*' if year is None else re.escape(str(year))})\.json")
    return sorted(path for path in (root / "annotations").glob("*.json") if pattern.fullmatch(path.name))


def split_files(root: Path, kind: str, split: str, year: int | str | None) -> tuple[Path, Path] | None:
    """The annotations of a split in COCO's layout and the folder of their images; None where there are none.

    Raises:
        ConfigError: annotations of several years, and none was chosen.
        DataError: no folder of images.
    """
    for part in PARTS[split]:
        found = annotation_files(root, kind, part, year)
        if len(found) > 1:
            raise ConfigError(
                f"several: {', '.join(path.name for path in found)}", field="year", expected="the one to read"
            )
        if found:
            name = found[0].stem.removeprefix(f"{kind}_")
            folders = [root / name, root / "images" / name, root / "images"]
            for folder in folders:
                if folder.is_dir():
                    return found[0], folder
            raise DataError("no such folder", file=folders[0], expected=f"the images of {found[0].name}")
    return None
