"""PASCAL VOC: masks, objects and boxes of twenty classes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from transframer.data.dataset import part_of_training
from transframer.data.datasets.boxes import clipped
from transframer.data.datasets.label_maps import classes_of, consecutive, read_numbers
from transframer.data.datasets.stills import StillDataset
from transframer.data.formats.images import image_size, load_image
from transframer.data.formats.text import read_lines
from transframer.errors import ConfigError, DataError, unknown_name
from transframer.task import Clip

_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_BORDER = 255
_LISTS = {"segmentation": "Segmentation", "detection": "Main"}


class VOC(StillDataset):
    """PASCAL VOC of one year, and data sets in its layout.

    "test" is the list `test` where its labels are there too, as of 2007, and training is then on train and
    val together, as papers do; else "test" is val.

    Args:
        root: the folder of a year (VOC2012), VOCdevkit, or the folder that this lies in.
        image_set: "segmentation" (masks, objects and boxes) or "detection" (boxes, of many more images); by
            default segmentation where its lists are there.
        year: which of several years to read; by default the latest.
        class_names: of a data set with other classes, in the order of the numbers of its masks, from 1 on.
    """

    name: ClassVar[str] = "voc"
    summary: ClassVar[str] = "PASCAL VOC: masks, objects and boxes of twenty classes"
    protocol: ClassVar[Mapping[str, str]] = {
        "ignored": "boxes marked difficult are left out; borders of objects (255) are not labelled",
        "reference": "Everingham et al. 2010: mean IoU of 21 classes, AP at IoU 0.5; val 2012, test 2007",
    }

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        clip: Clip | None = None,
        image_set: str | None = None,
        year: int | str | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(root, split, clip)
        if image_set is not None and image_set not in _LISTS:
            raise unknown_name("image_set", image_set, _LISTS)
        self._base = _base_folder(self.root, year)
        self._names = tuple(class_names or _CLASSES)
        if len(self._names) >= _BORDER:
            raise ConfigError(
                f"{len(self._names)} names", field="class_names", expected=f"fewer than {_BORDER}"
            )
        segmented = (self._base / "ImageSets" / "Segmentation").is_dir()
        self.image_set = image_set or ("segmentation" if segmented else "detection")
        segmentation = self.image_set == "segmentation"
        needed = ["SegmentationClass"] if segmentation else ["Annotations"]
        for name in ("JPEGImages", *needed):
            if not (self._base / name).is_dir():
                raise DataError(
                    "no such folder", file=self._base / name, expected=f"what {self.image_set} is read from"
                )
        self._with_boxes = (self._base / "Annotations").is_dir()
        self._with_masks = segmentation
        self._with_instances = segmentation and (self._base / "SegmentationObject").is_dir()
        self._stems = np.array(self._split_stems(split))

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """A folder with ImageSets and JPEGImages, there or in a year of VOCdevkit."""
        return bool(_base_folders(root))

    def _split_stems(self, split: str) -> list[str]:
        test = self._listed("test")
        if test and not self._label_file(test[0]).is_file():
            test = []  # a list without labels, as that of 2012
        if split == "test":
            return test or self._required("val")
        stems = self._required("train") + (self._listed("val") if test else [])
        return part_of_training(stems, stems, split)

    def _label_file(self, stem: str) -> Path:
        if self._with_masks:
            return self._base / "SegmentationClass" / f"{stem}.png"
        return self._base / "Annotations" / f"{stem}.xml"

    def _list_file(self, part: str) -> Path:
        return self._base / "ImageSets" / _LISTS[self.image_set] / f"{part}.txt"

    def _listed(self, part: str) -> list[str]:
        path = self._list_file(part)
        if not path.is_file():
            return []
        return [line.split()[0] for line in read_lines(path, "a name a line") if line.strip()]

    def _required(self, part: str) -> list[str]:
        if stems := self._listed(part):
            return stems
        raise DataError("no such list, or an empty one", file=self._list_file(part), expected="a name a line")

    @property
    def labels(self) -> frozenset[str]:
        """The mask and instances of the segmentation set, boxes where there are annotations."""
        labels = {"mask"} if self._with_masks else set()
        labels |= {"instances", "instance_labels"} if self._with_instances else set()
        return frozenset(labels | ({"boxes", "box_labels"} if self._with_boxes else set()))

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the classes; only those of `mask` begin with the background."""
        names = {"mask": ("background", *self._names)}
        names |= dict.fromkeys(("box_labels", "instance_labels"), self._names)
        return {field: names[field] for field in sorted(self.labels & names.keys())}

    def __len__(self) -> int:
        return len(self._stems)

    def _file(self, folder: str, index: int, suffix: str) -> Path:
        return self._base / folder / f"{self._stems[index]}{suffix}"

    def files(self, index: int) -> Sequence[Path]:
        """The image, and those of the two masks and the annotation that are read."""
        masks = ["SegmentationClass"] if self._with_masks else []
        masks += ["SegmentationObject"] if self._with_instances else []
        return [
            self._file("JPEGImages", index, ".jpg"),
            *(self._file(folder, index, ".png") for folder in masks),
            *([self._file("Annotations", index, ".xml")] if self._with_boxes else []),
        ]

    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """See `load_image`."""
        return load_image(self._file("JPEGImages", index, ".jpg"))

    def label_fields(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """Mask, instances and boxes."""
        image = self._file("JPEGImages", index, ".jpg")
        fields: dict[str, Any] = {}
        if {"mask", "instances", "instance_labels"} & set(keys):
            fields["mask"] = self._mask(index, image)
        if {"instances", "instance_labels"} & set(keys):
            path = self._file("SegmentationObject", index, ".png")
            numbers = read_numbers(path, image)
            instances, found = consecutive(np.where(numbers == _BORDER, 0, numbers))
            fields["instances"] = instances
            fields["instance_labels"] = _classes_below(instances, len(found), fields["mask"], path)
        if {"boxes", "box_labels"} & set(keys):
            path = self._file("Annotations", index, ".xml")
            fields["boxes"], fields["box_labels"] = _read_boxes(path, self._names, image_size(image))
        return {key: value for key, value in fields.items() if key in keys}

    def _mask(self, index: int, image: Path) -> Int[Tensor, "h w"]:
        class_of = np.full(256, -1)
        class_of[: len(self._names) + 1] = range(len(self._names) + 1)
        class_of[_BORDER] = _BORDER
        path = self._file("SegmentationClass", index, ".png")
        return classes_of(read_numbers(path, image), class_of, path)


def _base_folders(root: Path) -> list[Path]:
    """The folders of years in a root, the latest last."""
    years = [*sorted(root.glob("VOC[0-9]*")), *sorted(root.glob("VOCdevkit/VOC[0-9]*"))]
    return [
        base for base in (root, *years) if (base / "ImageSets").is_dir() and (base / "JPEGImages").is_dir()
    ]


def _base_folder(root: Path, year: int | str | None) -> Path:
    bases = _base_folders(root)
    if year is not None:
        bases = [base for base in bases if base.name == f"VOC{year}"]
    if not bases:
        raise DataError(
            "not a VOC folder" if year is None else f"no VOC{year}",
            file=root,
            expected="JPEGImages and ImageSets, there or in VOCdevkit/VOC2012",
        )
    return bases[-1]


def _classes_below(
    instances: Int[Tensor, "h w"], count: int, mask: Int[Tensor, "h w"], path: Path
) -> Int[Tensor, " k"]:
    """The class of each object: that of most of its pixels, which the files of objects do not say."""
    labelled = (mask > 0) & (mask != _BORDER) & (instances > 0)
    votes = torch.zeros(count, _BORDER, dtype=torch.int64)
    votes.index_put_(
        (instances[labelled] - 1, mask[labelled] - 1), torch.ones(1, dtype=torch.int64), accumulate=True
    )
    if count and int(votes.sum(1).min()) == 0:
        raise DataError("an object without a class in SegmentationClass", file=path)
    return votes.argmax(1)


def _read_boxes(
    path: Path, names: Sequence[str], size: tuple[int, int]
) -> tuple[Float[Tensor, "k 4"], Int[Tensor, " k"]]:
    """Boxes that are not difficult, clipped to the image, and their classes."""
    boxes, labels = [], []
    try:
        for thing in ET.parse(path).getroot().iter("object"):
            if (thing.findtext("difficult") or "0").strip() == "1":
                continue
            x0, y0, x1, y1 = (
                float(thing.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            # The file counts pixels from 1 and the last is inside; here the edges are between pixels, from 0.
            boxes.append((x0 - 1, y0 - 1, x1, y1))
            labels.append((thing.findtext("name") or "").strip())
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=path) from error
    except ET.ParseError as error:
        raise DataError(f"not XML, or truncated: {error}", file=path) from error
    except ValueError as error:
        raise DataError(
            f"a box is malformed: {error}", file=path, field="bndbox", expected="xmin, ymin, xmax, ymax"
        ) from error
    if unknown := set(labels) - set(names):
        raise DataError(
            f"class {min(unknown)!r}",
            file=path,
            field="name",
            expected=f"one of {', '.join(names)}",
            next_step="name the classes of a data set that is not VOC's by class_names",
        )
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return clipped(corners, torch.tensor([names.index(label) for label in labels], dtype=torch.int64), size)
