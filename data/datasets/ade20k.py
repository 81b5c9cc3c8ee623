"""ADE20K's benchmark of scene parsing: 150 classes at every pixel."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from transframer.data.dataset import part_of_training
from transframer.data.datasets.label_maps import classes_of, read_numbers
from transframer.data.datasets.stills import StillDataset
from transframer.data.formats.images import load_image
from transframer.data.formats.text import read_lines
from transframer.errors import DataError
from transframer.task import Clip

_COUNT = 150
_CLASS_OF = np.array([255, *range(_COUNT)])  # 0 is whatever is none of the classes
# The first of each line's names in the benchmark's objectInfo150.txt, in its order.
_NAMES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth,
door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug,
field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column,
signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path,
stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee
table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair,
boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth,
television, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet,
poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel,
basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot,
animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""


class ADE20K(StillDataset):
    """The SceneParsing benchmark, ADEChallengeData2016: images and a PNG of class numbers for each.

    Args:
        root: the folder ADEChallengeData2016, or the one it lies in. `objectInfo150.txt` there may name the
            classes; the first of each class's names is taken.
    """

    name: ClassVar[str] = "ade20k"
    summary: ClassVar[str] = "ADE20K scene parsing (ADEChallengeData2016), 150 classes"
    protocol: ClassVar[Mapping[str, str]] = {
        "ignored": "pixels of number 0, which are none of the 150 classes",
        "reference": "Zhou et al. 2017, SceneParsing150: mean IoU on the 2,000 images of validation",
    }

    def __init__(self, root: Path | str, split: str = "train", clip: Clip | None = None) -> None:
        super().__init__(root, split, clip)
        base = self._base(self.root)
        if base is None:
            raise DataError(
                "not the folder of ADEChallengeData2016",
                file=self.root,
                expected="images/{training,validation} and annotations/{training,validation} in it",
            )
        part = "validation" if split == "test" else "training"
        self._image_folder, self._mask_folder = base / "images" / part, base / "annotations" / part
        for folder in (self._image_folder, self._mask_folder):
            if not folder.is_dir():
                raise DataError("no such folder", file=folder, expected=f"what {split!r} is read from")
        masks = {path.stem for path in self._mask_folder.glob("*.png")}
        stems = sorted(path.stem for path in self._image_folder.glob("*.jpg"))
        if not stems:
            raise DataError("no image", file=self._image_folder, expected="files *.jpg")
        if missing := sorted(set(stems) - masks):
            raise DataError(
                f"{len(missing)} of {len(stems)} images have no mask",
                file=self._mask_folder / f"{missing[0]}.png",
                expected="one for each image",
            )
        self._stems = np.array(stems if split == "test" else part_of_training(stems, stems, split))
        self._names = _class_names(base / "objectInfo150.txt")

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """The two folders of images and of annotations, with those of a split in both."""
        return cls._base(root) is not None

    @staticmethod
    def _base(root: Path) -> Path | None:
        for base in (root, root / "ADEChallengeData2016"):
            for part in ("training", "validation"):
                if (base / "images" / part).is_dir() and (base / "annotations" / part).is_dir():
                    return base
        return None

    @property
    def labels(self) -> frozenset[str]:
        """Always the mask."""
        return frozenset({"mask"})

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the 150 classes of `mask`; the benchmark's number less 1 is the place."""
        return {"mask": self._names}

    def __len__(self) -> int:
        return len(self._stems)

    def files(self, index: int) -> Sequence[Path]:
        """The image and its mask."""
        stem = self._stems[index]
        return [self._image_folder / f"{stem}.jpg", self._mask_folder / f"{stem}.png"]

    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """See `load_image`."""
        return load_image(self.files(index)[0])

    def label_fields(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """The mask, 255 where the pixel is of none of the classes."""
        image, mask = self.files(index)
        return {"mask": classes_of(read_numbers(mask, image), _CLASS_OF, mask)}


def _class_names(path: Path) -> tuple[str, ...]:
    """The first name of each class, by the file where there is one."""
    if not path.is_file():
        return tuple(" ".join(_NAMES.split()).split(", "))
    expected = "150 rows, tabs between their columns"
    rows = [line.split("\t") for line in read_lines(path, expected) if line.strip()]
    # A heading, then a row for each class: its number, figures, its names. Versions differ in the figures.
    names = {row[0].strip(): row[-1].split(",")[0].strip() for row in rows[1:]}
    try:
        return tuple(names[str(number)] for number in range(1, _COUNT + 1))
    except KeyError as error:
        raise DataError(f"no row of class {error}", file=path, expected=expected) from error
