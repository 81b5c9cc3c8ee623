"""COCO's panoptic segmentation: a class at every pixel, and the objects of the countable ones."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from transframer.data.dataset import part_of_training
from transframer.data.datasets.coco_json import (
    MALFORMED,
    ImageTable,
    annotation_files,
    categories,
    read_json,
    split_files,
)
from transframer.data.datasets.label_maps import check_size, consecutive
from transframer.data.datasets.stills import StillDataset
from transframer.data.formats.images import opened_image
from transframer.errors import DataError
from transframer.task import Clip

_VOID = 255


class COCOPanoptic(StillDataset):
    """A mask of all classes, and the instances of those that are things.

    Reads annotations/panoptic_{train,val}2017.json, the PNGs in the folder of the same name beside it (or in
    the root), and the images in train2017 and val2017, in the root or in its folder `images`.
    Images without an annotation are left out.

    Args:
        year: which to read of several, such as 2017.
    """

    name: ClassVar[str] = "coco_panoptic"
    summary: ClassVar[str] = "COCO's panoptic segmentation: 133 classes at every pixel, 80 of them of objects"
    protocol: ClassVar[Mapping[str, str]] = {
        "ignored": "void pixels; crowds (iscrowd) are in the mask, but are no instances",
        "reference": "Kirillov et al. 2019, panopticapi: panoptic quality on the 5,000 images of val2017",
    }

    def __init__(
        self, root: Path | str, split: str = "train", clip: Clip | None = None, year: int | str | None = None
    ) -> None:
        super().__init__(root, split, clip)
        found = split_files(self.root, "panoptic", split, year)
        if found is None:
            part = "val" if split == "test" else "train"
            raise DataError(
                f"no annotations for {split!r}", file=self.root, expected=f"annotations/panoptic_{part}*.json"
            )
        self._json, self._image_folder = found
        folders = [self._json.with_suffix(""), self.root / self._json.stem]
        self._png_folder = next((folder for folder in folders if folder.is_dir()), folders[0])
        if not self._png_folder.is_dir():
            raise DataError(
                "no such folder", file=self._png_folder, expected=f"the PNGs of {self._json.name}"
            )
        content = read_json(self._json, ("images", "annotations", "categories"))
        self._images = ImageTable(content["images"], self._json)
        class_of, self._names = categories(content["categories"], self._json)
        if len(self._names) > _VOID:
            raise DataError(
                f"{len(self._names)} categories", file=self._json, expected=f"at most {_VOID}, as masks hold"
            )
        things = [class_of[entry["id"]] for entry in content["categories"] if entry.get("isthing")]
        self._things = np.array(sorted(things), np.int64)
        self._segments = _SegmentTable(content["annotations"], self._images, class_of, self._json)
        self._indices = list(range(len(self._segments)))
        if split != "test":
            names = [self._images.name(self._segments.image(index)) for index in self._indices]
            self._indices = part_of_training(self._indices, names, split)

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Panoptic files in `annotations`."""
        return any(annotation_files(root, "panoptic", part) for part in ("train", "val", "test"))

    @property
    def labels(self) -> frozenset[str]:
        """The mask and the instances."""
        return frozenset({"mask", "instances", "instance_labels"})

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Names of all categories, in the order of their ids, and of those that are things."""
        return {"mask": self._names, "instance_labels": tuple(self._names[thing] for thing in self._things)}

    def __len__(self) -> int:
        return len(self._indices)

    def files(self, index: int) -> Sequence[Path]:
        """The image, the PNG of its segments, and the JSON."""
        segments = self._indices[index]
        image = self._image_folder / self._images.name(self._segments.image(segments))
        return [image, self._png_folder / self._segments.png(segments), self._json]

    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """The image, which must have the size that the JSON says."""
        return self._images.load(self._image_folder, self._segments.image(self._indices[index]))

    def label_fields(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """The mask, 255 where void; instances of things, without crowds."""
        image, png, _ = self.files(index)
        ids, classes, crowds = self._segments.segments(self._indices[index])
        numbers = _read_panoptic_png(png, image)
        found, place = np.unique(numbers, return_inverse=True)
        if unknown := sorted({*found.tolist()} - {0, *ids.tolist()}):
            raise DataError(f"segment {unknown[0]}, which {self._json.name} does not list", file=png)
        order = np.argsort(ids)
        segment = order[np.searchsorted(ids, found[found > 0], sorter=order)]
        class_at = np.full(len(found), _VOID)
        class_at[found > 0] = classes[segment]
        fields: dict[str, Any] = {}
        if "mask" in keys:
            fields["mask"] = torch.from_numpy(class_at[place].reshape(numbers.shape))
        if {"instances", "instance_labels"} & set(keys):
            countable = np.zeros(len(found), bool)
            countable[found > 0] = np.isin(classes[segment], self._things) & ~crowds[segment]
            objects = np.where(countable, np.arange(len(found)) + 1, 0)[place].reshape(numbers.shape)
            fields["instances"], kept = consecutive(objects)
            fields["instance_labels"] = torch.from_numpy(np.searchsorted(self._things, class_at[kept - 1]))
        return {key: value for key, value in fields.items() if key in keys}


class _SegmentTable:
    """The segments that a panoptic JSON lists, as arrays, those of an image together, images by their ids."""

    def __init__(
        self,
        annotations: Sequence[Mapping[str, Any]],
        images: ImageTable,
        class_of: Mapping[int, int],
        file: Path,
    ) -> None:
        ids, classes, crowds, starts = array("q"), array("q"), array("b"), array("q", [0])
        annotation: Any = None
        try:
            ordered = sorted(annotations, key=lambda annotation: images.place[annotation["image_id"]])
            self._places = np.array([images.place[annotation["image_id"]] for annotation in ordered])
            self._pngs = np.array([annotation["file_name"].encode() for annotation in ordered])
            for annotation in ordered:
                for segment in annotation["segments_info"]:
                    ids.append(segment["id"])
                    classes.append(class_of[segment["category_id"]])
                    crowds.append(bool(segment.get("iscrowd")))
                starts.append(len(ids))
        except MALFORMED as error:
            image = annotation.get("image_id") if isinstance(annotation, Mapping) else "?"
            raise DataError(
                f"the annotation of image {image} is malformed: {type(error).__name__}: {error}",
                file=file,
                field="annotations",
                expected="image_id of the file, file_name, segments_info with id and category_id",
            ) from error
        if not ordered:
            raise DataError("no annotation", file=file, field="annotations")
        self._ids, self._classes = np.array(ids, np.int64), np.array(classes, np.int64)
        self._crowds, self._starts = np.array(crowds, bool), np.array(starts)

    def __len__(self) -> int:
        return len(self._places)

    def image(self, index: int) -> int:
        """The place in the table of images."""
        return int(self._places[index])

    def png(self, index: int) -> str:
        """The file of an image's segments."""
        return bytes(self._pngs[index]).decode()

    def segments(
        self, index: int
    ) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"], Bool[np.ndarray, " k"]]:
        """Ids, classes and whether it is a crowd, of the segments of an image."""
        part = slice(self._starts[index], self._starts[index + 1])
        return self._ids[part], self._classes[part], self._crowds[part]


def _read_panoptic_png(path: Path, image: Path) -> Int[np.ndarray, "h w"]:
    """The segment id at each pixel: red + 256 green + 256^2 blue; 0 is void."""
    with opened_image(path) as png:
        if png.mode != "RGB":
            raise DataError(
                f"an image of mode {png.mode}", file=path, expected="RGB, which holds segment ids"
            )
        colours = np.asarray(png).astype(np.int64)
    check_size(path, colours, image)
    return colours @ np.array([1, 256, 256**2])
