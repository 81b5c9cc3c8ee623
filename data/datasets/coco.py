"""COCO's object instances, and other data sets in its JSON: boxes and masks of objects."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from transframer.data.dataset import part_of_training
from transframer.data.datasets.boxes import clipped
from transframer.data.datasets.coco_json import (
    MALFORMED,
    PARTS,
    ImageTable,
    annotation_files,
    categories,
    read_json,
    split_files,
)
from transframer.data.datasets.label_maps import consecutive
from transframer.data.datasets.stills import StillDataset
from transframer.errors import DataError
from transframer.task import Clip

_ONE_FILE = "_annotations.coco.json"


class COCO(StillDataset):
    """Boxes and instance masks; the objects of crowds are left out, images without objects are kept.

    Reads annotations/instances_{train,val}2017.json (or another year, or none) and the images in train2017
    and val2017, in the root or in its folder `images`; or folders train, valid and test that each hold
    images and `_annotations.coco.json`, as Roboflow exports them. "test" is the part of this name where there
    are labels for it, else val.

    Where objects overlap, a pixel of `instances` belongs to the smallest; objects that nothing is left of, or
    without a mask, are in `boxes` only.

    Args:
        year: which to read of several, such as 2017.
    """

    name: ClassVar[str] = "coco"
    summary: ClassVar[str] = "COCO's boxes and instance masks; other sets in its JSON, such as Roboflow's"
    protocol: ClassVar[Mapping[str, str]] = {
        "ignored": "crowds (iscrowd) have no boxes or instances; COCO's evaluation does not judge there",
        "reference": "Lin et al. 2014, pycocotools: AP over IoU 0.50 to 0.95 on the 5,000 images of val2017",
    }

    def __init__(
        self, root: Path | str, split: str = "train", clip: Clip | None = None, year: int | str | None = None
    ) -> None:
        super().__init__(root, split, clip)
        self._json, self._image_folder = _files_of(self.root, split, year)
        # pycocotools' own class keeps everything as Python objects: some gigabytes for train2017, copied into
        # each worker as it counts references. Arrays take a tenth of that and are shared.
        content = read_json(self._json, ("images", "annotations", "categories"))
        self._images = ImageTable(content["images"], self._json)
        self._objects = _ObjectTable(content, self._images, self._json)
        self._indices = list(range(len(self._images)))
        if split != "test":
            names = [self._images.name(index) for index in self._indices]
            self._indices = part_of_training(self._indices, names, split)

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Files of instances in `annotations`, or a file of annotations in a folder of a split."""
        parts = [part for split in ("train", "test") for part in PARTS[split]]
        return any(annotation_files(root, "instances", part) for part in parts) or any(
            (root / part / _ONE_FILE).is_file() for part in parts
        )

    @property
    def labels(self) -> frozenset[str]:
        """Boxes; instances where any object has a mask."""
        instances = {"instances", "instance_labels"} if self._objects.has_masks else set()
        return frozenset({"boxes", "box_labels"} | instances)

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the categories in the order of their ids, which have gaps."""
        names = self._objects.names
        return {"box_labels": names} | ({"instance_labels": names} if self._objects.has_masks else {})

    def __len__(self) -> int:
        return len(self._indices)

    def files(self, index: int) -> Sequence[Path]:
        """The image and the JSON."""
        return [self._image_folder / self._images.name(self._indices[index]), self._json]

    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """The image, which must have the size that the JSON says."""
        return self._images.load(self._image_folder, self._indices[index])

    def label_fields(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """Boxes within the image, without empty ones; instances."""
        place = self._indices[index]
        height, width = self._images.size(place)
        fields: dict[str, Any] = {}
        if {"boxes", "box_labels"} & set(keys):
            fields["boxes"], fields["box_labels"] = self._objects.boxes(place, height, width)
        if {"instances", "instance_labels"} & set(keys):
            fields["instances"], fields["instance_labels"] = self._objects.instances(place, height, width)
        return {key: value for key, value in fields.items() if key in keys}


def _files_of(root: Path, split: str, year: int | str | None) -> tuple[Path, Path]:
    if found := split_files(root, "instances", split, year):
        return found
    for part in PARTS[split]:
        if (root / part / _ONE_FILE).is_file():
            return root / part / _ONE_FILE, root / part
    wanted = " or ".join(PARTS[split])
    raise DataError(
        f"no annotations for {split!r}",
        file=root,
        expected=f"annotations/instances_{wanted}*.json, or {_ONE_FILE} in {wanted}",
    )


class _ObjectTable:
    """The objects of a COCO JSON without the crowds, as arrays, those of an image together.

    Attributes:
        names: of the categories, by their ids.
        has_masks: whether any object has one.
    """

    def __init__(self, content: Mapping[str, Any], images: ImageTable, file: Path) -> None:
        self._file = file
        class_of, self.names = categories(content["categories"], file)
        places, labels, boxes = array("q"), array("q"), array("d")
        # All polygons one after the other: object i has those from _polygons[i] to _polygons[i + 1], and
        # polygon j the coordinates from _starts[j] to _starts[j + 1].
        coordinates, self._starts, self._polygons = array("d"), array("q", [0]), array("q", [0])
        self._run_lengths: dict[int, Mapping[str, Any]] = {}
        annotation: Any = None
        try:
            for annotation in content["annotations"]:
                if annotation.get("iscrowd"):
                    continue
                x, y, width, height = annotation["bbox"]
                boxes.extend((x, y, x + width, y + height))
                places.append(images.place[annotation["image_id"]])
                labels.append(class_of[annotation["category_id"]])
                segmentation = annotation.get("segmentation") or []
                if isinstance(segmentation, Mapping):
                    self._run_lengths[len(labels) - 1] = segmentation
                    segmentation = []
                for polygon in segmentation:
                    if len(polygon) >= 6:  # fewer than three corners have no inside
                        coordinates.extend(polygon)
                        self._starts.append(len(coordinates))
                self._polygons.append(len(self._starts) - 1)
        except MALFORMED as error:
            number = annotation.get("id") if isinstance(annotation, Mapping) else annotation
            raise DataError(
                f"annotation {number} is malformed: {type(error).__name__}: {error}",
                file=file,
                field="annotations",
                expected="image_id, category_id, bbox of 4 numbers, segmentation of polygons or an RLE",
            ) from error
        self._coordinates, self._boxes = np.array(coordinates), np.array(boxes).reshape(-1, 4)
        self._labels = np.array(labels, np.int64)
        self._order = np.argsort(np.array(places, np.int64), kind="stable")
        self._of_image = np.searchsorted(np.array(places, np.int64)[self._order], np.arange(len(images) + 1))
        self.has_masks = bool(self._run_lengths) or len(self._starts) > 1

    def _objects_of(self, place: int) -> Int[np.ndarray, " k"]:
        return self._order[self._of_image[place] : self._of_image[place + 1]]

    def boxes(self, place: int, height: int, width: int) -> tuple[Float[Tensor, "k 4"], Int[Tensor, " k"]]:
        """x0 y0 x1 y1 in pixels, clipped to the image, and classes; without boxes that this leaves empty."""
        objects = self._objects_of(place)
        boxes = torch.from_numpy(self._boxes[objects]).float()
        return clipped(boxes, torch.from_numpy(self._labels[objects]), (height, width))

    def instances(self, place: int, height: int, width: int) -> tuple[Int[Tensor, "h w"], Int[Tensor, " k"]]:
        """The number of the object at each pixel, and the objects' classes."""
        numbers = np.zeros((height, width), np.int64)
        objects = self._objects_of(place)
        masks = [self._mask(number, height, width) for number in objects.tolist()]
        areas = [int(mask.sum()) for mask in masks]
        for nth in sorted(range(len(masks)), key=lambda nth: -areas[nth]):
            numbers[masks[nth]] = nth + 1
        instances, found = consecutive(numbers)
        return instances, torch.from_numpy(self._labels[objects[found - 1]])

    def _mask(self, number: int, height: int, width: int) -> Bool[np.ndarray, "h w"]:
        from pycocotools import mask as coco_mask

        polygons = [
            self._coordinates[self._starts[polygon] : self._starts[polygon + 1]]
            for polygon in range(self._polygons[number], self._polygons[number + 1])
        ]
        try:
            if (found := self._run_lengths.get(number)) is not None:
                rle = _checked_run_lengths(found, height, width)
            elif polygons:
                # pycocotools reserves memory by the length of the outline.
                if not all(np.abs(polygon).max() <= 8 * max(height, width) for polygon in polygons):
                    raise ValueError("corners far outside the image")
                rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
            else:
                return np.zeros((height, width), bool)
            return coco_mask.decode(rle).astype(bool)
        except MALFORMED as error:
            raise DataError(
                f"object {number} has a mask that cannot be read: {error}",
                file=self._file,
                field="segmentation",
            ) from error


def _checked_run_lengths(rle: Mapping[str, Any], height: int, width: int) -> Mapping[str, Any]:
    from pycocotools import mask as coco_mask

    if list(rle["size"]) != [height, width]:
        raise ValueError(f"an RLE of size {rle['size']}, not {[height, width]}")
    if isinstance(rle["counts"], list):
        if sum(rle["counts"]) != height * width or min(rle["counts"]) < 0:
            raise ValueError(f"run lengths that do not add up to {height} x {width}")
        return coco_mask.frPyObjects(dict(rle), height, width)
    return rle
