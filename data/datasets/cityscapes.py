"""Cityscapes: streets of 50 cities seen from a car, 19 classes at every pixel, and objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from transframer.data.dataset import part_of_training
from transframer.data.datasets.label_maps import classes_of, consecutive, read_numbers
from transframer.data.datasets.stills import StillDataset
from transframer.data.formats.images import load_image
from transframer.errors import DataError
from transframer.task import Clip

# The classes that the benchmark judges, by the label ids of the files, in the order of its training ids.
_CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
    27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
_THINGS = (24, 25, 26, 27, 28, 31, 32, 33)
_CLASS_OF = np.full(256, 255)
_CLASS_OF[list(_CLASSES)] = range(len(_CLASSES))
_IMAGE = "_leftImg8bit.png"


class Cityscapes(StillDataset):
    """The finely labelled part of Cityscapes; "validation" is cut out of train by whole cities.

    Instances are there where the files *_gtFine_instanceIds.png are. The authors' own test part has no public
    labels and is not read.

    Args:
        root: the folder that holds leftImg8bit and gtFine.
    """

    name: ClassVar[str] = "cityscapes"
    summary: ClassVar[str] = "Cityscapes, fine labels: 19 classes and the objects of 8 of them"
    protocol: ClassVar[Mapping[str, str]] = {
        "ignored": "label ids outside the 19 classes; in `instances`, groups that are not told apart",
        "reference": "Cordts et al. 2016, cityscapesScripts: mean IoU of 19 classes on the 500 images of val",
    }

    def __init__(self, root: Path | str, split: str = "train", clip: Clip | None = None) -> None:
        super().__init__(root, split, clip)
        part = "val" if split == "test" else "train"
        self._image_folder, self._label_folder = self.root / "leftImg8bit" / part, self.root / "gtFine" / part
        for folder in (self._image_folder, self._label_folder):
            if not folder.is_dir():
                raise DataError(
                    "no such folder", file=folder, expected="leftImg8bit and gtFine, each with train and val"
                )
        images = sorted(self._image_folder.glob(f"*/*{_IMAGE}"))
        stems = [f"{path.parent.name}/{path.name.removesuffix(_IMAGE)}" for path in images]
        if not stems:
            raise DataError("no image", file=self._image_folder, expected=f"CITY/*{_IMAGE}")
        for stem in stems:
            if not self._labels_of(stem, "labelIds").is_file():
                raise DataError(
                    "no such file",
                    file=self._labels_of(stem, "labelIds"),
                    expected="label ids of each image (package gtFine_trainvaltest)",
                )
        if split != "test":
            cities = [stem.partition("/")[0] for stem in stems]
            # Images of a city show the same streets; only where there is but one city are they divided.
            stems = part_of_training(stems, cities if len(set(cities)) > 1 else stems, split)
        self._stems = np.array(stems)
        self._with_instances = all(self._labels_of(stem, "instanceIds").is_file() for stem in stems)

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Folders leftImg8bit and gtFine."""
        return (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir()

    def _labels_of(self, stem: str, kind: str) -> Path:
        return self._label_folder / f"{stem}_gtFine_{kind}.png"

    @property
    def labels(self) -> frozenset[str]:
        """The mask; instances where their files are there."""
        instances = {"instances", "instance_labels"} if self._with_instances else set()
        return frozenset({"mask"} | instances)

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the 19 classes of `mask`, and of the 8 whose objects are told apart."""
        classes = {"mask": tuple(_CLASSES.values())}
        if self._with_instances:
            classes["instance_labels"] = tuple(_CLASSES[label] for label in _THINGS)
        return classes

    def __len__(self) -> int:
        return len(self._stems)

    def files(self, index: int) -> Sequence[Path]:
        """The image, its label ids, and its instance ids where they are there."""
        stem = str(self._stems[index])
        kinds = ["labelIds", *(["instanceIds"] if self._with_instances else [])]
        return [self._image_folder / f"{stem}{_IMAGE}", *(self._labels_of(stem, kind) for kind in kinds)]

    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """See `load_image`."""
        return load_image(self.files(index)[0])

    def label_fields(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """The mask, 255 where the benchmark does not judge, and the objects."""
        image, masks, *objects = self.files(index)
        fields: dict[str, Any] = {}
        if "mask" in keys:
            fields["mask"] = classes_of(read_numbers(masks, image), _CLASS_OF, masks)
        if objects and {"instances", "instance_labels"} & set(keys):
            numbers = read_numbers(objects[0], image)
            # label id * 1000 + number of the object; a label id alone is a group, or a class without objects
            numbers = np.where(np.isin(numbers // 1000, _THINGS), numbers, 0)
            instances, found = consecutive(numbers)
            labels = torch.from_numpy(np.searchsorted(_THINGS, found // 1000))
            both = {"instances": instances, "instance_labels": labels}
            fields |= {key: value for key, value in both.items() if key in keys}
        return fields
