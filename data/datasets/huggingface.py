"""Data sets of the Hugging Face hub, and folders that the library `datasets` reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from transframer.data.dataset import Dataset
from transframer.data.datasets.huggingface_columns import (
    Classes,
    choose_columns,
    classes_of,
    element,
    image_source,
    object_keys,
    read_boxes,
    read_depth,
    read_mask,
)
from transframer.data.datasets.huggingface_rows import (
    WINDOW,
    Stream,
    encoded,
    features_of,
    load_splits,
)
from transframer.data.datasets.own_folders import Cuts, cut
from transframer.data.formats.images import load_image
from transframer.errors import ConfigError, DataError, TransframerError, unknown_name
from transframer.task import Clip

_TEST_NAMES = ("test", "validation", "valid", "val", "dev")


class HuggingFace(Dataset):
    """A data set by its id on the hub, or what `datasets` reads on disk: `save_to_disk`, parquet, images.

    Opening a data set of the hub downloads it, unless it is streamed or in the cache of `datasets`.

    "test" is the split test where that is labelled (the hub marks what is not by -1), else validation;
    "train" and "validation" are cut from the split train. Of a data set with one split, all three are cut by
    a hash of the row numbers.

    Args:
        columns: the column of each field: images, target, label, mask, depth_m, boxes, box_labels. Fields not
            given are guessed by type and name: the image, the ClassLabel, a column of objects with bbox and
            category. None leaves a field out; a list of columns gives several images in time order.
        class_names: names of classes by field (label, mask, box_labels) where the data set has none.
        subset: the configuration, where there are several.
        train_split: the split to train on, where its name is not train.
        test_split: the split to test on, where another is meant.
        streaming: rows are read one after the other; never all on disk.
        length: rows of the split, needed for a stream that does not know it.
        box_format: "xywh" as COCO, or "xyxy".
        reduce_labels: in masks, 0 means not labelled and class k is stored as k + 1, as ADE20K does.
        depth_scale: metres per unit of depth; by default 0.001 for 16-bit images and 1 for floats.
        cache_dir: where `datasets` keeps what it downloads and converts.
    """

    name: ClassVar[str] = "huggingface"
    summary: ClassVar[str] = "a data set of the Hugging Face hub by its id, or a folder that `datasets` reads"

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        clip: Clip | None = None,
        columns: Mapping[str, str | Sequence[str] | None] | None = None,
        class_names: Mapping[str, Sequence[str]] | None = None,
        subset: str | None = None,
        train_split: str | None = None,
        test_split: str | None = None,
        streaming: bool = False,
        length: int | None = None,
        box_format: str = "xywh",
        reduce_labels: bool = False,
        depth_scale: float | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(root, split, clip)
        if box_format not in ("xywh", "xyxy"):
            raise unknown_name("box_format", box_format, ("xywh", "xyxy"))
        self._box_format, self._reduce_labels, self._depth_scale = box_format, reduce_labels, depth_scale
        splits, lengths = load_splits(self.root, subset, streaming, cache_dir)
        features = features_of(next(iter(splits.values())), self.root)
        self._features = features
        self._columns = choose_columns(features, columns or {}, self.root)
        self._part, cuts = self._choose(splits, train_split, test_split)
        rows = encoded(
            splits[self._part], features, sorted({n for names in self._columns.values() for n in names})
        )
        total = length if streaming and length is not None else lengths.get(self._part)
        if not total:
            raise ConfigError(
                f"the length of the split {self._part} is {'not known' if total is None else 0}",
                file=self.root,
                field="length",
                expected="the number of its rows",
            )
        numbers = range(total)
        self._numbers = np.array(cut(numbers, list(map(str, numbers)), split, cuts), dtype=np.int64)
        self._classes = self._known_classes(class_names or {}, {} if streaming else splits)
        self._files = [] if streaming else [Path(file["filename"]) for file in rows.cache_files]
        self._rows = Stream(rows, self._numbers, f"{self.root}: {self._part}") if streaming else rows
        self._views: dict[frozenset[str], Any] = {}
        self.shuffle_window = WINDOW if streaming else None

    @classmethod
    def looks_like(cls, root: Path) -> bool:
        """Whether `save_to_disk` made it, or it holds parquet, arrow or a table of images."""
        if root.is_file():
            return root.suffix in (".parquet", ".arrow")
        if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
            return True
        folders = [root, *(root / name for name in ("data", "train", "test", "default"))]
        return any(
            next(folder.glob(pattern), None) is not None
            for folder in folders
            for pattern in ("*.parquet", "*.arrow", "metadata.csv", "metadata.jsonl")
        )

    @property
    def fields(self) -> frozenset[str]:
        """Those that have a column; and the image as its own target where the clip asks for that."""
        fields = {*self._columns} | ({"box_labels"} if "boxes" in self._columns else set())
        return frozenset(fields | ({"target"} if self.clip.asks_for_its_image else set()))

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Names from ClassLabel features, as given, or the values of the column in order."""
        return {field: classes.names for field, classes in self._classes.items()}

    def __len__(self) -> int:
        return len(self._numbers)

    def files(self, index: int) -> Sequence[Path]:
        """The image's own file where it has one; else those of the cache; of a stream, a folder."""
        if not self._files or self.shuffle_window:
            return [self.root] if self.root.exists() else []
        try:
            value = self._row(index, self._columns["images"][:1])[self._columns["images"][0]]
        except DataError:
            return self._files
        path = value.get("path") if isinstance(value, dict) and value.get("bytes") is None else None
        return [Path(path)] if path and Path(path).exists() else self._files

    def record(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """See `Dataset.record`."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        wanted = [field for field in self._columns if field == "images" or field in keys]
        if "box_labels" in keys and "boxes" in self._columns:
            wanted.append("boxes")
        row = self._row(index, {name for field in wanted for name in self._columns[field]})
        place = f"{self.root}: {self._part}[{self._numbers[index]}]"
        images = []
        for name in self._columns["images"]:
            values = row[name] if isinstance(row[name], list) else [row[name]]
            images += [load_image(image_source(value, f"{place}.{name}")) for value in values]
        if not images or any(image.shape != images[0].shape for image in images):
            sizes = [tuple(image.shape[1:]) for image in images]
            raise DataError(f"images of sizes {sizes}", file=place, expected="at least one, all of one size")
        record: dict[str, Any] = {"images": torch.stack(images)}
        for field in dict.fromkeys(wanted):
            if field not in ("images", "box_labels"):
                record |= self._label(field, row, images[0].shape[1:], place)
        if "target" in keys and "target" not in record and self.clip.asks_for_its_image:
            record["target"] = images[-1]
        for field in ("target", "mask", "depth_m"):
            if field in record and record[field].shape[-2:] != images[0].shape[1:]:
                raise DataError(
                    f"{tuple(record[field].shape[-2:])} pixels (height, width)",
                    file=f"{place}.{self._columns[field][0]}",
                    expected=f"{tuple(images[0].shape[1:])}, as the image has",
                )
        return {key: value for key, value in record.items() if key == "images" or key in keys}

    def _label(self, field: str, row: dict[str, Any], size: Sequence[int], place: str) -> dict[str, Any]:
        name = self._columns[field][0]
        value, cell = row[name], f"{place}.{name}"
        if field == "label":
            return {"label": self._classes["label"].place(value, cell)}
        if field == "mask":
            return {"mask": read_mask(value, self._classes["mask"], self._reduce_labels, cell)}
        if field == "depth_m":
            return {"depth_m": read_depth(value, self._depth_scale, cell)}
        if field == "target":
            return {"target": load_image(image_source(value, cell))}
        if keys := object_keys(self._features[name]):
            objects = value or []
            if isinstance(objects, dict):
                boxes, labels = (objects[key] for key in keys)
            else:
                boxes, labels = ([entry[key] for entry in objects] for key in keys)
        else:
            boxes, labels = value, row[self._columns["box_labels"][0]]
        height, width = size
        boxes, labels = read_boxes(
            boxes, labels, self._box_format, self._classes["box_labels"], (height, width), cell
        )
        return {"boxes": boxes, "box_labels": labels}

    def _row(self, index: int, names: Collection[str]) -> dict[str, Any]:
        place = f"{self.root}: {self._part}[{self._numbers[index]}]"
        try:
            if isinstance(self._rows, Stream):
                return self._rows[index]
            key = frozenset(names)
            if key not in self._views:  # an image is large: columns that are not asked for are not read
                self._views[key] = self._rows.select_columns(sorted(key))
            return self._views[key][int(self._numbers[index])]
        except TransframerError:
            raise
        except Exception as error:  # pyarrow, fsspec and the hub each raise errors of their own
            raise DataError(f"cannot be read: {error}", file=place) from error

    def _choose(
        self, splits: Mapping[str, Any], train_split: str | None, test_split: str | None
    ) -> tuple[str, Cuts]:
        """The split of the data set to read, and what is cut out of it."""
        for field, name in (("train_split", train_split), ("test_split", test_split)):
            if name is not None and name not in splits:
                raise unknown_name(field, name, splits)
        candidates = [name for name in _TEST_NAMES if name in splits and name != train_split]
        test = test_split or next((name for name in candidates if self._labelled(splits[name])), None)
        training = train_split or next(
            (name for name in ("train", *splits) if name in splits and name != test), None
        )
        if training in _TEST_NAMES and training != train_split:
            training = None
        part = test if self.split == "test" and test else training
        if part is None:
            raise DataError(
                f"no split to train on among {', '.join(splits)}",
                file=self.root,
                expected="a split named train",
                next_step="name one with train_split",
            )
        return part, "none" if part == test else "validation" if test else "both"

    def _labelled(self, rows: Any) -> bool:
        """Whether the first row has its label; the hub marks a label that is kept secret by -1."""
        if "label" not in self._columns:
            return True
        name = self._columns["label"][0]
        first = next(iter(rows.select_columns([name])), None)
        return first is not None and first[name] not in (-1, None)

    def _known_classes(
        self, given: Mapping[str, Sequence[str]], splits: Mapping[str, Any]
    ) -> dict[str, Classes]:
        known = {}
        for field in given:
            if field not in ("label", "mask", "box_labels"):
                raise unknown_name("field of class_names", field, ("label", "mask", "box_labels"))
        if "label" in self._columns:
            name = self._columns["label"][0]
            feature = self._features[name]
            values = None
            if splits and not hasattr(feature, "names") and "label" not in given:
                values = sorted({value for rows in splits.values() for value in rows.unique(name)} - {None})
            known["label"] = classes_of(feature, "label", given.get("label"), values)
        if "mask" in self._columns:
            known["mask"] = classes_of(None, "mask", given.get("mask"), None)
        if "boxes" in self._columns:
            feature = element(self._features[self._columns["boxes"][0]])
            keys = object_keys(feature)
            if keys is None and "box_labels" not in self._columns:
                raise ConfigError(
                    "no column of the classes of boxes", field="columns.box_labels", expected="a name"
                )
            feature = feature[keys[1]] if keys else self._features[self._columns["box_labels"][0]]
            known["box_labels"] = classes_of(feature, "box_labels", given.get("box_labels"), None)
        return known
