"""The labels of the `folder` layout: files beside the images, by the same name; see docs/folder-layout.md."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from transframer.data.datasets.boxes import clipped, corners_from_xywh
from transframer.data.datasets.coco_json import categories, read_json
from transframer.data.datasets.label_maps import check_size, read_numbers
from transframer.data.datasets.own_folders import is_hidden, natural_key
from transframer.data.formats.flo import read_flo
from transframer.data.formats.images import image_size, load_image
from transframer.data.formats.pfm import read_pfm
from transframer.data.formats.png16 import read_depth_png, read_kitti_flow
from transframer.errors import DataError

# The folders of labels, the suffixes of their files, and the fields that these give.
KINDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "masks": ((".png",), ("mask",)),
    "depth": ((".png", ".npy", ".pfm"), ("depth_m",)),
    "flow": ((".flo", ".png"), ("flow", "flow_valid")),
    "normals": ((".png", ".npy"), ("normals",)),
    "instances": ((".png",), ("instances", "instance_labels")),
}
_UNKNOWN_FLOW = 1e9  # Middlebury's mark, in a .flo file


class FolderLabels:
    """The labels in one folder of the layout.

    Args:
        folder: the one that holds `images`.
        parts: all such folders of the data set, whose classes are the same.
        root: of the data set, where classes.txt lies.

    Raises:
        DataError: labels that need classes.txt, which is not there.
    """

    def __init__(self, folder: Path, parts: Sequence[Path], root: Path) -> None:
        self.folder, self.parts, self.root = folder, tuple(parts), root
        self.files = {
            kind: {
                path.stem: path.name
                for path in sorted((folder / kind).iterdir())
                if path.suffix.lower() in suffixes and not is_hidden(path)
            }
            for kind, (suffixes, _) in KINDS.items()
            if (folder / kind).is_dir()
        }
        self._has_label, self._has_boxes = (
            (folder / name).is_file() for name in ("labels.csv", "boxes.json")
        )
        self.classes = self._all_classes()

    @property
    def fields(self) -> frozenset[str]:
        """The fields that the labels give."""
        fields = [field for kind in self.files for field in KINDS[kind][1]]
        fields += ["label"] * self._has_label + ["boxes", "box_labels"] * self._has_boxes
        return frozenset(fields)

    def check(self, images: Mapping[str, Path]) -> None:
        """Raises a DataError for the first image that lacks a label.

        Args:
            images: the first image of each name.
        """
        for name, image in images.items():
            for kind, files in self.files.items():
                if name not in files:
                    expected = " or ".join(f"{kind}/{name}{suffix}" for suffix in KINDS[kind][0])
                    raise DataError(
                        f"{image.name} has no label in {kind}", file=self.folder, expected=expected
                    )
            if self._has_label and _of(self._labels, name, image) is None:
                raise DataError(
                    f"no row for {image.name}", file=self.folder / "labels.csv", expected=f"{name},CLASS"
                )
            if self._has_boxes and _of(self._boxes, name, image) is None:
                raise DataError(
                    f"no image {image.name}",
                    file=self.folder / "boxes.json",
                    field="images",
                    expected="an entry for each image, also for those without objects",
                )

    def paths(self, name: str) -> list[Path]:
        """The files that the labels of a name are read from."""
        paths = [self.folder / kind / files[name] for kind, files in self.files.items()]
        paths += [self.folder / "labels.csv"] * self._has_label + [
            self.folder / "boxes.json"
        ] * self._has_boxes
        return paths + [self.folder / "instances" / f"{name}.json"] * ("instances" in self.files)

    def read(self, name: str, image: Path, keys: Collection[str]) -> dict[str, Any]:
        """Those of the labels asked for.

        Raises:
            DataError: a label that is damaged, of another size than the image, or of an unknown class.
        """
        found: dict[str, Any] = {}
        readers: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
            "masks": self._mask,
            "depth": _depth,
            "flow": _flow,
            "normals": _normals,
            "instances": self._instances,
        }
        for kind, files in self.files.items():
            if not set(KINDS[kind][1]).isdisjoint(keys):
                found |= readers[kind](self.folder / kind / files[name], image)
        if self._has_label and "label" in keys:
            found["label"] = self.classes["label"].index(_of(self._labels, name, image))
        if self._has_boxes and not {"boxes", "box_labels"}.isdisjoint(keys):
            found |= _boxes(_of(self._boxes, name, image), image, self.folder / "boxes.json")
        return {key: value for key, value in found.items() if key in keys}

    def _all_classes(self) -> dict[str, tuple[str, ...]]:
        classes: dict[str, tuple[str, ...]] = {}
        fields = self.fields
        if fields & {"mask", "instance_labels"}:
            names = _lines(self.root / "classes.txt")
            classes |= {field: names for field in ("mask", "instance_labels") if field in fields}
        if self._has_label:
            found = {
                label
                for part in self.parts
                if (part / "labels.csv").is_file()
                for label in read_table(part / "labels.csv", "label").values()
            }
            classes["label"] = tuple(sorted(found, key=natural_key))
        if self._has_boxes:
            classes["box_labels"] = tuple(self._categories[1])
        return classes

    @cached_property
    def _labels(self) -> dict[str, str]:
        return read_table(self.folder / "labels.csv", "label")

    @cached_property
    def _categories(self) -> tuple[dict[int, int], tuple[str, ...]]:
        """The class of each category of boxes.json, and the names: of all splits, which must agree."""
        found: dict[Any, dict[str, Any]] = {}
        for part in self.parts:
            if (part / "boxes.json").is_file():
                for entry in read_json(part / "boxes.json", ["categories"])["categories"]:
                    number = entry.get("id") if isinstance(entry, dict) else None
                    if found.setdefault(number, entry) != entry:
                        raise DataError(
                            f"category {number} has another name than in another split",
                            file=part / "boxes.json",
                            field="categories",
                        )
        return categories(list(found.values()), self.folder / "boxes.json")

    @cached_property
    def _boxes(self) -> dict[str, tuple[list[list[float]], list[int]]]:
        """Boxes x y w h and their classes by the name of the image's file; crowds left out."""
        file = self.folder / "boxes.json"
        content = read_json(file, ["images", "annotations", "categories"])
        class_of, _ = self._categories
        try:
            boxes: dict[Any, tuple[list, list]] = {entry["id"]: ([], []) for entry in content["images"]}
            for entry in content["annotations"]:
                if not entry.get("iscrowd"):
                    boxes[entry["image_id"]][0].append([float(value) for value in entry["bbox"]])
                    boxes[entry["image_id"]][1].append(class_of[entry["category_id"]])
            return {entry["file_name"]: boxes[entry["id"]] for entry in content["images"]}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"an entry that lacks {error}, or names one that is not there",
                file=file,
                expected="COCO's format: images, categories, annotations",
            ) from error

    def _mask(self, path: Path, image: Path) -> dict[str, Any]:
        ids = read_numbers(path, image)
        self._check_class(ids[ids != 255], "mask", path)
        return {"mask": torch.from_numpy(ids)}

    def _instances(self, path: Path, image: Path) -> dict[str, Any]:
        numbers = read_numbers(path, image)
        file = path.with_suffix(".json")
        try:
            entries = json.loads(file.read_text(encoding="utf-8"))
            names = self.classes["instance_labels"]
            labels = [names.index(entry) if isinstance(entry, str) else int(entry) for entry in entries]
        except (OSError, TypeError, ValueError) as error:
            raise DataError(
                f"cannot be read: {error}",
                file=file,
                expected='a list with the class of each instance: ["car", "person"]',
            ) from error
        self._check_class(np.array(labels, np.int64), "instance_labels", file)
        if numbers.max(initial=0) > len(labels):
            raise DataError(
                f"instance {numbers.max()}", file=path, expected=f"up to {len(labels)}, those of {file.name}"
            )
        return {
            "instances": torch.from_numpy(numbers),
            "instance_labels": torch.tensor(labels, dtype=torch.int64),
        }

    def _check_class(self, ids: Shaped[np.ndarray, " n"], field: str, path: Path) -> None:
        wrong = ids[(ids < 0) | (ids >= len(self.classes[field]))]
        if len(wrong):
            raise DataError(
                f"class {wrong[0]}",
                file=path,
                expected=f"0 to {len(self.classes[field]) - 1}, as classes.txt says",
            )


def read_table(path: Path, column: str) -> dict[str, str]:
    """The second column of a CSV file by the first, which is called name.

    Raises:
        DataError: the file cannot be read, has not this header, a row is not whole, or a name comes twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot be read: {error}", file=path) from error
    if not rows or [word.strip() for word in rows[0]] != ["name", column]:
        raise DataError(
            f"the header {','.join(rows[0]) if rows else ''!r}", file=path, expected=f"name,{column}"
        )
    found: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        words = [word.strip() for word in row]
        if len(words) != 2 or words[0] in found:
            raise DataError(
                f"row {number} is {','.join(row)!r}", file=path, expected="two values; names once"
            )
        found[words[0]] = words[1]
    return found


def _of(table: Mapping[str, Any], name: str, image: Path) -> Any:
    """What a table says of an image, by its name with or without the suffix."""
    return table.get(name, table.get(image.name))


def _lines(path: Path) -> tuple[str, ...]:
    try:
        names = tuple(
            line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()
        )
    except (OSError, ValueError) as error:
        raise DataError(
            "cannot be read", file=path, expected="the name of each class, one a line; line 1 is class 0"
        ) from error
    if not names or len(set(names)) < len(names) or len(names) > 255:
        raise DataError(f"{len(names)} names", file=path, expected="1 to 255, all different")
    return names


def _array(path: Path) -> Float[np.ndarray, ...]:
    try:
        return np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot be read as an array: {error}", file=path) from error


def _depth(path: Path, image: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".png":
        depth = read_depth_png(path)
    else:
        depth = read_pfm(path)[0] if path.suffix.lower() == ".pfm" else torch.from_numpy(_array(path))
    if depth.ndim != 2:
        raise DataError(f"an array of {tuple(depth.shape)}", file=path, expected="height x width")
    check_size(path, depth.numpy(), image)
    return {"depth_m": depth.where(depth.isfinite() & (depth > 0), torch.zeros(()))}


def _flow(path: Path, image: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".flo":
        flow = read_flo(path)
        valid = (flow.abs() < _UNKNOWN_FLOW).all(0)  # False also where it is nan
    else:
        flow, valid = read_kitti_flow(path)
    check_size(path, flow.permute(1, 2, 0).numpy(), image)
    return {"flow": flow.where(valid, torch.zeros(())), "flow_valid": valid}


def _normals(path: Path, image: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".png":
        colours = load_image(path)
        normals = (colours.float() * 2 / 255 - 1) * (colours > 0).any(0)
    else:
        normals = torch.from_numpy(_array(path))
        if normals.ndim != 3 or normals.shape[2] != 3:
            raise DataError(f"an array of {tuple(normals.shape)}", file=path, expected="height x width x 3")
        normals = normals.permute(2, 0, 1)
    check_size(path, normals.permute(1, 2, 0).numpy(), image)
    return {"normals": _unit(normals)}


def _unit(normals: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Vectors of length 1; 0 where there is no direction."""
    length = normals.norm(dim=0)
    known = length.isfinite() & (length > 1e-6)
    return torch.where(known, normals / length.where(known, torch.ones(())), torch.zeros(()))


def _boxes(entry: tuple[list[list[float]], list[int]], image: Path, file: Path) -> dict[str, Any]:
    boxes, labels = entry
    if any(len(box) != 4 for box in boxes):
        raise DataError(
            f"a box of {image.name} that has not four numbers", file=file, expected="x, y, width, height"
        )
    corners = corners_from_xywh(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    inside, classes = clipped(corners, torch.tensor(labels, dtype=torch.int64), image_size(image))
    return {"boxes": inside, "box_labels": classes}
